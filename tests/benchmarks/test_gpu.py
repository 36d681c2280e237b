"""The GPU script where there is no GPU: what it would run is valid, and it says that it cannot."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as bench
from tests import words

SCRIPT = Path(bench.__file__).with_name("gpu.sh")
STUDY = {
    (backbone, balance)
    for backbone in ("resnet152v2", "inceptionv3", "mobilenetv1", "efficientnetb4")
    for balance in (True, False)
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": sys.executable}
    return subprocess.run(  # noqa: S603
        [str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_dry_run_lists_valid_commands() -> None:
    finished = run("--dry-run", "trainer.max_epochs=1")
    assert finished.returncode == 0, finished.stderr
    commands = [shlex.split(line) for line in finished.stdout.splitlines()]
    trained = []
    for command in commands[:-1]:
        assert command[1:3] == ["-m", "cardiomegaly.train"]
        for config in words.compose_training(command[3:]):
            assert config.trainer.max_epochs == 1
            kind = (config.trainer.strategy, config.backbone.trainable)
            trained.append((*kind, config.backbone.name, config.balance))
            assert config.trainer.batch_size == ("auto" if kind[0] == "auto" else 64)
    for trainable in ("none", "all"):
        single = {job[2:] for job in trained if job[:2] == ("auto", trainable)}
        assert single == STUDY
        ddp = {job[2] for job in trained if job[:2] == ("ddp", trainable)}
        assert ddp == {backbone for backbone, _ in STUDY}
    assert commands[-1][1:3] == ["-m", "benchmarks"]
    bench.check(words.parse_options(bench.__name__, commands[-1][3:]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_says_in_a_line_that_there_is_no_device() -> None:
    finished = run()
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert "error: torch finds no CUDA device" in finished.stderr.splitlines()[-1]
