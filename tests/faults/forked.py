"""A command in a process of its own, which begins at once and can be killed anywhere.

A new process imports torch, Lightning and timm for 7 seconds. Here a fork server of the standard
library has imported them, and each command is a fork of it that does all the rest as a new process
does: it reads its words, makes its folder and starts its loader processes.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

IMPORTED_BEFORE = [
    "cardiomegaly.train", "cardiomegaly.evaluate", "cardiomegaly.training.run",
    "cardiomegaly.reports.run_report", "cardiomegaly.reports.sweep_page",
    "cardiomegaly.sweep.callback", "pytorch_lightning.loggers", "tests.faults.forked",
]  # fmt: skip
TINY = [  # words of a training that takes 2 seconds; data.root is not among them
    "data=nih", "data.cache=cache", "cohort=all", "split.fractions=[0.5,0.25,0.25]",
    "backbone.weights=none", "backbone.name=test_resnet", "backbone.model=test_resnet",
    "backbone.last_stage=[layer4]", "backbone.image_size=64", "trainer=cpu",
    "trainer.precision=32-true", "trainer.max_epochs=16", "trainer.batch_size=6", "logger=none",
]  # fmt: skip
Place = tuple[str, str, int]  # module, what is called there, the call before which to die


def start(
    words: list[str],
    cwd: Path,
    die_at: Place | None = None,
    sent: signal.Signals = signal.SIGKILL,
    command: str = "train",
) -> ForkServerProcess:
    """Start `python -m cardiomegaly.COMMAND WORDS` in a folder; it writes to output.txt there.

    Args:
        words: of the command.
        cwd: the folder.
        die_at: where it gets a signal.
        sent: that signal.
        command: its name.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(IMPORTED_BEFORE)
    process = server.Process(target=_command, args=(words, cwd, die_at, sent, command))
    process.start()
    return process


def run(
    words: list[str],
    cwd: Path,
    die_at: Place | None = None,
    sent: signal.Signals = signal.SIGKILL,
    command: str = "train",
) -> int:
    """Run a command to its end, and return its exit code, -9 if it was killed."""
    process = start(words, cwd, die_at, sent, command)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _command(
    words: list[str], cwd: Path, die_at: Place | None, sent: signal.Signals, command: str
) -> None:
    multiprocessing.set_start_method("fork", force=True)  # as everywhere else on Linux
    os.chdir(cwd)
    with Path("output.txt").open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    if die_at is not None:
        _die_at(*die_at, sent)
    sys.argv = [command, *words]
    sys.exit(importlib.import_module(f"cardiomegaly.{command}").main())


def _die_at(module: str, name: str, call: int, sent: signal.Signals) -> None:
    """Replace a function by one that signals its process when it is called `call` times."""
    owner: Any = importlib.import_module(module)
    *classes, name = name.split(".")
    for part in classes:
        owner = getattr(owner, part)
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), sent)
        return real(*args, **kwargs)

    setattr(owner, name, deadly)
