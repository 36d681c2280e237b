"""A process killed at every stage of a run: gone on with, it ends as if nobody had touched it."""

from __future__ import annotations

import signal
from pathlib import Path

import pandas as pd
import psutil
import pytest

from cardiomegaly.sweep import ledger
from cardiomegaly.training.record import read_run
from tests.faults import forked
from tests.faults.conftest import said

KILLED = -signal.SIGKILL
STORED = 91  # writes of the image cache: the 90 images, then their index
SLOW = pytest.mark.slow
STAGES: dict[str, forked.Place] = {
    "cache": ("cardiomegaly.data.store", "_write", STORED // 2),
    "features": ("cardiomegaly.data.store", "_write", STORED + 50),
    "epoch": ("cardiomegaly.training.module", "CardiomegalyModule.training_step", 11),
    "between-best-and-last": (
        "cardiomegaly.training.checkpoints", "AtomicCheckpointIO.save_checkpoint", 2,
    ),
    "prediction": ("cardiomegaly.model.predictor", "Predictor.predict_batches", 2),
    "metrics": ("cardiomegaly.training.record", "write_json", 1),
    "plots": ("matplotlib.figure", "Figure.savefig", 3),
}  # fmt: skip


@pytest.mark.parametrize(
    "stage", [pytest.param(stage, marks=[SLOW] * (stage != "cache")) for stage in STAGES]
)
def test_killed_at_a_stage(tiny: list[str], undisturbed: bytes, tmp_path: Path, stage: str) -> None:
    words = [*tiny, "hydra.run.dir=run"]
    assert forked.run(words, tmp_path, STAGES[stage]) == KILLED, said(tmp_path)
    assert forked.run(["resume=run"], tmp_path) == 0, said(tmp_path)
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == undisturbed
    assert (tmp_path / "run" / "plots" / "confusion_matrix.png").is_file()
    left = [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
    assert left == []


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", STAGES)
def test_interrupted_at_a_stage(
    tiny: list[str], undisturbed: bytes, tmp_path: Path, stage: str, sent: signal.Signals
) -> None:
    words = [*tiny, "hydra.run.dir=run"]
    assert forked.run(words, tmp_path, STAGES[stage], sent) == 128 + sent, said(tmp_path)
    assert "Traceback" not in said(tmp_path)
    assert f"resume={tmp_path / 'run'}" in said(tmp_path).splitlines()[-1]
    assert forked.run(["resume=run"], tmp_path) == 0, said(tmp_path)
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == undisturbed


OPTIONS = {
    "cosine": ("schedule=cosine", "optimizer=adamw", "loss=focal", "trainer.gradient_clip_val=1"),
    "onecycle": ("schedule=onecycle", "optimizer=sgd", "trainer.layer_decay=0.8"),
    "plateau": ("schedule=plateau", "schedule.patience=0", "loss=smoothed", "loss.smoothing=0.3"),
    "tuned": ("schedule=freeze_then_tune", "trainer.freeze_epochs=2", "averaging=ema"),
    "frozen": ("schedule=freeze_then_tune", "trainer.freeze_epochs=4", "optimizer=sgd"),
    "impatient": ("schedule=freeze_then_tune", "trainer.freeze_epochs=4", "trainer.patience=1"),
    "average": ("averaging=ema", "averaging.decay=0.8", "loss=weighted_bce"),
    "hearts": ("trainer.attention_weight=1", "backbone.region=heart", "flips=true", "seed=1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_killed_with_other_ways_to_learn(tiny: list[str], tmp_path: Path, name: str) -> None:
    """Schedule, average and the like are where they were."""
    live = ("features=live", "backbone.trainable=all", "trainer.max_epochs=5")
    words = [*tiny, *live, *OPTIONS[name]]
    assert forked.run([*words, "hydra.run.dir=whole"], tmp_path) == 0, said(tmp_path)
    # The first step of epoch 3, of 8 steps each; so last.ckpt is of epoch 2.
    place = ("cardiomegaly.training.module", "CardiomegalyModule.training_step", 3 * 8 + 1)
    assert forked.run([*words, "hydra.run.dir=run"], tmp_path, place) == KILLED, said(tmp_path)
    assert forked.run(["resume=run"], tmp_path) == 0, said(tmp_path)
    ours, whole = (read_run(tmp_path / each) for each in ("run", "whole"))
    times = ["seconds", "images_per_second"]
    pd.testing.assert_frame_equal(
        ours.history.drop(columns=times), whole.history.drop(columns=times), check_exact=True
    )
    predictions = [tmp_path / each / "predictions.csv" for each in ("run", "whole")]
    assert predictions[0].read_bytes() == predictions[1].read_bytes()


@pytest.mark.slow
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


@pytest.mark.slow
def test_killed_while_a_sweep_is_reported(tiny: list[str], tmp_path: Path) -> None:
    """Its jobs are done and stay so; the report is written when it goes on."""
    words = ["-m", *tiny, "seed=1,2", "hydra.sweep.dir=sweep"]
    place = ("cardiomegaly.reports.sweep_page", "write_report", 1)
    assert forked.run(words, tmp_path, place) == KILLED, said(tmp_path)
    folder = tmp_path / "sweep"
    before = ledger.read_entries(folder)
    assert [entry.status for entry in before] == ["done", "done"]
    assert not (folder / "report.html").exists()
    assert forked.run(["-m", "sweep.resume=sweep"], tmp_path) == 0, said(tmp_path)
    assert ledger.read_entries(folder) == before
    assert (folder / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_loader_process_is_killed(tiny: list[str], tmp_path: Path, sent: signal.Signals) -> None:
    """As a system does that lacks memory: the run does not wait for it, and says who is gone."""
    words = [*tiny, "features=live", "data.workers=2", "hydra.run.dir=run"]
    process = forked.start([*words, "trainer.max_epochs=500", "trainer.patience=500"], tmp_path)
    parent = psutil.Process(process.pid)
    while process.is_alive() and not (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file():
        process.join(0.01)
    parent.children()[0].send_signal(sent)
    process.join(60)
    assert process.exitcode == 1, said(tmp_path)
    assert "DataLoader worker" in said(tmp_path)
