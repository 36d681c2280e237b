"""`features=reuse`: the same results as running the frozen backbone, and computed once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from cardiomegaly import UserError, config
from cardiomegaly.data import store as row_store
from cardiomegaly.data.datamodule import CardiomegalyDataModule
from cardiomegaly.data.sampler import BatchKey
from cardiomegaly.model.backbone import Backbone
from cardiomegaly.training import features
from cardiomegaly.training.record import read_run
from cardiomegaly.training.run import build_datamodule, build_module

Train = Callable[..., Path]
CPU = torch.device("cpu")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images that went through a backbone, a number a batch; the look at its size left out."""
    seen: list[int] = []
    real = Backbone.forward

    def forward(self: Backbone, image: torch.Tensor) -> torch.Tensor:
        if len(image) > 1 or image.any():
            seen.append(len(image))
        return real(self, image)

    monkeypatch.setattr(Backbone, "forward", forward)
    return seen


def reused(cfg: DictConfig) -> tuple[CardiomegalyDataModule, Backbone]:
    settings = config.check(cfg)
    torch.manual_seed(0)
    datamodule = build_datamodule(settings)
    datamodule.prepare_data()
    datamodule.setup()
    backbone = build_module(settings)[0].classifier.backbone
    features.reuse_features(settings, datamodule, backbone, CPU, "32-true")
    return datamodule, backbone


def test_without_augmentation_it_equals_live_training(trained: Train, tmp_path: Path) -> None:
    common = ("augment=none", "trainer.max_epochs=3", "features.views=1")
    live = read_run(trained(tmp_path / "live", *common))
    reuse = read_run(
        trained(tmp_path / "reuse", "features=reuse", f"data.cache={tmp_path}", *common)
    )
    assert reuse.meta["features"] == "reuse"
    np.testing.assert_allclose(
        reuse.predictions["probability"], live.predictions["probability"], atol=0.01
    )
    np.testing.assert_allclose(reuse.history["train/loss"], live.history["train/loss"], atol=0.02)


def test_features_are_those_of_the_augmented_images(
    composed: Callable[..., DictConfig], tmp_path: Path
) -> None:
    datamodule, backbone = reused(
        composed("features=reuse", "features.views=2", f"data.cache={tmp_path}")
    )
    key = BatchKey(np.arange(6), seed=3)
    plain = datamodule.loaded("val")[key]["features"].float()
    with torch.no_grad():
        expected = backbone(datamodule.dataset("val")[key]["image"])
    torch.testing.assert_close(plain, expected, atol=2e-3, rtol=2e-3)
    train = datamodule.loaded("train", augmented=True)
    one, again, other = (train[BatchKey(np.arange(20), seed)]["features"] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    same = (one == other).all(dim=(1, 2, 3)).float().mean()
    assert 0.1 < same < 0.9  # one of two views of each image, at random


def test_computed_once_for_heads_balance_and_other_seeds(
    composed: Callable[..., DictConfig], tmp_path: Path, counted: list[int]
) -> None:
    words = ("features=reuse", "features.views=2", f"data.cache={tmp_path}", "cohort=all")
    datamodule, _ = reused(composed(*words))
    parts = {name: len(table) for name, table in datamodule.parts.items()}
    assert sum(counted) == parts["val"] + parts["test"] + 2 * parts["train"]
    counted.clear()
    for change in ("balance=false", "head=gap", "trainer.max_epochs=5"):
        reused(composed(*words, change))
    assert sum(counted) == 0
    reused(composed(*words, "features.views=3"))
    assert sum(counted) == parts["train"]  # the third view alone
    counted.clear()
    reused(composed(*words, "seed=7"))  # another split
    assert 0 < sum(counted) < parts["val"] + parts["test"] + 2 * parts["train"]
    counted.clear()
    reused(composed(*words, "augment=study"))
    assert sum(counted) == parts["val"] + parts["test"] + 2 * parts["train"]


def test_disk_without_room_is_refused_beforehand(
    composed: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = composed("features=reuse", f"data.cache={tmp_path}")
    datamodule = build_datamodule(config.check(cfg))
    datamodule.prepare_data()  # the images still fit
    usage = row_store.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(row_store.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"data\.cache: .* GB for the features of \d+ images"):
        reused(cfg)


def test_a_backbone_that_trains_cannot_be_reused(composed: Callable[..., DictConfig]) -> None:
    with pytest.raises(UserError, match=r"features=reuse: needs a frozen backbone"):
        config.check(composed("features=reuse", "backbone.trainable=all"))
