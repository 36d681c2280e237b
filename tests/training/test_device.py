"""What a run computes on: precision, devices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from cardiomegaly import config
from cardiomegaly.training import device
from cardiomegaly.training.record import read_run
from cardiomegaly.training.run import build_datamodule


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


def test_the_processor_is_used_as_if_there_were_no_gpu(
    trained: Callable[..., Path],
    composed: Callable[..., DictConfig],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """`trainer=cpu` beside a GPU: CUDA is never started, no memory is pinned, few workers."""

    def started(*_: object) -> None:
        raise AssertionError("CUDA was started")

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    # Torch's optimisers ask for its streams, whatever they work on.
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    for name in ("_lazy_init", "is_bf16_supported", "synchronize", "max_memory_allocated"):
        monkeypatch.setattr(f"torch.cuda.{name}", started)
    settings = config.check(composed("trainer=cpu", "data.workers=null"))
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    datamodule = build_datamodule(settings)
    datamodule.prepare_data()
    datamodule.setup()
    loader = datamodule.train_dataloader()
    assert (loader.num_workers, loader.pin_memory) == (1, False)
    run = read_run(trained(tmp_path / "run", "trainer=cpu"))
    assert run.meta["device"].startswith("cpu")
    assert 50 < run.meta["peak_memory_mb"] < 50_000
