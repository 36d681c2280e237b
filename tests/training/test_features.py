"""`features=reuse`: the same results as running the frozen backbone, and computed once."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash
from omegaconf import DictConfig
from PIL import Image

from cardiomegaly import UserError, config
from cardiomegaly.data import store as row_store
from cardiomegaly.data.datamodule import CardiomegalyDataModule
from cardiomegaly.data.sampler import BatchKey
from cardiomegaly.data.store import ROWS
from cardiomegaly.data.transforms import build_augmentation
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


@pytest.mark.parametrize(
    ("overrides", "chosen", "why"),
    [
        ((), "reuse", "features of {rows} images, 2 views of each for training, take 0.00 GB"),
        (("augment=none",), "reuse", "features of {plain} images, 1 views"),
        (("features.most_gb=0",), "live", r"allowed are 0 GB \(features.most_gb\)"),
        (("features.disk_share=0",), "live", r"and 0.0 GB \(features.disk_share=0 of the free"),
        (("backbone.trainable=all",), "live", "live, since the backbone is trained"),
    ],
)
def test_auto_reuses_what_fits(
    composed: Callable[..., DictConfig],
    caplog: pytest.LogCaptureFixture,
    overrides: tuple[str, ...],
    chosen: str,
    why: str,
) -> None:
    settings = config.check(composed("features=auto", *overrides))
    datamodule = build_datamodule(settings)
    datamodule.prepare_data()
    datamodule.setup()
    backbone = build_module(settings)[0].classifier.backbone
    with caplog.at_level("INFO"):
        assert features.choose_features(settings, datamodule, backbone, "32-true") == chosen
    train, val = (len(datamodule.parts[part]) for part in ("train", "val"))
    told = why.format(rows=2 * train + val, plain=train + val)
    assert re.search(f"features=auto: {chosen}, .*{told}|features=auto: {told}", caplog.text)


def test_auto_is_recorded_as_what_it_was_and_resumed_so(trained: Train, tmp_path: Path) -> None:
    run = read_run(trained(tmp_path / "run"))
    assert run.config["features"]["name"] == "auto"
    assert run.meta["features"] == "reuse"
    trained(run.folder, f"resume={run.folder}", "trainer.max_epochs=2", "features.most_gb=0")
    assert read_run(run.folder).meta["features"] == "reuse"


@pytest.mark.slow
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
    words = ("features=reuse", "features.views=2", f"data.cache={tmp_path}")
    datamodule, backbone = reused(composed(*words))
    positions = np.arange(20)
    plain = datamodule.features["val"][BatchKey(positions[:6], seed=3)]["features"]
    with torch.no_grad():
        expected = backbone(datamodule.dataset("val")[BatchKey(positions[:6], 0)]["image"])
    torch.testing.assert_close(plain.float(), expected, atol=2e-3, rtol=2e-3)

    views = [view_by_hand(datamodule, view, positions) for view in (1, 2)]
    with torch.no_grad():
        one, two = (backbone(view) for view in views)
    train = datamodule.features["train"]
    drawn, again, other = (
        train[BatchKey(positions, seed)]["features"].float() for seed in (1, 1, 2)
    )
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, other)
    is_one, is_two = (
        torch.isclose(drawn, view, atol=2e-3, rtol=2e-3).flatten(1).all(1) for view in (one, two)
    )
    assert (is_one ^ is_two).all()  # each is one of its image's two views
    assert 0.1 < is_one.float().mean() < 0.9


def view_by_hand(
    datamodule: CardiomegalyDataModule, view: int, positions: np.ndarray
) -> torch.Tensor:
    """Training images, each augmented by what follows from its name and the view's number."""
    pixels = datamodule.dataset("train")[BatchKey(positions, 0)]["image"].numpy()
    pipeline = build_augmentation(datamodule.augment)
    for name, image in zip(datamodule.parts["train"]["image"], pixels, strict=False):
        key = [xxhash.xxh3_64_intdigest(name.encode()), view]
        pipeline.set_random_seed(int(np.random.default_rng(key).integers(2**31)))
        image[0] = pipeline(image=image[0][..., None])["image"][..., 0]
    return torch.from_numpy(pixels)


def test_computed_once_for_heads_balance_and_other_seeds(
    composed: Callable[..., DictConfig], tmp_path: Path, counted: list[int]
) -> None:
    words = ("features=reuse", "features.views=2", f"data.cache={tmp_path}", "cohort=all")
    datamodule, _ = reused(composed(*words))
    parts = {name: len(table) for name, table in datamodule.parts.items()}
    assert sum(counted) == parts["val"] + 2 * parts["train"]  # a run is tested from images
    counted.clear()
    for change in ("balance=false", "head=gap", "trainer.max_epochs=5"):
        reused(composed(*words, change))
    assert sum(counted) == 0
    reused(composed(*words, "features.views=3"))
    assert sum(counted) == parts["train"]  # the third view alone
    counted.clear()
    reused(composed(*words, "seed=7"))  # another split
    assert 0 < sum(counted) < parts["val"] + 2 * parts["train"]
    counted.clear()
    reused(composed(*words, "augment=study"))
    assert sum(counted) == 2 * parts["train"]  # unaugmented images are the same


def test_without_augmentation_there_is_one_view(
    composed: Callable[..., DictConfig], tmp_path: Path, counted: list[int]
) -> None:
    words = ("features=reuse", "features.views=4", f"data.cache={tmp_path}", "cohort=all")
    datamodule, _ = reused(composed(*words, "augment=none"))
    assert sum(counted) == len(datamodule.parts["val"]) + len(datamodule.parts["train"])
    assert len(datamodule.features["train"].keys) == 1


def test_only_what_is_new_is_computed_when_an_image_is_added(
    composed: Callable[..., DictConfig],
    phantom_root: Path,
    tmp_path: Path,
    counted: list[int],
) -> None:
    root = tmp_path / "cohort"
    shutil.copytree(phantom_root, root)
    words = ("features=reuse", "features.views=2", f"data.cache={tmp_path}", "cohort=all")
    words = (*words, f"data.root={root}", "augment=none")
    first, _ = reused(composed(*words))
    counted.clear()
    Image.fromarray(np.full((64, 64), 99, np.uint8)).save(root / "images" / "00000000_000.png")
    path = root / "Data_Entry_2017.csv"
    header, *rows = path.read_text().splitlines(keepends=True)
    row = "00000000_000.png,No Finding,0,9999,50,M,PA,2048,2500,0.1,0.1\n"
    path.write_text("".join([header, row, *rows]))  # before all others
    second, _ = reused(composed(*words))
    seen, wanted = (
        {name for part in ("val", "train") for name in module.parts[part]["image"]}
        for module in (first, second)
    )
    assert sum(counted) == len(wanted - seen) < len(wanted) / 4  # the new one, and former tests
    names = set(first.parts["val"]["image"])
    part, name = next(
        (part, name)
        for part in ("val", "train")
        for name in second.parts[part]["image"]
        if name in names
    )
    before = np.flatnonzero(first.parts["val"]["image"] == name)
    place = np.flatnonzero(second.parts[part]["image"] == name)
    torch.testing.assert_close(
        second.features[part][BatchKey(place, 0)]["features"],
        first.features["val"][BatchKey(before, 0)]["features"],
    )


@pytest.mark.parametrize("how", ["flipped", "zeroed", "cut", "lost"])
def test_what_is_damaged_is_computed_anew_and_said(
    composed: Callable[..., DictConfig],
    tmp_path: Path,
    counted: list[int],
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    words = ("features=reuse", "features.views=2", f"data.cache={tmp_path}")
    datamodule, _ = reused(composed(*words))
    key = BatchKey(np.arange(len(datamodule.parts["train"])), seed=1)
    before = datamodule.features["train"][key]["features"]
    store = datamodule.features["train"].store
    path, size = store.folder / ROWS, store.row_bytes
    content = bytearray(path.read_bytes())
    counted.clear()
    if how == "flipped":
        content[2 * size + 7] ^= 4
        content[-1] ^= 128
    elif how == "zeroed":
        content[size : 3 * size] = bytes(2 * size)
    path.write_bytes(content[: {"cut": len(content) - size - 1, "lost": 0}.get(how)])
    with pytest.raises(UserError, match="was damaged after the start: start again"):
        for part in ("val", "train"):  # by a training that is under way
            for start in range(0, len(datamodule.parts[part]), 16):
                n = len(datamodule.parts[part])
                for seed in range(8):
                    positions = np.arange(start, min(n, start + 16))
                    datamodule.features[part][BatchKey(positions, seed)]
    caplog.clear()
    again, _ = reused(composed(*words))
    assert sum(counted) == (2 if how != "lost" else len(content) // size)
    assert "computed anew" in caplog.text
    torch.testing.assert_close(again.features["train"][key]["features"], before)
    counted.clear()
    caplog.clear()
    reused(composed(*words))
    assert not counted
    assert "computed anew" not in caplog.text


def test_a_read_only_cache_will_do(
    composed: Callable[..., DictConfig], tmp_path: Path, read_only: Callable[[Path], None]
) -> None:
    cache = tmp_path / "cache"
    words = ("features=reuse", "features.views=2", f"data.cache={cache}")
    reused(composed(*words))
    read_only(cache)
    datamodule, _ = reused(composed(*words))
    assert sum(len(batch["features"]) for batch in datamodule.train_dataloader()) > 0
    with pytest.raises(UserError, match=r"data\.cache: .* cannot be written .*Read-only"):
        reused(composed(*words, "features.views=3"))


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
