"""`features=reuse` and `auto`: what a frozen backbone makes of each image, computed once and kept.

A frozen backbone gives the same feature maps for the same pixels in every epoch. Here it runs
once over the validation images and over K augmented views of each training image; heads, seeds and
both balance modes then train from the kept maps. The test is not made from them: a run is tested as
it is used, from images in float32. A store belongs to one backbone, set of weights, image size and
precision. Its rows are images, not places in a split, and a view follows from the image's name, the
view's number and the augmentation alone: another split or seed, or more images, find there what was
computed before.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from xxhash import xxh3_64_intdigest

from cardiomegaly import UserError
from cardiomegaly.config import AugmentConfig, Config
from cardiomegaly.data.datamodule import CardiomegalyDataModule, choose_workers
from cardiomegaly.data.dataset import FORMAT as IMAGE_FORMAT
from cardiomegaly.data.dataset import Batch, StoredImages, augment
from cardiomegaly.data.sampler import BatchKey
from cardiomegaly.data.store import RowStore
from cardiomegaly.data.transforms import build_augmentation
from cardiomegaly.model.backbone import Backbone
from cardiomegaly.model.predictor import autocast

log = logging.getLogger(__name__)
FORMAT = 2  # raise when the same inputs would give other features
LARGEST = float(np.finfo(np.float16).max)
SEEDS = 2**31
BATCH = 32  # images a forward pass


class FeatureDataset(Dataset[Batch]):
    """Whole batches of feature maps that a frozen backbone computed beforehand.

    Args:
        store: rows (h, w, C) float16.
        keys: (V, N) of each of V views of N images; each time one is chosen at random.
        target: (N,) 0 or 1.

    An item is as in `ImageDataset`, with `features` (B, C, h, w) float16 for `image`.
    """

    def __init__(self, store: RowStore, keys: NDArray[np.uint64], target: NDArray[Any]) -> None:
        self.store = store
        self.keys = keys
        self.target = np.asarray(target, dtype=np.float32)

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, key: BatchKey) -> Batch:
        rng = np.random.default_rng(key.seed)
        view = rng.integers(len(self.keys), size=len(key.indices))
        features, intact = self.store.read(self.keys[view, key.indices])
        if not intact.all():
            raise UserError(
                f"{self.store.folder} was damaged after the start: start again (resume=FOLDER goes "
                "on with a training), which computes the damaged features anew"
            )
        return {
            "features": torch.from_numpy(features).permute(0, 3, 1, 2),
            "target": torch.from_numpy(self.target[key.indices]),
            "index": torch.from_numpy(key.indices),
        }


class ViewDataset(Dataset[Batch]):
    """The images of a table by position, (B, 1, H, W), each in the view that its row asks for."""

    def __init__(self, store: RowStore, table: pd.DataFrame, config: AugmentConfig) -> None:
        self.images = StoredImages(store, table)
        self.seeds = [_seed(*pair) for pair in zip(table["image"], table["view"], strict=True)]
        self.views = table["view"].to_numpy()
        self.augmentation = build_augmentation(config)

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, positions: NDArray[np.int64]) -> Batch:
        pixels = self.images[positions]
        for number, position in enumerate(positions):
            if self.views[position] and self.augmentation is not None:
                augment(pixels[number : number + 1], self.augmentation, self.seeds[position])
        return {"image": torch.from_numpy(pixels).unsqueeze(1)}


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
        UserError: the disk lacks room or cannot be written.
    """
    store = _open_store(config, backbone, precision)
    views = {"val": [0], "train": _training_views(config)}
    keys = {
        (part, view): _keys(datamodule.parts[part]["key"], view, config.augment)
        for part, numbers in views.items()
        for view in numbers
    }
    wanted = pd.concat(
        [datamodule.parts[part].assign(view=view, feature=keys[part, view]) for part, view in keys],
        ignore_index=True,
    )
    wanted = wanted[_missing(store, wanted, config.trainer.progress_bar)]
    if len(wanted):
        with store.writing():
            todo = wanted[_missing(store, wanted)]  # others may have added some meanwhile
            what = f"the features of {len(todo):,} images"
            size = len(todo) * store.row_bytes / 1e9
            log.info("features=reuse: %s need %.2f GB in %s", what, size, store.folder)
            store.check_room(len(todo), what)
            views_to_do = ViewDataset(datamodule.store, todo, config.augment)
            for positions, features in _compute(views_to_do, config, backbone, device, precision):
                store.append(todo["feature"].to_numpy()[positions], features)
    datamodule.use_features(
        {
            part: FeatureDataset(
                store,
                np.stack([keys[part, view] for view in numbers]),
                datamodule.parts[part]["target"].to_numpy(),
            )
            for part, numbers in views.items()
        }
    )


def choose_features(
    config: Config, datamodule: CardiomegalyDataModule, backbone: Backbone, precision: str
) -> str:
    """What `features=auto` means for a run, `reuse` or `live`; one line says which and why.

    Args:
        config: of the run.
        datamodule: after `setup`.
        backbone: with its weights.
        precision: Lightning's word for it.
    """
    if config.backbone.trainable != "none":
        log.info("features=auto: live, since the backbone is trained")
        return "live"
    if config.trainer.attention_weight:
        log.info("features=auto: live, since hearts are moved with their images")
        return "live"
    if config.backbone._target_ is not None:
        log.info("features=auto: live, since the code of a backbone of one's own may change")
        return "live"
    store, parts = _open_store(config, backbone, precision), datamodule.parts
    views = len(_training_views(config))
    rows = views * len(parts["train"]) + len(parts["val"])
    size = rows * store.row_bytes / 1e9
    place = next(path for path in store.folder.absolute().parents if path.exists())
    room = shutil.disk_usage(place).free / 1e9 * config.features.disk_share
    chosen = "reuse" if size <= min(room, config.features.most_gb) else "live"
    log.info(
        "features=auto: %s, since the frozen backbone's features of %s images, %d views of each "
        "for training, take %.2f GB; allowed are %.3g GB (features.most_gb) and %.1f GB "
        "(features.disk_share=%g of the free disk)",
        chosen, f"{rows:,}", views, size, config.features.most_gb, room, config.features.disk_share,
    )  # fmt: skip
    return chosen


def _training_views(config: Config) -> list[int]:
    """The views of each training image; 0 is the image as it is."""
    if build_augmentation(config.augment) is None:
        return [0]
    return list(range(1, config.features.views + 1))


def _missing(store: RowStore, wanted: pd.DataFrame, progress: bool = False) -> NDArray[np.bool_]:
    """Which rows are not there, or hold something else than what was written."""
    keys = wanted["feature"].to_numpy()
    missing = store.find(keys) < 0
    there = np.flatnonzero(~missing)
    bar = tqdm(total=len(there), desc="checking features", unit="row", disable=not progress)
    with bar:
        for start in range(0, len(there), BATCH):
            chunk = there[start : start + BATCH]
            missing[chunk] = ~store.read(keys[chunk])[1]
            bar.update(len(chunk))
    if missing[there].any():
        log.warning("%s: %d damaged rows are computed anew", store.folder, missing[there].sum())
    return missing


def _compute(
    dataset: ViewDataset,
    config: Config,
    backbone: Backbone,
    device: torch.device,
    precision: str,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
    """Yield positions in the data set and their features (B, h, w, C)."""
    n = len(dataset)
    batches = np.array_split(np.arange(n), max(1, round(n / BATCH)))
    workers = config.data.workers
    if workers is None:
        workers = choose_workers(device.type == "cuda", training=False)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        sampler=batches,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=config.data.prefetch if workers else None,
    )
    frozen = backbone.to(device).to(memory_format=torch.channels_last)
    bar = tqdm(
        total=n, desc="computing features", unit="image", disable=not config.trainer.progress_bar
    )
    with bar, torch.no_grad(), autocast(device, precision):
        for positions, batch in zip(batches, loader, strict=True):
            features = frozen(batch["image"].to(device)).float().clamp(-LARGEST, LARGEST)
            yield positions, features.permute(0, 2, 3, 1).half().cpu().numpy()
            bar.update(len(positions))


def _open_store(config: Config, backbone: Backbone, precision: str) -> RowStore:
    about = {
        "rows": "features",
        "model": config.backbone.model,
        "options": config.backbone.options,
        "weights": _state_hash(backbone),
        "size": config.backbone.image_size,
        **({} if config.backbone.region is None else {"region": config.backbone.region}),
        "fit": config.data.fit,
        "precision": precision,
        "format": [FORMAT, IMAGE_FORMAT],
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(config.data.cache) / f"features-{config.backbone.name}-{digest}"
    return RowStore(folder, (*backbone.feature_size, backbone.num_features), "float16", about)


def _state_hash(backbone: Backbone) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _keys(images: pd.Series, view: int, augment: AugmentConfig) -> NDArray[np.uint64]:
    """Keys of a view of images; view 0 is the image as it is, whatever the augmentation."""
    keys = images.to_numpy(np.uint64)
    if view == 0:
        return keys
    ranges = {key: value for key, value in asdict(augment).items() if key not in ("name", "file")}
    if augment.pipeline is None:
        del ranges["pipeline"]  # as it was before there were any
    return keys ^ np.uint64(_hash(json.dumps([view, ranges], sort_keys=True)))


def _seed(image: str, view: int) -> int:
    """Of the augmentation of a view: equal wherever the image lies and whatever else is there."""
    return int(np.random.default_rng([_hash(image), view]).integers(SEEDS))


def _hash(text: str) -> int:
    return int(xxh3_64_intdigest(text.encode("utf-8", "surrogateescape")))
