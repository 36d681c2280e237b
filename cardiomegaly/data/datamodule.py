"""From a data folder to batches: labels, cohort, cache, split, loaders, in this order."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from cardiomegaly import UserError
from cardiomegaly.config import HEART, AugmentConfig, CohortConfig, DataConfig, SplitConfig
from cardiomegaly.data import caches, split
from cardiomegaly.data.boxes import NIH_LIST
from cardiomegaly.data.dataset import (
    Batch,
    ImageDataset,
    StoredImages,
    fill_image_store,
    open_image_store,
)
from cardiomegaly.data.hearts import Hearts
from cardiomegaly.data.images import MOST_NAMED, Pixels, name_some, read_image
from cardiomegaly.data.labels import LabelledImages, load_labelled_images
from cardiomegaly.data.phantom.cohort import generate_phantom
from cardiomegaly.data.sampler import SequentialBatches, TrainingBatches
from cardiomegaly.data.store import RowStore
from cardiomegaly.data.tables import find_file
from cardiomegaly.data.transforms import build_augmentation, check_augmentation

log = logging.getLogger(__name__)
NEXT_EPOCH = "next_epoch"
FAREWELL = 2.0  # seconds in which the system says that a process has ended


class CardiomegalyDataModule(LightningDataModule):
    """The cohort, split by patient, as batches of one-channel `uint8` images.

    After `setup`, `parts` holds a table for each of train, val and test (the columns of
    `tables.read_labels`, path and key: what `store` knows the image by), `split_table` the split
    (image, patient_id, split, target), `labelled` what was found, `unreadable` what has no pixels,
    `n_other_views` how many images `cohort.views` leaves out.

    Args:
        data, cohort, split, augment: their sections of the configuration.
        image_size: height and width in pixels.
        batch_size: images a batch.
        balance: weighted oversampling of the training part.
        seed: of cohort, split and batches.
        on_gpu: whether the batches go to a GPU: its memory is pinned, and more processes load.
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
        on_gpu: bool,
    ) -> None:
        super().__init__()
        check_augmentation(augment, image_size)
        self.data = data
        self.cohort = cohort
        self.split = split
        self.augment = augment
        self.image_size = image_size
        self.batch_size = batch_size
        self.balance = balance
        self.seed = seed
        self.on_gpu = on_gpu
        self.unreadable: list[str] = []
        self.parts: dict[str, pd.DataFrame] = {}
        self.draws_hearts = False
        self.features: Mapping[str, Dataset[Batch]] = {}
        self.first_epoch = 0

    def prepare_data(self) -> None:
        """Generate the phantom cohort and decode what is not in the cache, in one process.

        Lightning calls this again in `fit`, where everything is there.
        """
        if self.parts:
            return
        if self.data.phantom is not None:
            generate_phantom(
                Path(self.data.root),
                images=self.data.phantom.images,
                size=self.data.phantom.size,
                seed=self.data.phantom.seed,
                label_noise=self.data.phantom.label_noise,
            )
        fill_image_store(self.store, self._draw_cohort())
        _tell_of_old_caches(Path(self.data.cache))

    def setup(self, stage: str | None = None) -> None:
        """Leave unreadable images out, split, and check the split.

        Raises:
            UserError: as in `labels`, `images` and `split`.
        """
        if self.parts:
            return
        cohort = self._draw_cohort()
        _tell_what_is_missing(self.labelled, self.n_other_views, self.data)
        readable = self.store.find(cohort["key"].to_numpy()) >= 0
        self._report_unreadable(cohort[~readable], len(cohort))
        cohort = cohort[readable].reset_index(drop=True)
        cohort["split"] = self._assign(cohort)
        cohort = cohort[cohort["split"].notna()]
        split.check_split(cohort, leaks_allowed=self.split.name == "image")
        self.split_table = cohort[["image", "patient_id", "split", "target"]]
        self.parts = {
            part: cohort[cohort["split"] == part].reset_index(drop=True) for part in split.PARTS
        }

    @cached_property
    def labelled(self) -> LabelledImages:
        """The rows of the label file whose image is there, as they were when first asked for."""
        return load_labelled_images(self.data)

    @property
    def n_other_views(self) -> int:
        """Images left out because of their view."""
        view = self.labelled.table.get("view_position", pd.Series(dtype=object))
        return int((view.notna() & ~view.isin(self.cohort.views)).sum())

    @cached_property
    def store(self) -> RowStore:
        """The decoded images."""
        root, cache = Path(self.data.root), Path(self.data.cache)
        return open_image_store(root, cache, self.image_size, self.data.fit)

    @cached_property
    def hearts(self) -> Hearts:
        """Where the hearts of the training images lie; after `setup`.

        Raises:
            UserError: of none of them it is known.
        """
        images, masks = self.parts["train"]["image"].tolist(), self.data.heart_masks
        root = Path(self.data.root)
        hearts = Hearts(root, self.data.fit, images, None if masks is None else Path(masks))
        if not hearts.known(images):
            raise UserError(
                f"data.root: {root} holds no heart box of a training image, which "
                f"trainer.attention_weight and backbone.region={HEART} need; put NIH's {NIH_LIST} "
                "there, or say data.heart_masks=FILE, a table of CheXmask's"
            )
        return hearts

    def draw_hearts(self) -> None:
        """Give every training image its heart from now on; see `dataset.ImageDataset`."""
        known = self.hearts.known(self.parts["train"]["image"].tolist())
        log.info("the heart is known of %s training images", f"{len(known):,}")
        self.draws_hearts = True

    def heart_region(self) -> list[float]:
        """The square around the training images' mean heart; see `hearts.Hearts.region`."""
        return self.hearts.region(self.parts["train"]["image"].tolist(), self.image_size)

    def _draw_cohort(self) -> pd.DataFrame:
        return split.draw_cohort(
            self.labelled.table,
            self.cohort.name,
            tuple(self.cohort.views),
            self.cohort.negatives_per_positive,
            self.seed,
        )

    def _assign(self, cohort: pd.DataFrame) -> pd.Series:
        if self.split.file is not None:
            return split.read_split(Path(self.split.file), cohort)
        if self.split.name == "file":
            return split.read_lists(self.split.files, cohort)
        if self.split.name == "official" and self.data.official is not None:
            path = find_file(Path(self.data.root), self.data.official)
            return split.read_split(path, cohort, self.data.columns["image"])
        if self.split.name != "image" and not self.labelled.patients_known:
            raise UserError(
                f"split={self.split.name}: {self.labelled.label_file} names no patients "
                "(data.columns.patient_id); say data.patient=image if each image is another person"
            )
        if self.split.folds is not None:
            folds, fold = self.split.folds, self.split.fold
            return split.fold_cohort(cohort, folds, fold, self.split.fractions, self.seed)
        parts = split.split_cohort(
            cohort, self.split.name, self.split.fractions, self.seed, Path(self.data.root)
        )
        if self.split.name == "image":
            leaking = split.shared_patients(cohort.assign(split=parts))
            log.warning(
                "split=image repeats the study's protocol: %s patients stand in more than one "
                "part, so the test is partly of patients seen in training and too favourable",
                f"{leaking:,}",
            )
        return parts

    def _report_unreadable(self, images: pd.DataFrame, n: int) -> None:
        self.unreadable = images["image"].tolist()
        if not self.unreadable:
            return
        reasons = [_reason(path) for path in images["path"][:MOST_NAMED]]
        if len(images) == n:
            raise UserError(f"data.root: none of the {n:,} images can be read: {reasons[0]}")
        log.warning(
            "%d of %s images cannot be read and are left out: %s",
            len(images), f"{n:,}", name_some(reasons + self.unreadable[MOST_NAMED:]),
        )  # fmt: skip

    def use_features(self, features: Mapping[str, Dataset[Batch]]) -> None:
        """Load these data sets, by part, instead of images from now on."""
        self.features = features

    def dataset(self, part: str, augmented: bool = False) -> ImageDataset:
        """The images of train, val or test."""
        table = self.parts[part]
        names = table["image"].tolist()
        draws = augmented and self.draws_hearts
        return ImageDataset(
            StoredImages(self.store, table),
            table["target"].to_numpy(),
            build_augmentation(self.augment) if augmented else None,
            partial(_draw_heart, self.hearts, names, self.image_size) if draws else None,
        )

    def training_batches(self, epoch: int = 0) -> TrainingBatches:
        """Which training images make which batch, balanced or shuffled."""
        target = self.parts["train"]["target"].to_numpy()
        return TrainingBatches(
            target, self.batch_size, self.balance, self.seed, *self._place(), epoch
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Augmented, balanced or shuffled."""
        return self._loader("train", self.training_batches(self.first_epoch))

    def val_dataloader(self) -> DataLoader[Any]:
        """In order, as they are."""
        return self._in_order("val", *self._place())

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        """Validation, then test, on one device."""
        return [self._in_order(part, 0, 1) for part in ("val", "test")]

    def state_dict(self) -> dict[str, Any]:
        """The epoch with which a training goes on that is resumed from here."""
        if self.trainer is None:
            return {}
        progress: Any = self.trainer.fit_loop.epoch_progress.current
        in_last_batch = progress.started > progress.processed and self.trainer.is_last_batch
        return {NEXT_EPOCH: progress.processed + in_last_batch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Begin with the epoch that comes next: loader processes draw it before it is set."""
        self.first_epoch = state_dict[NEXT_EPOCH]

    def on_exception(self, exception: BaseException) -> None:
        """Wait for what a broken pipe may mean: that a loader process was killed.

        The pipe breaks before the system says who is gone. When it does, torch's own handler raises
        the error that names the process.
        """
        if isinstance(exception, (EOFError, ConnectionError)):
            time.sleep(FAREWELL)

    def _in_order(self, part: str, rank: int, world_size: int) -> DataLoader[Any]:
        n = len(self.parts[part])
        return self._loader(part, SequentialBatches(n, self.batch_size, rank, world_size))

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)

    def _loader(self, part: str, batches: TrainingBatches | SequentialBatches) -> DataLoader[Any]:
        workers = self.data.workers
        if workers is None:
            workers = choose_workers(self.on_gpu, training=part == "train")
        if self.features and not self.on_gpu:
            workers = 0  # reading a row costs less than handing it over
        return DataLoader(
            self.features[part] if self.features else self.dataset(part, part == "train"),
            sampler=batches,
            batch_size=None,  # the sampler makes the batches
            num_workers=workers,
            prefetch_factor=self.data.prefetch if workers else None,
            persistent_workers=workers > 0,
            pin_memory=self.on_gpu,
            worker_init_fn=_one_thread,
        )


def choose_workers(on_gpu: bool, training: bool) -> int:
    """Loader processes for this machine: few, as a core augments 2,000 images/s.

    On the processor the network wants the cores for itself: one process hides the loading of a
    training; in a single pass over the images it hides less than its start takes.
    """
    cores = os.cpu_count() or 1
    if on_gpu:
        return min(8, max(1, cores - 1))
    return min(1, cores - 1) if training else 0


def _draw_heart(hearts: Hearts, images: Sequence[str], size: int, number: int) -> Pixels:
    return hearts.draw(images[number], size)  # no lambda: loader processes may be spawned


def _reason(path: str) -> str:
    """Why an image cannot be read."""
    try:
        read_image(path)
    except (UserError, OSError) as error:
        return str(error)
    return f"{path} could not be read before"


def _tell_what_is_missing(labelled: LabelledImages, n_other_views: int, data: DataConfig) -> None:
    """Say which images are left out, and what the label table cannot say."""
    counts = ", ".join(f"{n:,} {label}" for label, n in sorted(labelled.label_counts.items()))
    log.info(
        "%s in %s: %s (uncertain: %s, blank: %s)",
        data.finding, labelled.label_file.name, counts, data.uncertain, data.blank,
    )  # fmt: skip
    if n_other_views:
        log.info("%s images of lateral and other views are left out", f"{n_other_views:,}")
    unknown = [*labelled.unknown, *(() if labelled.patients_known else ["patient_id"])]
    if unknown:
        log.info("the label table does not say: %s", ", ".join(unknown))


def _tell_of_old_caches(cache_dir: Path) -> None:
    old = caches.unused_stores(cache_dir)
    if len(old):
        log.info(
            "data.cache: %d caches in %s take %.1f GB and were not used for %d days; `%s` lists "
            "and removes such caches",
            len(old), cache_dir, old["bytes"].sum() / 1e9, caches.UNUSED_DAYS, caches.COMMAND,
        )  # fmt: skip


def _one_thread(worker: int) -> None:
    import cv2

    cv2.setNumThreads(0)
