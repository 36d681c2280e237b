"""Sampler, augmentation and data set: balance, repeatability, whatever the number of workers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from cardiomegaly import UserError
from cardiomegaly.data.dataset import ImageDataset, StoredRows
from cardiomegaly.data.store import RowStore
from cardiomegaly.data.sampler import BatchKey, SequentialBatches, TrainingBatches
from cardiomegaly.config import AugmentConfig
from cardiomegaly.data.transforms import build_augmentation

N, SIZE = 50, 32
TARGET = (np.arange(N) < 5).astype(int)  # 10% positive


def augment(**changes: object) -> AugmentConfig:
    values = {
        "name": "test", "horizontal_flip": 0.0, "vertical_flip": 0.0, "rotation": 0.0,
        "zoom": 0.0, "shift": 0.0, "brightness": None,
    }  # fmt: skip
    return AugmentConfig(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def pixels(tmp_path: Path) -> RowStore:
    """Smooth images that differ from each other and have no symmetry."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    images = [255 * (0.2 + 0.5 * x * y + 0.2 * y * (i / N)) for i in range(N)]
    store = RowStore(tmp_path / "store", N, (SIZE, SIZE), "uint8")
    store.create({})
    with store.writing() as writer:
        for row, image in enumerate(images):
            writer.put(row, image.astype(np.uint8))
    return store


def dataset(pixels: RowStore, config: AugmentConfig | None = None) -> ImageDataset:
    pipeline = build_augmentation(config) if config else None
    return ImageDataset(pixels, np.arange(N), TARGET, pipeline)


def indices(batches: TrainingBatches | SequentialBatches) -> np.ndarray:
    return np.concatenate([key.indices for key in batches])


def test_unbalanced_epoch_shows_every_image_once() -> None:
    batches = TrainingBatches(TARGET, 8, balance=False, seed=1)
    assert sorted(indices(batches)) == list(range(N))
    assert len(batches) == len(list(batches)) == 7


def test_balanced_epochs_draw_both_classes_alike() -> None:
    batches = TrainingBatches(TARGET, 8, balance=True, seed=1)
    drawn = []
    for epoch in range(200):
        batches.set_epoch(epoch)
        drawn.append(indices(batches))
    share = TARGET[np.concatenate(drawn)].mean()
    assert share == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(200 * N))
    assert set(np.concatenate(drawn)) == set(range(N))
    assert len(drawn[0]) == N


@pytest.mark.parametrize("balance", [True, False])
def test_order_follows_seed_and_epoch(balance: bool) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        batches = TrainingBatches(TARGET, 8, balance, seed)
        batches.set_epoch(epoch)
        return list(indices(batches))

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


@pytest.mark.parametrize("balance", [True, False])
def test_ranks_share_one_draw(balance: bool) -> None:
    whole = indices(TrainingBatches(TARGET, 8, balance, seed=1))
    ranks = [TrainingBatches(TARGET, 8, balance, 1, rank, 4) for rank in range(4)]
    parts = [indices(batches) for batches in ranks]
    assert {len(part) for part in parts} == {13}  # 50 images padded to 52
    assert {len(list(batches)) for batches in ranks} == {2}
    together = np.stack(parts, axis=1).ravel()
    np.testing.assert_array_equal(together[:N], whole)
    seeds = [[key.seed for key in batches] for batches in ranks]
    assert len({tuple(seed) for seed in seeds}) == 4  # ranks augment differently


def test_sequential_batches_cover_everything_on_every_number_of_ranks() -> None:
    assert list(indices(SequentialBatches(N, 8))) == list(range(N))
    ranks = [SequentialBatches(N, 8, rank, 3) for rank in range(3)]
    assert {len(list(batches)) for batches in ranks} == {len(ranks[0])}
    assert set(np.concatenate([indices(batches) for batches in ranks])) == set(range(N))


def test_batch_is_one_channel_uint8(pixels: RowStore) -> None:
    batch = dataset(pixels)[BatchKey(np.array([3, 40]), seed=0)]
    assert batch["image"].shape == (2, 1, SIZE, SIZE)
    assert batch["image"].dtype == torch.uint8
    assert batch["target"].tolist() == [1.0, 0.0]
    assert batch["index"].tolist() == [3, 40]


def test_flips_are_flips(pixels: RowStore) -> None:
    key = BatchKey(np.arange(N), seed=1)
    plain = dataset(pixels)[key]["image"]
    for config, axis in [(augment(horizontal_flip=1.0), 3), (augment(vertical_flip=1.0), 2)]:
        assert torch.equal(dataset(pixels, config)[key]["image"], plain.flip(axis))
    sometimes = dataset(pixels, augment(horizontal_flip=0.5))[key]["image"]
    flipped = (sometimes == plain.flip(3)).all(dim=(1, 2, 3)).float().mean()
    assert 0.2 < flipped < 0.8


def test_zoom_rotation_shift_and_brightness_stay_in_range(pixels: RowStore) -> None:
    key = BatchKey(np.arange(N), seed=1)
    plain = dataset(pixels)[key]["image"].float()
    bright = dataset(pixels, augment(brightness=[0.7, 1.5]))[key]["image"].float()
    factor = bright.mean(dim=(1, 2, 3)) / plain.mean(dim=(1, 2, 3))
    assert factor.min() < 0.9
    assert factor.max() > 1.2
    assert 0.69 <= factor.min() <= factor.max() <= 1.51
    for config in (augment(zoom=0.2), augment(rotation=15.0), augment(shift=0.2)):
        changed = dataset(pixels, config)[key]["image"].float()
        assert (changed != plain).any(dim=(1, 2, 3)).float().mean() > 0.8
        assert changed.min() >= plain.min() - 1  # nothing but the image comes in at the edges
        assert changed.max() <= plain.max() + 1


def test_nothing_to_do_is_no_pipeline() -> None:
    assert build_augmentation(augment()) is None


def test_epochs_differ_and_reruns_agree_on_any_number_of_workers(pixels: RowStore) -> None:
    config = augment(rotation=10.0, zoom=0.1, horizontal_flip=0.5)

    def epochs(workers: int) -> list[torch.Tensor]:
        batches = TrainingBatches(TARGET, 8, balance=True, seed=5)
        loader = DataLoader(
            dataset(pixels, config),
            sampler=batches,
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        result = []
        for epoch in range(2):
            batches.set_epoch(epoch)
            result.append(torch.cat([batch["image"] for batch in loader]))
        return result

    alone, one, two = epochs(0), epochs(1), epochs(2)
    assert not torch.equal(alone[0], alone[1])
    for epoch in range(2):
        assert torch.equal(alone[epoch], one[epoch])
        assert torch.equal(alone[epoch], two[epoch])


def test_the_same_image_differs_within_an_epoch(pixels: RowStore) -> None:
    batch = dataset(pixels, augment(rotation=10.0))[BatchKey(np.array([7, 7, 7]), seed=0)]
    assert len({image.numpy().tobytes() for image in batch["image"]}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizontal_flip": 1.5}, r"augment\.horizontal_flip: must lie between 0 and 1, got 1\.5"),
        ({"zoom": 1.0}, r"augment\.zoom: must lie between 0 and 0\.9"),
        ({"rotation": -1}, r"augment\.rotation: must lie between 0 and 180"),
        ({"brightness": [1.5, 0.7]}, r"augment\.brightness: must be null or"),
    ],
)
def test_ranges_are_checked(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        augment(**changes)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_a_store_does_not_grow_the_process(tmp_path: Path) -> None:
    store = RowStore(tmp_path, 2000, (128, 128), "uint8")  # 31 MiB
    store.create({})
    rows = StoredRows(store)
    before = mapped_kib()
    for first in range(0, store.n, 50):
        assert rows[np.arange(first, first + 50)].shape == (50, 128, 128)
    assert mapped_kib() - before < 4 * 1024


def mapped_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssFile:")).split()[1])
