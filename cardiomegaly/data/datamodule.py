"""From a data folder to batches: labels, cohort, cache, split, loaders, in this order."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from cardiomegaly import UserError
from cardiomegaly.config import AugmentConfig, CohortConfig, DataConfig, SplitConfig
from cardiomegaly.data import images as cache
from cardiomegaly.data import labels, split
from cardiomegaly.data.dataset import FeatureDataset, ImageDataset
from cardiomegaly.data.phantom import cohort as phantom
from cardiomegaly.data.sampler import SequentialBatches, TrainingBatches
from cardiomegaly.data.store import READY, RowStore
from cardiomegaly.data.transforms import build_augmentation

log = logging.getLogger(__name__)
MOST_NAMED = 5  # unreadable images named in a message; the rest are counted


@dataclass
class Counts:
    """How many images there were on the way from the label file to the parts."""

    n_label_rows: int = 0
    n_images_found: int = 0
    n_missing: int = 0
    n_unreadable: int = 0
    unreadable: list[str] = field(default_factory=list)


class CardiomegalyDataModule(LightningDataModule):
    """The cohort, split by patient, as batches of one-channel `uint8` images.

    After `setup`, `parts` holds a table for each of train, val and test (the columns of
    `labels.read_labels`), `split_table` the split (image, patient_id, split, target), `counts` and
    `labelled` what was found.

    Args:
        data, cohort, split, augment: their sections of the configuration.
        image_size: height and width in pixels.
        batch_size: images a batch.
        balance: weighted oversampling of the training part.
        seed: of cohort, split and batches.
    """

    def __init__(
        self,
        data: DataConfig,
        cohort: CohortConfig,
        split: SplitConfig,
        augment: AugmentConfig,
        image_size: int,
        batch_size: int,
        balance: bool,
        seed: int,
    ) -> None:
        super().__init__()
        self.data = data
        self.cohort = cohort
        self.split = split
        self.augment = augment
        self.image_size = image_size
        self.batch_size = batch_size
        self.balance = balance
        self.seed = seed
        self.parts: dict[str, pd.DataFrame] = {}
        self.features: tuple[RowStore, int] | None = None

    def prepare_data(self) -> None:
        """Generate the phantom cohort and decode what is not in the cache, in one process."""
        if self.data.phantom is not None:
            phantom.generate_phantom(
                Path(self.data.root),
                images=self.data.phantom.images,
                size=self.data.phantom.size,
                seed=self.data.phantom.seed,
                label_noise=self.data.phantom.label_noise,
            )
        cohort, images = self._load()
        cache.fill_cache(images, cohort)

    def setup(self, stage: str | None = None) -> None:
        """Leave unreadable images out, split, and check the split.

        Raises:
            UserError: as in `labels`, `cache` and `split`.
        """
        if self.parts:
            return
        cohort, self.images = self._load()
        readable = self.images.state()[cohort["row"]] == READY
        unreadable = cohort.loc[~readable, "image"].tolist()
        self._report_unreadable(unreadable, len(cohort))
        self.counts = Counts(
            n_label_rows=self.labelled.n_rows,
            n_images_found=len(self.labelled.table),
            n_missing=self.labelled.n_missing,
            n_unreadable=len(unreadable),
            unreadable=unreadable,
        )
        cohort = cohort[readable].reset_index(drop=True)
        cohort["split"] = self._assign(cohort)
        cohort = cohort[cohort["split"].notna()]
        split.check_split(cohort, leaks_allowed=self.split.name == "image")
        self.split_table = cohort[["image", "patient_id", "split", "target"]]
        self.parts = {
            part: cohort[cohort["split"] == part].reset_index(drop=True) for part in split.PARTS
        }

    def _load(self) -> tuple[pd.DataFrame, RowStore]:
        root = Path(self.data.root)
        self.labelled = labels.load_labelled_images(root, self.data.labels)
        table = self.labelled.table
        images = cache.open_cache(table, root, Path(self.data.cache), self.image_size)
        cohort = split.draw_cohort(
            table,
            self.cohort.name,
            tuple(self.cohort.views),
            self.cohort.negatives_per_positive,
            self.seed,
        )
        return cohort, images

    def _assign(self, cohort: pd.DataFrame) -> pd.Series:
        if self.split.file is not None:
            return split.read_split(Path(self.split.file), cohort)
        train, val, test = (*self.split.fractions, 0.0, 0.0, 0.0)[:3]
        if len(self.split.fractions) != len(split.PARTS):
            raise UserError(
                f"split.fractions: must be three shares (train, val, test), "
                f"got {self.split.fractions}"
            )
        parts = split.split_cohort(
            cohort, self.split.name, (train, val, test), self.seed, Path(self.data.root)
        )
        if self.split.name == "image":
            leaking = split.shared_patients(cohort.assign(split=parts))
            log.warning(
                "split=image repeats the study's protocol: %s patients stand in more than one "
                "part, so the test is partly of patients seen in training and too favourable",
                f"{leaking:,}",
            )
        return parts

    def _report_unreadable(self, names: list[str], n: int) -> None:
        if not names:
            return
        if len(names) == n:
            raise UserError(f"data.root: none of the {n:,} images can be read, first {names[0]!r}")
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        log.warning(
            "%d of %s images cannot be read and are left out: %s%s",
            len(names),
            f"{n:,}",
            ", ".join(names[:MOST_NAMED]),
            more,
        )

    def use_features(self, store: RowStore, views: int) -> None:
        """Load feature maps for images from now on: view 0, in training one of `views` others."""
        self.features = (store, views)

    def loaded(self, part: str, augmented: bool = False) -> ImageDataset | FeatureDataset:
        """What the loaders read: images, or features where they are reused."""
        if self.features is None:
            return self.dataset(part, augmented)
        store, views = self.features
        table = self.parts[part]
        return FeatureDataset(
            store,
            self.images.n,
            table["row"].to_numpy(),
            table["target"].to_numpy(),
            augmented_views=views if augmented else 0,
        )

    def dataset(self, part: str, augmented: bool = False) -> ImageDataset:
        """The images of train, val or test."""
        table = self.parts[part]
        return ImageDataset(
            self.images,
            table["row"].to_numpy(),
            table["target"].to_numpy(),
            build_augmentation(self.augment) if augmented else None,
        )

    def training_batches(self) -> TrainingBatches:
        """Which training images make which batch, balanced or shuffled."""
        rank, world_size = self._place()
        target = self.parts["train"]["target"].to_numpy()
        return TrainingBatches(target, self.batch_size, self.balance, self.seed, rank, world_size)

    def train_dataloader(self) -> DataLoader[Any]:
        """Augmented, balanced or shuffled."""
        return self._loader(self.loaded("train", augmented=True), self.training_batches())

    def val_dataloader(self) -> DataLoader[Any]:
        """In order, as they are."""
        return self._in_order("val", *self._place())

    def test_dataloader(self) -> DataLoader[Any]:
        """In order, as they are, on one device."""
        return self._in_order("test", 0, 1)

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        """Validation, then test, on one device."""
        return [self._in_order(part, 0, 1) for part in ("val", "test")]

    def _in_order(self, part: str, rank: int, world_size: int) -> DataLoader[Any]:
        batches = SequentialBatches(len(self.parts[part]), self.batch_size, rank, world_size)
        return self._loader(self.loaded(part), batches)

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)

    def _loader(
        self, dataset: ImageDataset | FeatureDataset, batches: TrainingBatches | SequentialBatches
    ) -> DataLoader[Any]:
        workers = choose_workers() if self.data.workers is None else self.data.workers
        if self.features is not None and not torch.cuda.is_available():
            workers = 0  # a copy out of the memory map costs less than handing it over
        return DataLoader(
            dataset,
            sampler=batches,
            batch_size=None,  # the sampler makes the batches
            num_workers=workers,
            prefetch_factor=self.data.prefetch if workers else None,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_one_thread,
        )


def choose_workers() -> int:
    """Loader processes for this machine: few, as a core augments 2,000 images/s.

    On the CPU the network wants the cores for itself: one worker hides the loading.
    """
    cores = os.cpu_count() or 1
    if torch.cuda.is_available():
        return min(8, max(1, cores - 1))
    return 1 if cores > 1 else 0


def _one_thread(worker: int) -> None:
    import cv2

    cv2.setNumThreads(0)
