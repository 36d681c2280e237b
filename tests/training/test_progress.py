"""What one sees of a training: its start, a line an epoch, its end, a bar."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cardiomegaly.training import progress
from cardiomegaly.training.record import read_run

Train = Callable[..., Path]
NO_PROGRESS = ("trainer.learning_rate=1e-12", "trainer.limit_train_batches=1")


def test_a_training_says_what_it_does(
    trained: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = trained(tmp_path / "run", "trainer.max_epochs=2", "trainer.limit_train_batches=1")
    lines = [record.getMessage() for record in caplog.records]
    start = "\n".join(lines)
    for expected in (
        r"data: nih in \S+; 90 rows in Data_Entry_2017\.csv, 90 images found, 0 unreadable",
        r"cohort: study, views PA and AP; split: patient",
        r"train +\d+ images of +\d+ patients, +\d+\.\d% with cardiomegaly",
        r"model: mobilenetv1 \(mobilenetv1_100\.\S+\) at 64 pixels, trained: none",
        r"weights: random",
        r"at most 2 epochs .* ends when val/auroc has not been better for 10",
        rf"run folder: {folder}",
        rf"go on by: python -m cardiomegaly\.train resume={folder}",
    ):
        assert re.search(expected, start), expected
    history = read_run(folder).history
    epochs = [line for line in lines if line.startswith("epoch ")]
    for epoch, line in enumerate(epochs):
        row, best = history.iloc[epoch], history["val/auroc"][: epoch + 1]
        patience = 10 - (epoch - best.idxmax())
        assert re.fullmatch(
            rf"epoch {epoch}/1: train/loss {row['train/loss']:.4f}, val/loss {row['val/loss']:.4f},"
            rf" val/auroc {row['val/auroc']:.4f}, best {best.max():.4f} in epoch {best.idxmax()},"
            rf" patience {patience} of 10 left, \d+ images/s, at most 0:\d\d:\d\d left",
            line,
        ), line
    assert len(epochs) == 2
    assert any(
        line.startswith("the training ends after epoch 1: that was the last of") for line in lines
    )


def test_early_stopping_says_why(
    trained: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    trained(tmp_path / "run", "trainer.max_epochs=9", "trainer.patience=2", *NO_PROGRESS)
    assert re.search(
        r"the training ends after epoch 2: val/auroc has not been better for trainer\.patience=2; "
        r"best 0\.\d{4} in epoch 0",
        caplog.text,
    )


def test_the_bar_shows_loss_and_metric_in_a_terminal_only(
    trained: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("trainer.progress_bar=true", "trainer.max_epochs=2")
    trained(tmp_path / "file", *words, f"data.cache={tmp_path / 'cache'}")
    written = capsys.readouterr()
    assert "Epoch" not in written.out
    assert "%|" not in written.out + written.err  # decoding has a bar of its own
    monkeypatch.setattr("cardiomegaly.training.run.in_terminal", lambda: True)
    trained(tmp_path / "terminal", *words)
    shown = capsys.readouterr().out
    assert re.search(r"Epoch 1: .*loss=\d\.\d{4}, val/auroc=0\.\d{4}", shown)
    assert "v_num" not in shown


def test_output_that_nobody_sees_is_no_terminal() -> None:
    assert not progress.in_terminal()
