"""Work in a process of its own, which starts with every default of torch and the C library."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")
_made: Callable[..., float]  # in the other process


def in_fresh_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call it in a process that has done nothing else, and starts loaders as this one does."""
    with _fresh() as pool:
        return pool.submit(function, *arguments).result()


class Apart:
    """A measurement that is made in a fresh process and called there, until the block ends.

    How fast a process gets its memory depends on what it did before. So what torch's defaults are
    worth can only be measured where nothing was changed and nothing else ran.

    Args:
        make: called once in the other process; returns what a call of this object calls there.
        arguments: of `make`.
    """

    def __init__(self, make: Callable[..., Callable[..., float]], *arguments: Any) -> None:
        self.make = make
        self.arguments = arguments

    def __enter__(self) -> Apart:
        self.pool = _fresh()
        try:
            self.pool.submit(_make, self.make, self.arguments).result()
        except BaseException:
            self.pool.shutdown()
            raise
        return self

    def __call__(self, *arguments: Any) -> float:
        """Measure in the other process."""
        return self.pool.submit(_call, arguments).result()

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown()


def _fresh() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(multiprocessing.get_start_method(), torch.get_num_threads()),
    )


def _begin(start_method: str, threads: int) -> None:
    multiprocessing.set_start_method(start_method, force=True)
    torch.set_num_threads(threads)


def _make(make: Callable[..., Callable[..., float]], arguments: tuple[Any, ...]) -> None:
    global _made
    _made = make(*arguments)


def _call(arguments: tuple[Any, ...]) -> float:
    return _made(*arguments)
