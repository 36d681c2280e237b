"""The GPU script where there is no GPU: what it would run is valid, and it says that it cannot."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from benchmarks import __main__ as bench
from cardiomegaly import cli, config

SCRIPT = Path(bench.__file__).with_name("gpu.sh")
STUDY = {
    (backbone, balance)
    for backbone in ("resnet152v2", "inceptionv3", "mobilenetv1", "efficientnetb4")
    for balance in (True, False)
}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": sys.executable}
    return subprocess.run(
        [str(SCRIPT), *words], env=environment, capture_output=True, text=True, check=False
    )


def jobs(overrides: list[str]) -> list[list[str]]:
    """The words of every job that Hydra's sweeper makes of these."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    return BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]


def test_dry_run_lists_valid_commands() -> None:
    finished = run("--dry-run", "trainer.max_epochs=1")
    assert finished.returncode == 0, finished.stderr
    commands = [shlex.split(line) for line in finished.stdout.splitlines()]
    trained = []
    for command in commands[:-1]:
        assert command[1:3] == ["-m", "cardiomegaly.train"]
        overrides = [word for word in command[3:] if word != "-m"]
        for words in jobs(overrides):
            with initialize_config_dir(str(config.CONF_DIR.resolve()), version_base="1.3"):
                cfg = config.check(compose("config", overrides=list(words)))
            assert cfg.trainer.max_epochs == 1
            kind = (cfg.trainer.strategy, cfg.backbone.trainable)
            trained.append((*kind, cfg.backbone.name, cfg.balance))
            assert cfg.trainer.batch_size == ("auto" if kind[0] == "auto" else 64)
    for trainable in ("none", "all"):
        single = {job[2:] for job in trained if job[:2] == ("auto", trainable)}
        assert single == STUDY
        ddp = {job[2] for job in trained if job[:2] == ("ddp", trainable)}
        assert ddp == {backbone for backbone, _ in STUDY}
    assert commands[-1][1:3] == ["-m", "benchmarks"]
    bench.check(cli.parse(bench.Options, commands[-1][3:]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_says_in_a_line_that_there_is_no_device() -> None:
    finished = run()
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert "error: torch finds no CUDA device" in finished.stderr.splitlines()[-1]
