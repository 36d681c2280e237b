"""Files of a run cut, emptied, flipped or lost: one clear line, or the same result."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cardiomegaly.training.record import read_run
from tests.faults import forked
from tests.faults.conftest import said

STARTED, EPOCHS = 18, 4  # steps after which it is killed, in its third epoch
FILES = (
    ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "checkpoints/best.ckpt",
    "checkpoints/last.ckpt", "history.csv", "run.json", "split.csv", "train.log",
)  # fmt: skip


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(200))


def lose(path: Path) -> None:
    path.unlink()


DAMAGES = (cut, empty, flip, noise, lose)


@pytest.fixture(scope="module")
def killed(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was killed in its third epoch."""
    folder = tmp_path_factory.mktemp("killed")
    place = ("cardiomegaly.training.module", "CardiomegalyModule.training_step", STARTED)
    assert forked.run([*tiny, "hydra.run.dir=run"], folder, place) == -9, said(folder)
    assert sorted(path for path in FILES if (folder / "run" / path).is_file()) == sorted(FILES)
    return folder


@pytest.mark.parametrize("damage", [cut, pytest.param(lose, marks=pytest.mark.slow)])
def test_a_history_is_written_anew(
    killed: Path, undisturbed: bytes, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = shutil.copytree(killed, tmp_path / "copy")
    damage(folder / "run" / "history.csv")
    assert forked.run(["resume=run"], folder) == 0, said(folder)
    assert (folder / "run" / "predictions.csv").read_bytes() == undisturbed
    assert read_run(folder / "run").history["epoch"].tolist() == list(range(EPOCHS))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_whatever_is_damaged_nothing_else_comes_out(
    killed: Path, undisturbed: bytes, tmp_path: Path, name: str
) -> None:
    for damage in DAMAGES:
        folder = shutil.copytree(killed, tmp_path / damage.__name__)
        (folder / "output.txt").unlink()
        damage(folder / "run" / name)
        code = forked.run(["resume=run"], folder)
        output = said(folder)
        assert "Traceback" not in output, output
        if code == 0:
            assert (folder / "run" / "predictions.csv").read_bytes() == undisturbed
        else:
            assert (code, output.splitlines()[-1][:7]) == (2, "error: ")


@pytest.fixture(scope="module")
def finished(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that has come to its end."""
    folder = tmp_path_factory.mktemp("finished")
    assert forked.run([*tiny, "hydra.run.dir=run"], folder) == 0, said(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FILES, "metrics.json", "predictions.csv"])
def test_whatever_is_damaged_an_evaluation_keeps_its_figures(
    finished: Path, tmp_path: Path, name: str
) -> None:
    for damage in (cut, noise):
        folder = shutil.copytree(finished, tmp_path / damage.__name__)
        (folder / "output.txt").unlink()
        damage(folder / "run" / name)
        code = forked.run(["run=run", "device=cpu"], folder, command="evaluate")
        output = said(folder)
        assert "Traceback" not in output, output
        if name in ("metrics.json", "predictions.csv", "split.csv", "history.csv"):
            assert (code, output.splitlines()[-1][:7]) == (2, "error: ")
            assert name in output.splitlines()[-1]
        elif name != ".hydra/config.yaml":
            assert code == 0, output
