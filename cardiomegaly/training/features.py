"""`features=reuse`: what a frozen backbone makes of each image, computed once and kept.

A frozen backbone gives the same feature maps for the same pixels in every epoch. Here it runs
once over the validation and test images and over K augmented views of each training image; heads,
seeds and both balance modes then train from the kept maps. A store belongs to one image cache,
backbone, set of weights and augmentation. Its rows are images, not places in a split, and a view's
augmentation follows from image and view alone: another split or seed finds most rows there.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from cardiomegaly.config import AugmentConfig, Config
from cardiomegaly.data.datamodule import CardiomegalyDataModule, choose_workers
from cardiomegaly.data.dataset import Batch, StoredRows, augment
from cardiomegaly.data.store import ABSENT, READY, RowStore
from cardiomegaly.data.transforms import build_augmentation
from cardiomegaly.model.backbone import Backbone
from cardiomegaly.model.predictor import autocast

log = logging.getLogger(__name__)
FORMAT = 1  # raise when the same inputs would give other features
LARGEST = float(np.finfo(np.float16).max)
SEEDS = 2**31
BATCH = 32  # images a forward pass


class ViewDataset(Dataset[Batch]):
    """Images by position in a list of (row, view) pairs; view 0 is the image as it is."""

    def __init__(self, images: RowStore, pairs: np.ndarray, config: AugmentConfig) -> None:
        self.images = StoredRows(images)
        self.pairs = pairs
        self.augmentation = build_augmentation(config)

    def __getitem__(self, positions: np.ndarray) -> Batch:
        pairs = self.pairs[positions]
        images = self.images[pairs[:, 0]]
        for place, (row, view) in enumerate(pairs):
            if view and self.augmentation is not None:
                seed = int(np.random.default_rng([row, view]).integers(SEEDS))
                augment(images[place : place + 1], self.augmentation, seed)
        return {"image": torch.from_numpy(images).unsqueeze(1)}


def reuse_features(
    config: Config,
    datamodule: CardiomegalyDataModule,
    backbone: Backbone,
    device: torch.device,
    precision: str,
) -> None:
    """Compute what is not there yet and let the data module load features for images.

    Args:
        config: of the run.
        datamodule: after `setup`.
        backbone: frozen, with its weights.
        device: to compute on.
        precision: Lightning's word for it.

    Raises:
        UserError: the disk lacks room.
    """
    views = config.features.views
    images = datamodule.images
    store = _open_store(config, images, backbone, precision)
    pairs = [(row, 0) for part in ("val", "test") for row in datamodule.parts[part]["row"]]
    for view in range(1, views + 1):
        pairs += [(row, view) for row in datamodule.parts["train"]["row"]]
    wanted = np.array(pairs, dtype=np.int64)
    with store.writing() as writer:
        todo = wanted[store.state()[wanted[:, 1] * images.n + wanted[:, 0]] == ABSENT]
        if len(todo):
            what = f"the features of {len(todo):,} images"
            log.info(
                "features=reuse: %s need %.2f GB in %s",
                what,
                len(todo) * store.row_bytes / 1e9,
                store.folder,
            )
            store.check_room(len(todo), "data.cache", what)
        for places, features in _compute(images, todo, config, backbone, device, precision):
            rows = todo[places, 1] * images.n + todo[places, 0]
            for row, values in zip(rows, features, strict=True):
                writer.put(int(row), values)
            writer.mark(rows, READY)
    datamodule.use_features(store, views)


def _compute(
    images: RowStore,
    todo: np.ndarray,
    config: Config,
    backbone: Backbone,
    device: torch.device,
    precision: str,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield positions in `todo` and their features (B, h, w, C) float16."""
    if not len(todo):
        return
    positions = np.array_split(np.arange(len(todo)), max(1, round(len(todo) / BATCH)))
    workers = choose_workers() if config.data.workers is None else config.data.workers
    loader: DataLoader[Any] = DataLoader(
        ViewDataset(images, todo, config.augment),
        sampler=positions,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=config.data.prefetch if workers else None,
    )
    kept = backbone.to(device).to(memory_format=torch.channels_last)
    bar = tqdm(
        total=len(todo), desc="computing features", unit="image",
        disable=not config.trainer.progress_bar,
    )  # fmt: skip
    with bar, torch.no_grad(), autocast(device, precision):
        for places, batch in zip(positions, loader, strict=True):
            features = kept(batch["image"].to(device)).float().clamp(-LARGEST, LARGEST)
            yield places, features.permute(0, 2, 3, 1).half().cpu().numpy()
            bar.update(len(places))


def _open_store(config: Config, images: RowStore, backbone: Backbone, precision: str) -> RowStore:
    height, width = backbone.feature_size
    shape = (height, width, backbone.num_features)
    key = {
        "format": FORMAT,
        "images": images.folder.name,
        "model": config.backbone.model,
        "options": config.backbone.options,
        "weights": _state_hash(backbone),
        "augment": {name: v for name, v in asdict(config.augment).items() if name != "name"},
        "precision": precision,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(config.data.cache) / f"features-{config.backbone.name}-{digest}"
    # Views come one after another, so more views make the file longer and keep what is there.
    store = RowStore(folder, images.n * (config.features.views + 1), shape, "float16")
    store.create(key)
    store.grow()
    return store


def _state_hash(backbone: Backbone) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
