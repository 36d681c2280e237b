"""Images decoded once, mended where they are damaged, and whole batches of them."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from PIL import Image
from torch.utils.data import DataLoader

from cardiomegaly import UserError
from cardiomegaly.config import AugmentConfig
from cardiomegaly.data import dataset as datasets
from cardiomegaly.data.dataset import (
    ImageDataset,
    StoredImages,
    fill_image_store,
    open_image_store,
)
from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.data.images import decode_image
from cardiomegaly.data.sampler import BatchKey, TrainingBatches
from cardiomegaly.data.store import ABSENT, ROWS, UNREADABLE, RowStore
from cardiomegaly.data.transforms import build_augmentation

SIZE = 16


def draw(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(5):
        draw(folder / f"{number}.png", number)
    return folder


def table(root: Path) -> pd.DataFrame:
    files = [files[0] for _, files in sorted(ImageFolder(root).files.items())]
    keys = np.array([file.key for file in files], np.uint64)
    return pd.DataFrame({"path": [file.path for file in files], "key": keys})


def opened(root: Path, size: int = SIZE) -> RowStore:
    return open_image_store(root, root.parent / "cache", size, "stretch")


def filled(root: Path) -> tuple[RowStore, pd.DataFrame]:
    store, images = opened(root), table(root)
    fill_image_store(store, images)
    return store, images


def decoded(images: pd.DataFrame) -> np.ndarray:
    return np.stack([decode_image(path, SIZE, "stretch") for path in images["path"]])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded for the store."""
    names: list[str] = []
    real = datasets.decode_images

    def counting(paths: list[str], size: int, fit: str, workers: int | None) -> object:
        names.extend(Path(path).name for path in paths)
        return real(paths, size, fit, workers)

    monkeypatch.setattr(datasets, "decode_images", counting)
    return names


def test_broken_images_are_noted_and_the_rest_is_there(root: Path, counted: list[str]) -> None:
    good = (root / "2.png").read_bytes()
    (root / "2.png").write_bytes(good[:-40])
    store, images = filled(root)
    places = store.find(images["key"].to_numpy())
    assert (places == UNREADABLE).tolist() == [False, False, True, False, False]
    there = images[places >= 0].reset_index(drop=True)
    np.testing.assert_array_equal(StoredImages(store, there)[np.arange(4)], decoded(there))
    counted.clear()
    fill_image_store(opened(root), table(root))
    assert not counted  # the broken one is not tried again
    (root / "2.png").write_bytes(good)
    fill_image_store(opened(root), table(root))
    assert counted == ["2.png"]


def test_a_file_that_cannot_be_opened_is_tried_again(root: Path, counted: list[str]) -> None:
    images = table(root)
    (root / "3.png").rename(root / "away")
    store = opened(root)
    fill_image_store(store, images)
    assert store.find(images["key"].to_numpy())[3] == ABSENT
    (root / "away").rename(root / "3.png")
    fill_image_store(store, images)
    assert (store.find(images["key"].to_numpy()) >= 0).all()
    assert counted == [f"{number}.png" for number in (0, 1, 2, 3, 4, 3)]


def test_decoded_once_and_only_what_is_asked(root: Path, counted: list[str]) -> None:
    store, images = opened(root), table(root)
    fill_image_store(store, images[:2])
    assert (store.find(images["key"].to_numpy()) >= 0).tolist() == [True] * 2 + [False] * 3
    fill_image_store(opened(root), images)
    assert counted == [f"{number}.png" for number in range(5)]


def test_new_and_changed_images_are_appended(root: Path, counted: list[str]) -> None:
    first, images = filled(root)
    draw(root / "5.png", 5)
    draw(root / "0.png", 6)
    os.utime(root / "0.png", ns=(1, 1))
    second, more = filled(root)
    assert counted == [*(f"{number}.png" for number in range(5)), "0.png", "5.png"]
    assert second.folder == first.folder
    np.testing.assert_array_equal(StoredImages(second, more)[np.arange(6)], decoded(more))
    # who opened it before still reads what was there then
    assert not np.array_equal(StoredImages(first, images)[np.array([0])][0], decoded(more)[0])
    assert opened(root, SIZE + 1).folder != first.folder


def test_an_interrupted_build_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch, counted: list[str]
) -> None:
    monkeypatch.setattr(datasets, "CHUNK", 2)
    real = datasets.decode_images

    def stopping(paths: list[str], size: int, fit: str, workers: int | None) -> object:
        if any(path.endswith("3.png") for path in paths):
            raise KeyboardInterrupt
        return real(paths, size, fit, workers)

    monkeypatch.setattr(datasets, "decode_images", stopping)
    store, images = opened(root), table(root)
    with pytest.raises(KeyboardInterrupt):
        fill_image_store(store, images)
    assert (store.find(images["key"].to_numpy()) >= 0).tolist() == [True] * 2 + [False] * 3
    monkeypatch.setattr(datasets, "decode_images", real)
    fill_image_store(store, images)
    assert counted == ["0.png", "1.png", "2.png", "3.png", "4.png"]


@pytest.mark.parametrize("writable", [True, False])
def test_damaged_images_are_decoded_anew_and_that_is_said(
    root: Path, writable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    store, images = filled(root)
    content = bytearray((store.folder / ROWS).read_bytes())
    for row in (1, 3):
        content[row * store.row_bytes + 9] ^= 1
    (store.folder / ROWS).write_bytes(content)
    stored = StoredImages(opened(root), images)
    order = np.array([3, 0, 3, 1, 2])  # one of them twice
    with nullcontext() if writable else FileLock(store.folder / "lock"):  # held by a writer
        np.testing.assert_array_equal(stored[order], decoded(images)[order])
    assert caplog.text.count("holds damaged images") == 1
    np.testing.assert_array_equal(stored[order], decoded(images)[order])
    assert caplog.text.count("holds damaged images") == 1
    size = (store.folder / ROWS).stat().st_size
    assert size == 7 * store.row_bytes  # each was mended once, in the end
    again, mended = filled(root)
    np.testing.assert_array_equal(StoredImages(again, mended)[order], decoded(images)[order])


def test_a_damaged_image_whose_file_has_changed_is_not_made_up(root: Path) -> None:
    store, images = filled(root)
    os.truncate(store.folder / ROWS, 0)
    stored = StoredImages(store, images)
    draw(root / "1.png", 9)
    os.utime(root / "1.png", ns=(1, 1))
    np.testing.assert_array_equal(stored[np.array([2])], decoded(images)[[2]])
    with pytest.raises(UserError, match=r"1\.png was changed after the start"):
        stored[np.array([0, 1])]


N = 50
TARGET = (np.arange(N) < 5).astype(int)
RANGES = AugmentConfig(
    name="test", horizontal_flip=0.5, vertical_flip=0.0, rotation=10.0, zoom=0.1, shift=0.0,
    brightness=None,
)  # fmt: skip


@pytest.fixture
def batches(tmp_path: Path) -> ImageDataset:
    """Augmented batches of fifty images that differ from each other."""
    store = RowStore(tmp_path / "images-test", (SIZE, SIZE), "uint8", {})
    keys = np.arange(N, dtype=np.uint64)
    with store.writing():
        store.append(keys, np.random.default_rng(0).integers(0, 256, (N, SIZE, SIZE), np.uint8))
    images = pd.DataFrame({"path": "", "key": keys})
    return ImageDataset(StoredImages(store, images), TARGET, build_augmentation(RANGES))


def test_a_batch_is_one_channel_uint8(batches: ImageDataset) -> None:
    batch = batches[BatchKey(np.array([3, 40]), seed=0)]
    assert batch["image"].shape == (2, 1, SIZE, SIZE)
    assert batch["image"].dtype == torch.uint8
    assert batch["target"].tolist() == [1.0, 0.0]
    assert batch["index"].tolist() == [3, 40]


def test_epochs_differ_and_reruns_agree_on_any_number_of_workers(batches: ImageDataset) -> None:
    def epochs(workers: int) -> list[torch.Tensor]:
        sampler = TrainingBatches(TARGET, 8, balance=True, seed=5)
        loader = DataLoader(
            batches,
            sampler=sampler,
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        result = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            result.append(torch.cat([batch["image"] for batch in loader]))
        return result

    alone, one, two = epochs(0), epochs(1), epochs(2)
    assert not torch.equal(alone[0], alone[1])
    for epoch in range(2):
        assert torch.equal(alone[epoch], one[epoch])
        assert torch.equal(alone[epoch], two[epoch])
