"""Disks that fill and folders that cannot be written, in the middle of whole runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import forked
from tests.faults.conftest import said


@pytest.mark.slow
@pytest.mark.parametrize("mebibytes", [2.5, 3.5, 4.5, 5.5])
def test_a_disk_that_fills_in_a_run(
    tiny: list[str], undisturbed: bytes, small_disk: Path, mebibytes: float
) -> None:
    """Told in one line wherever that happens; with more room the run ends as it would have."""
    disk = small_disk
    resize(disk, mebibytes)
    cache = f"data.cache={disk.parent / 'cache'}"
    code = forked.run([*tiny, cache, f"hydra.run.dir={disk}/run"], disk.parent)
    assert code == 1, said(disk.parent)
    assert "Traceback" not in said(disk.parent)
    assert "No space left on device" in said(disk.parent).splitlines()[-1]
    resize(disk, 50)
    assert forked.run([f"resume={disk}/run"], disk.parent) == 0, said(disk.parent)
    assert (disk / "run" / "predictions.csv").read_bytes() == undisturbed


def resize(disk: Path, mebibytes: float) -> None:
    """Give a tmpfs another size."""
    size = f"remount,size={int(mebibytes * 2**20)}"
    subprocess.run(["/bin/mount", "-o", size, str(disk)], check=True)  # noqa: S603


@pytest.mark.slow
@pytest.mark.parametrize("kibibytes", [64, 200, 420])
def test_a_disk_of_the_cache_that_fills(
    tiny: list[str], undisturbed: bytes, small_disk: Path, kibibytes: int
) -> None:
    """Of images or of features: refused beforehand or told in one line."""
    disk = small_disk
    resize(disk, kibibytes / 1024)
    words = [*tiny, f"data.cache={disk}/cache", "hydra.run.dir=run"]
    assert forked.run(words, disk.parent) == 2, said(disk.parent)
    assert said(disk.parent).splitlines()[-1].startswith("error: data.cache: ")
    resize(disk, 50)
    assert forked.run(words, disk.parent) == 0, said(disk.parent)
    assert (disk.parent / "run" / "predictions.csv").read_bytes() == undisturbed


@pytest.mark.slow
def test_no_temporary_folder(
    tiny: list[str],
    undisturbed: bytes,
    tmp_path: Path,
    read_only: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run needs none."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    read_only(folder)
    monkeypatch.setenv("TMPDIR", str(folder))
    code = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "cardiomegaly.train", *tiny, "hydra.run.dir=run"],
        cwd=tmp_path, check=False,
    ).returncode  # fmt: skip
    assert code == 0
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == undisturbed


def test_an_output_folder_that_is_read_only(
    tiny: list[str], tmp_path: Path, read_only: Callable[[Path], None]
) -> None:
    folder = tmp_path / "outputs"
    folder.mkdir()
    read_only(folder)
    assert forked.run([*tiny, "hydra.run.dir=outputs/run"], tmp_path) == 2
    assert said(tmp_path).splitlines()[-1] == (
        f"error: hydra.run.dir: {folder} cannot be written; say hydra.run.dir=FOLDER"
    )
