"""What a run computes on: precision, devices, memory."""

from __future__ import annotations

import multiprocessing
import platform
from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig

from cardiomegaly import config
from cardiomegaly.training import device


@pytest.mark.parametrize(("matrices", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_precision_follows_the_processor(
    composed: Callable[..., DictConfig],
    monkeypatch: pytest.MonkeyPatch,
    matrices: bool,
    expected: str,
) -> None:
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: matrices)
    trainer = config.check(composed("trainer=cpu", "trainer.precision=null")).trainer
    assert device.choose_precision(trainer) == expected
    trainer.precision = "16-mixed"
    assert device.choose_precision(trainer) == "16-mixed"


@pytest.mark.parametrize(
    ("cuda", "bfloat16", "expected"),
    [(True, True, "bf16-mixed"), (True, False, "16-mixed"), (False, True, "32-true")],
)
def test_precision_follows_the_gpu(
    composed: Callable[..., DictConfig],
    monkeypatch: pytest.MonkeyPatch,
    cuda: bool,
    bfloat16: bool,
    expected: str,
) -> None:
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: bfloat16)
    trainer = config.check(composed("trainer=auto", "trainer.precision=null")).trainer
    assert device.choose_precision(trainer) == expected


def faults(keep: bool) -> int:
    """Pages that the kernel hands out for twenty tensors of 64 MiB, one freed before the next."""
    import resource  # absent from Windows

    if keep:
        device.keep_freed_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept_or_returned() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as fresh:
        returned, kept = fresh.map(faults, [False, True], chunksize=2)
    # Not zero: small objects may settle in a freed block, and the next tensor takes a new one.
    assert returned > 2 * kept


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    device.keep_freed_memory()
