"""Speeds that can be compared although the machine drifts: in turn, several rounds, in one run."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.benchmark import Timer

Rate = Callable[[], float]  # images a second
Runs = dict[str, list[float]]  # what was measured -> its value in each round
_measure: Callable[[], Any]  # in the other process


def rate(work: Callable[[], object], images: int, seconds: float, threads: int = 0) -> float:
    """Images a second of `work`, which does so many of them and is repeated for so many seconds."""
    timer = Timer("work()", globals={"work": work}, num_threads=threads or torch.get_num_threads())
    return images / timer.blocked_autorange(min_run_time=seconds).mean


def in_turn(measures: Mapping[str, Rate], rounds: int) -> Runs:
    """Call all of them in turn, `rounds` times (A B A B ...)."""
    runs: Runs = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            runs[name].append(measure())
    return runs


@contextmanager
def fresh_process(make: Callable[..., Callable[[], Any]], *arguments: Any) -> Iterator[Any]:
    """Let `make(*arguments)` return a function in a new process; yield what calls it there.

    How fast a process gets its memory depends on what it did before. So what torch's defaults are
    worth can only be measured where nothing was changed and nothing else ran.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, torch.set_num_threads, (torch.get_num_threads(),)) as pool:
        pool.submit(_make, make, arguments).result()
        yield lambda: pool.submit(_call).result()


def _make(make: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> None:
    global _measure
    _measure = make(*arguments)


def _call() -> Any:
    return _measure()
