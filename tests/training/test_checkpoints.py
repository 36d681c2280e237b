"""Checkpoints: never half of one, the right one to go on from, the best score wherever they lie."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from cardiomegaly import RunError, UserError
from cardiomegaly.model.predictor import read_checkpoint
from cardiomegaly.training.checkpoints import AtomicCheckpointIO, choose_checkpoint
from cardiomegaly.training.record import CHECKPOINT, LAST_CHECKPOINT, read_run

Train = Callable[..., Path]
STAYS_BEST = ("trainer.learning_rate=1e-12", "trainer.limit_train_batches=1")


def save(path: Path, epoch: int, values: int = 1000) -> None:
    AtomicCheckpointIO().save_checkpoint({"epoch": epoch, "weights": torch.ones(values)}, path)


def epoch_of(path: Path) -> int:
    return read_checkpoint(path)["epoch"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder whose best epoch is 1 and whose last is 3."""
    save(tmp_path / CHECKPOINT, 1)
    save(tmp_path / LAST_CHECKPOINT, 3)
    return tmp_path


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_write_that_stops_leaves_the_former_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch, stop: Any
) -> None:
    def half(checkpoint: dict[str, Any], file: IO[bytes]) -> None:
        file.write(b"half of a checkpoint")
        raise stop

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises((KeyboardInterrupt, RunError)):
        save(folder / LAST_CHECKPOINT, 4)
    assert epoch_of(folder / LAST_CHECKPOINT) == 3
    names = [path.name for path in (folder / LAST_CHECKPOINT).parent.iterdir()]
    assert sorted(names) == ["best.ckpt", "last.ckpt"]


@pytest.mark.slow
def test_a_process_killed_while_it_writes_leaves_the_former_checkpoint(folder: Path) -> None:
    """Killed when all bytes are written but not yet in place, twice; what it left goes."""
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.training.test_checkpoints import save\n"
        "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
        "save(Path(sys.argv[1]), 4)\n"
    )
    last = folder / LAST_CHECKPOINT
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", program, last], check=False)  # noqa: S603
        assert done.returncode == -signal.SIGKILL
    assert len(list(last.parent.glob(".*.tmp"))) == 2
    assert choose_checkpoint(folder) == last
    assert epoch_of(last) == 3
    assert list(last.parent.glob(".*.tmp")) == []


def test_a_full_disk_leaves_the_former_checkpoint(small_disk: Path) -> None:
    last = small_disk / LAST_CHECKPOINT
    save(last, 3)
    with pytest.raises(RunError, match=r"last\.ckpt cannot be written: No space left on device"):
        save(last, 4, values=1_000_000)
    assert epoch_of(last) == 3
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]


def test_a_read_only_folder_is_named(folder: Path, read_only: Callable[[Path], None]) -> None:
    read_only(folder)
    with pytest.raises(RunError, match=r"last\.ckpt cannot be written: Read-only file system"):
        save(folder / LAST_CHECKPOINT, 4)
    assert epoch_of(folder / LAST_CHECKPOINT) == 3


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def empty(content: bytes) -> bytes:
    return b""


def flip(content: bytes) -> bytes:
    """One byte among the weights, which torch does not notice."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [cut, empty, flip])
def test_what_is_damaged_is_not_gone_on_from(
    folder: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes]
) -> None:
    best, last = folder / CHECKPOINT, folder / LAST_CHECKPOINT
    last.write_bytes(damage(last.read_bytes()))
    assert choose_checkpoint(folder) == best
    assert f"{last} is not a readable checkpoint" in caplog.text
    assert f"going on from {best}" in caplog.text
    best.write_bytes(damage(best.read_bytes()))
    with pytest.raises(UserError, match=r"resume: .*best\.ckpt is not a readable .* start the run"):
        choose_checkpoint(folder)


def test_which_checkpoint_is_gone_on_from(folder: Path) -> None:
    assert choose_checkpoint(folder) == folder / LAST_CHECKPOINT
    save(folder / CHECKPOINT, 4)  # killed before the last of epoch 4 was written
    assert choose_checkpoint(folder) == folder / CHECKPOINT
    (folder / LAST_CHECKPOINT).unlink()
    assert choose_checkpoint(folder) == folder / CHECKPOINT
    shutil.rmtree(folder / "checkpoints")
    assert choose_checkpoint(folder) is None


@pytest.mark.slow
def test_every_epoch_is_kept_and_a_moved_run_keeps_its_best(trained: Train, tmp_path: Path) -> None:
    """No epoch after the first is better, before the move and after it."""
    first = trained(tmp_path / "first", "trainer.max_epochs=2", *STAYS_BEST)
    assert (epoch_of(first / CHECKPOINT), epoch_of(first / LAST_CHECKPOINT)) == (0, 1)
    before = read_run(first).meta
    moved = first.rename(tmp_path / "moved")
    trained(moved, "trainer.max_epochs=4", *STAYS_BEST, f"resume={moved}")
    run = read_run(moved)
    assert (epoch_of(moved / CHECKPOINT), epoch_of(moved / LAST_CHECKPOINT)) == (0, 3)
    assert run.history["epoch"].tolist() == [0, 1, 2, 3]
    assert (run.meta["best_epoch"], run.meta["best_value"]) == (0, before["best_value"])
    assert run.meta["best_value"] == run.metrics["val"]["auroc"] == run.history["val/auroc"][0]
    assert not first.exists()


def test_a_run_goes_on_from_the_best_where_the_last_is_damaged(
    trained: Train, trained_run: Path, tmp_path: Path
) -> None:
    """Its epochs after the best are made again: the result is the same."""
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    last = folder / LAST_CHECKPOINT
    last.write_bytes(cut(last.read_bytes()))
    trained(folder, "trainer.max_epochs=2", "backbone.trainable=all", f"resume={folder}")
    for name in ("predictions.csv", "split.csv"):
        assert (folder / name).read_bytes() == (trained_run / name).read_bytes()
