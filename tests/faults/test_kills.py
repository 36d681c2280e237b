"""A process killed at every stage of a run: gone on with, it ends as if nobody had touched it."""

from __future__ import annotations

import signal
from pathlib import Path

import pandas as pd
import pytest

from cardiomegaly.training.record import read_run
from tests.faults import forked
from tests.faults.conftest import said

KILLED = -signal.SIGKILL
STORED = 91  # writes of the image cache: the 90 images, then their index
SLOW = pytest.mark.slow
STAGES = [
    pytest.param(("cardiomegaly.data.store", "_write", STORED // 2), id="cache"),
    pytest.param(
        ("cardiomegaly.data.store", "_write", STORED + 50), id="features", marks=SLOW
    ),
    pytest.param(
        ("cardiomegaly.training.module", "CardiomegalyModule.training_step", 11),
        id="epoch", marks=SLOW,
    ),
    pytest.param(
        ("cardiomegaly.training.checkpoints", "AtomicCheckpointIO.save_checkpoint", 2),
        id="between-best-and-last", marks=SLOW,
    ),
    pytest.param(
        ("cardiomegaly.model.predictor", "Predictor.predict_batches", 2),
        id="prediction", marks=SLOW,
    ),
    pytest.param(("cardiomegaly.training.record", "write_json", 1), id="metrics", marks=SLOW),
    pytest.param(("cardiomegaly.reports.plots", "save", 3), id="plots", marks=SLOW),
]  # fmt: skip


@pytest.mark.parametrize("place", STAGES)
def test_killed_at_a_stage(
    tiny: list[str], undisturbed: bytes, tmp_path: Path, place: forked.Place
) -> None:
    assert forked.run([*tiny, "hydra.run.dir=run"], tmp_path, place) == KILLED, said(tmp_path)
    assert forked.run(["resume=run"], tmp_path) == 0, said(tmp_path)
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == undisturbed
    assert (tmp_path / "run" / "plots" / "confusion_matrix.png").is_file()
    left = [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
    assert left == []


def test_killed_after_it_had_stopped_early(tiny: list[str], tmp_path: Path) -> None:
    """It trains no further: the soak's first difference."""
    words = [*tiny, "trainer.patience=1", "trainer.max_epochs=9"]
    place = ("cardiomegaly.model.predictor", "Predictor.predict_batches", 1)
    assert forked.run([*words, "hydra.run.dir=whole"], tmp_path) == 0, said(tmp_path)
    assert forked.run([*words, "hydra.run.dir=run"], tmp_path, place) == KILLED, said(tmp_path)
    assert forked.run(["resume=run"], tmp_path) == 0, said(tmp_path)
    ours, whole = (read_run(tmp_path / name) for name in ("run", "whole"))
    assert len(whole.history) < 9
    assert len(ours.history) == len(whole.history)
    pd.testing.assert_frame_equal(ours.predictions, whole.predictions, check_exact=True)
