"""Composes the words of a command as the command does: every job of a sweep, every option."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from cardiomegaly import cli, config, train


def compose_training(words: list[str]) -> list[config.Config]:
    """The checked configuration of each job of `python -m cardiomegaly.train WORDS`."""
    overrides = train.spell_out([word for word in words if word != "-m"])
    parsed = OverridesParser.create().parse_overrides(overrides)
    jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    with initialize_config_dir(str(config.CONF_DIR.resolve()), version_base="1.3"):
        return [config.check(compose("config", overrides=list(job))) for job in jobs]


def parse_options(module: str, words: list[str]) -> Any:
    """The options of `python -m MODULE WORDS`, of a command other than train."""
    command = importlib.import_module(module)
    return cli.parse(command.Options, getattr(command, "spell_out", list)(words))


def repository() -> Path:
    """The top of the checkout."""
    return Path(__file__).parents[1]
