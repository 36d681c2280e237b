"""Images decoded once and kept in a store, and whole batches of them.

A 1024-pixel PNG takes 6 to 7 ms to decode, ten times the augmentation of a 224-pixel image, so
images are decoded and scaled before training and kept for every later run.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pandas as pd
import torch
from filelock import Timeout
from numpy.typing import NDArray
from torch.utils.data import Dataset
from tqdm import tqdm

from cardiomegaly import UserError
from cardiomegaly.data.image_folder import ImageFile
from cardiomegaly.data.images import Pixels, decode_image, decode_images
from cardiomegaly.data.sampler import BatchKey
from cardiomegaly.data.store import ABSENT, RowStore

log = logging.getLogger(__name__)
FORMAT = 3  # raise when the pixels of the same file would come out otherwise
CHUNK = 512  # images that reach the disk together

Batch = dict[str, torch.Tensor]


def open_image_store(root: Path, cache_dir: Path, size: int, fit: str) -> RowStore:
    """The store of the images of a data folder, decoded to (size, size) `uint8`."""
    about = {"rows": "images", "root": str(root.resolve()), "size": size, "format": FORMAT}
    about["fit"] = fit
    digest = hashlib.sha256(repr(about).encode()).hexdigest()[:16]
    return RowStore(cache_dir / f"images-{size}px-{digest}", (size, size), "uint8", about)


def fill_image_store(store: RowStore, images: pd.DataFrame, workers: int | None = None) -> None:
    """Decode what is not there yet, in parallel.

    A file that is no image is noted as unreadable, one that cannot be opened is tried again the
    next time.

    Args:
        store: from `open_image_store`.
        images: columns path and key (of `images.ImageFile`).
        workers: decoding threads; None takes every core.

    Raises:
        UserError: the disk lacks room or cannot be written, or a package that DICOM needs is not
            installed.
    """

    def absent() -> pd.DataFrame:
        return images[store.find(images["key"].to_numpy()) == ABSENT]

    if absent().empty:
        return
    with store.writing():
        todo = absent()
        store.check_room(len(todo), f"{len(todo):,} images")
        log.info("decoding %s images into %s", f"{len(todo):,}", store.folder)
        # disable=None: only in a terminal
        with tqdm(total=len(todo), desc="decoding images", unit="image", disable=None) as bar:
            for start in range(0, len(todo), CHUNK):
                chunk = todo[start : start + CHUNK]
                rows: dict[int, Pixels | None] = {}
                decoded = decode_images(
                    chunk["path"].tolist(), store.row_shape[0], store.about["fit"], workers
                )
                for key, pixels in zip(chunk["key"], decoded, strict=True):
                    if not isinstance(pixels, OSError):
                        rows[key] = None if isinstance(pixels, UserError) else pixels
                store.append(np.array(list(rows), np.uint64), list(rows.values()))
                bar.update(len(chunk))


class StoredImages:
    """The images of a table, by position; what is damaged in the store is decoded anew.

    Args:
        store: the images.
        table: columns path and key (of `images.ImageFile`).
    """

    def __init__(self, store: RowStore, table: pd.DataFrame) -> None:
        self.store = store
        self.keys = table["key"].to_numpy(np.uint64)
        self.paths = table["path"].to_numpy(object)
        self._told = False

    def __getitem__(self, positions: NDArray[np.int64]) -> Pixels:
        pixels, intact = self.store.read(self.keys[positions])
        if not intact.all():
            for number in np.flatnonzero(~intact):
                pixels[number] = self._decode(int(positions[number]))
            damaged, first = np.unique(positions[~intact], return_index=True)
            self._mend(damaged, pixels[~intact][first])
        return pixels

    def _decode(self, position: int) -> Pixels:
        path = Path(self.paths[position])
        status = path.stat()
        file = ImageFile(str(path), status.st_size, status.st_mtime_ns)
        if file.key != self.keys[position]:
            raise UserError(
                f"{path} was changed after the start, and its pixels in {self.store.folder} are "
                "damaged: start again (resume=FOLDER goes on with a training)"
            )
        return decode_image(path, self.store.row_shape[0], self.store.about["fit"])

    def _mend(self, positions: NDArray[np.int64], pixels: Pixels) -> None:
        """Write images anew, unless the store is read-only or another process writes just now."""
        if not self._told:
            log.warning(
                "%s holds damaged images, %s for one: they are decoded anew",
                self.store.folder, self.paths[positions[0]],
            )  # fmt: skip
        self._told = True
        keys = self.keys[positions]
        with suppress(Timeout, UserError), self.store.writing(wait=False):
            mended = self.store.read(keys)[1]  # by another process
            self.store.append(keys[~mended], pixels[~mended])


class ImageDataset(Dataset[Batch]):
    """Whole batches of decoded images, augmented on the processor in training.

    Args:
        images: (N, H, W) `uint8`.
        target: (N,) 0 or 1.
        augmentation: albumentations pipeline, or None.
        hearts: where the heart lies in image number n, (H, W) `uint8`; None: of no interest.

    An item is a dict: `image` (B, 1, H, W) `uint8`, `target` (B,) float32, `index` (B,) int64, the
    position in this part; and with `hearts`, `heart` (B, 1, H, W) `uint8`, moved as the image is.
    """

    def __init__(
        self,
        images: StoredImages,
        target: NDArray[Any],
        augmentation: A.Compose | None = None,
        hearts: Callable[[int], Pixels] | None = None,
    ) -> None:
        self.images = images
        self.target = np.asarray(target, dtype=np.float32)
        self.augmentation = augmentation
        self.hearts = hearts

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, key: BatchKey) -> Batch:
        images = self.images[key.indices]
        hearts = None
        if self.hearts is not None:
            hearts = np.stack([self.hearts(index) for index in key.indices])
        if self.augmentation is not None:
            augment(images, self.augmentation, key.seed, hearts)
        batch = {
            "image": torch.from_numpy(images).unsqueeze(1),
            "target": torch.from_numpy(self.target[key.indices]),
            "index": torch.from_numpy(key.indices),
        }
        if hearts is not None:
            batch["heart"] = torch.from_numpy(hearts).unsqueeze(1)
        return batch


def augment(
    images: Pixels, augmentation: A.Compose, seed: int, hearts: Pixels | None = None
) -> None:
    """Augment (B, H, W) `uint8` in place; seed and order decide everything.

    Hearts (B, H, W) are moved as the images are; they change nothing about these.
    """
    augmentation.set_random_seed(seed)
    for number, image in enumerate(images):
        mask = {} if hearts is None else {"mask": hearts[number]}
        changed = augmentation(image=image[..., None], **mask)
        image[:] = changed["image"][..., 0]
        if hearts is not None:
            hearts[number] = changed["mask"]
