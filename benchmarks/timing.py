"""Speeds that can be compared although the machine drifts: in turn, several times, in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import cv2
import torch

Runs = dict[str, list[float]]  # what was measured -> its speed in each run


def in_turn(measures: Mapping[str, Callable[[], float]], repeats: int) -> Runs:
    """Call all of them in turn, `repeats` times round (A B A B ...)."""
    runs: Runs = {name: [] for name in measures}
    for _ in range(repeats):
        for name, measure in measures.items():
            runs[name].append(measure())
    return runs


def median_ratio(one: list[float], other: list[float]) -> float:
    """Median over the rounds of one speed by the other of the same round."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def rate(work: Callable[[], int]) -> float:
    """Images a second of `work`, which returns how many it did."""
    synchronise()
    start = time.perf_counter()
    images = work()
    synchronise()
    return images / (time.perf_counter() - start)


def synchronise() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch and OpenCV use one thread each."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


@contextmanager
def torch_defaults() -> Iterator[None]:
    """Undo for a while what a Trainer sets for the whole process: deterministic algorithms."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
