"""Batches for training and testing: images, or feature maps computed beforehand."""

from __future__ import annotations

import mmap
from typing import Any

import albumentations as A
import numpy as np
import torch
from torch.utils.data import Dataset

from cardiomegaly.data.sampler import BatchKey
from cardiomegaly.data.store import RowStore

Batch = dict[str, torch.Tensor]


class StoredRows:
    """Rows of a store, opened in each process when first asked for."""

    def __init__(self, store: RowStore) -> None:
        self.store = store
        self._map: np.memmap | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store, "_map": None}  # a worker opens the file anew

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        if self._map is None:
            self._map = self.store.rows()
        values = self._map[rows]
        # What was read stays in the system's page cache and no longer counts as this process's.
        if isinstance(self._map.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self._map.base.madvise(mmap.MADV_DONTNEED)
        return values


class ImageDataset(Dataset[Batch]):
    """Whole batches of decoded images, augmented on the processor in training.

    Args:
        images: (n, H, W) `uint8`, the image cache.
        rows: (N,) row in it of each image of this part.
        target: (N,) 0 or 1.
        augmentation: albumentations pipeline, or None.

    An item is a dict: `image` (B, 1, H, W) `uint8`, `target` (B,) float32, `index` (B,) int64, the
    position in this part.
    """

    def __init__(
        self,
        images: RowStore,
        rows: np.ndarray,
        target: np.ndarray,
        augmentation: A.Compose | None = None,
    ) -> None:
        self.images = StoredRows(images)
        self.rows = np.asarray(rows, dtype=np.int64)
        self.target = np.asarray(target, dtype=np.float32)
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: BatchKey) -> Batch:
        images = self.images[self.rows[key.indices]]
        if self.augmentation is not None:
            augment(images, self.augmentation, key.seed)
        return {
            "image": torch.from_numpy(images).unsqueeze(1),
            "target": torch.from_numpy(self.target[key.indices]),
            "index": torch.from_numpy(key.indices),
        }


class FeatureDataset(Dataset[Batch]):
    """Whole batches of feature maps that a frozen backbone computed beforehand.

    Args:
        features: (views * n, h, w, C) float16: view 0 the image as it is, the others augmented.
        n: images a view.
        rows: (N,) row of each image of this part.
        target: (N,) 0 or 1.
        augmented_views: views to choose from at random; 0 takes the image as it is.

    An item is as in `ImageDataset`, with `features` (B, C, h, w) float16 for `image`.
    """

    def __init__(
        self,
        features: RowStore,
        n: int,
        rows: np.ndarray,
        target: np.ndarray,
        augmented_views: int = 0,
    ) -> None:
        self.features = StoredRows(features)
        self.n = n
        self.rows = np.asarray(rows, dtype=np.int64)
        self.target = np.asarray(target, dtype=np.float32)
        self.augmented_views = augmented_views

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: BatchKey) -> Batch:
        view = np.zeros(len(key.indices), dtype=np.int64)
        if self.augmented_views:
            rng = np.random.default_rng(key.seed)
            view = rng.integers(1, self.augmented_views + 1, len(key.indices))
        features = self.features[view * self.n + self.rows[key.indices]]
        return {
            "features": torch.from_numpy(features).permute(0, 3, 1, 2),
            "target": torch.from_numpy(self.target[key.indices]),
            "index": torch.from_numpy(key.indices),
        }


def augment(images: np.ndarray, augmentation: A.Compose, seed: int) -> None:
    """Augment (B, H, W) `uint8` in place; seed and order decide everything."""
    augmentation.set_random_seed(seed)
    for image in images:
        image[:] = augmentation(image=image[..., None])["image"][..., 0]
