"""What is measured on: the real configuration, a small generated cohort, PNGs, a label file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir

from cardiomegaly import config as configuration
from cardiomegaly.config import Config
from cardiomegaly.data import images as cache
from cardiomegaly.data.datamodule import CardiomegalyDataModule
from cardiomegaly.data.labels import find_images, load_labelled_images
from cardiomegaly.data.phantom.cohort import generate_phantom
from cardiomegaly.training.run import build_datamodule

BACKBONES = ("mobilenetv1", "inceptionv3", "efficientnetb4", "resnet152v2")
HEAVY = ("inceptionv3", "efficientnetb4", "resnet152v2")
NIH_ROWS, NIH_PATIENTS = 112_120, 30_805
POSITIVES = 0.025  # share of images with cardiomegaly
LABEL_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
)


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        repeats: rounds of which the median is taken.
        seconds: that a timed stretch of training steps lasts, about.
        originals, original_size: PNGs to decode where none are given, and their side in pixels.
        loaded: images that the loader delivers in a round.
        decoded: images of a cache that is built in a round.
        stored, read: images in the cache of the memory test, and how many of them are read.
        label_rows: of the label file where none is given.
        cohort: generated images.
        heavy_batch: images of a step of the slow backbones (HEAVY).
        epoch: training images of an epoch from reused features.
        thorough: with torch.compile, timm's ResNet, the memory of a training, and every backbone in
            plain float32: minutes more.
        image_size: None is each backbone's own.
        backbones: which.
    """

    repeats: int
    seconds: float
    originals: int
    loaded: int
    decoded: int
    read: int
    epoch: int
    thorough: bool
    original_size: int = 1024
    stored: int = NIH_ROWS
    label_rows: int = NIH_ROWS
    cohort: int = 120
    heavy_batch: int = 24
    image_size: int | None = None
    backbones: tuple[str, ...] = BACKBONES


QUICK = Effort(
    repeats=3, seconds=1, originals=16, loaded=480, decoded=256, read=2_400, epoch=480,
    thorough=False, heavy_batch=4,
)  # fmt: skip
FULL = Effort(
    repeats=7, seconds=3, originals=40, loaded=2400, decoded=1024, read=NIH_ROWS, epoch=2400,
    thorough=True,
)  # fmt: skip


@dataclass
class Material:
    """Makes what a measurement needs when it is first asked for, in a temporary folder.

    Attributes:
        effort: how much of it.
        folder: temporary.
        given_originals: folder of PNGs to decode, instead of generated ones.
        given_labels: label file, instead of a generated one.
    """

    effort: Effort
    folder: Path
    given_originals: Path | None = None
    given_labels: Path | None = None

    @cached_property
    def originals(self) -> pd.DataFrame:
        """PNGs to decode: columns path, bytes, mtime_ns."""
        root = self.given_originals or self.folder / "originals"
        if self.given_originals is None:
            generate_phantom(root, images=self.effort.originals, size=self.effort.original_size)
        found = find_images(root).sort_values("path").reset_index(drop=True)
        return found[found["path"].str.lower().str.endswith(".png")]

    @property
    def origin(self) -> str:
        """Where the PNGs are from, in words."""
        if self.given_originals is None:
            return f"{len(self.originals)} generated PNGs of {self.effort.original_size} px"
        return f"{len(self.originals)} PNGs of the folder {self.given_originals.name}"

    @cached_property
    def labels(self) -> Path:
        """A label file as long as NIH's."""
        if self.given_labels is not None:
            return self.given_labels
        path = self.folder / "labels.csv"
        rng = np.random.default_rng(0)
        n = self.effort.label_rows
        patient = np.sort(rng.integers(1, max(2, n * NIH_PATIENTS // NIH_ROWS), n))
        positive, sex, view = rng.random((3, n))
        lines = [
            f"{i:08d}_000.png,{'Cardiomegaly|Effusion' if p < POSITIVES else 'No Finding'},0,"
            f"{one},57,{'M' if s < 0.56 else 'F'},{'PA' if v < 0.6 else 'AP'},2682,2749,0.14,0.14\n"
            for i, (one, p, s, v) in enumerate(
                zip(patient.tolist(), positive, sex, view, strict=True)
            )
        ]
        path.write_text(LABEL_HEADER + "".join(lines))
        return path

    def config(self, *overrides: str) -> Config:
        """The project's own configuration on the generated cohort, on the CPU, without a bar."""
        words = [
            "data=nih", f"data.root='{self.folder / 'cohort'}'",
            f"data.cache='{self.folder / 'cache'}'", "cohort=all", "backbone.weights=none",
            "split.fractions=[0.5,0.25,0.25]", "trainer=cpu", "trainer.progress_bar=false",
        ]  # fmt: skip
        if self.effort.image_size is not None:
            words.append(f"backbone.image_size={self.effort.image_size}")
        with initialize_config_dir(str(configuration.CONF_DIR.resolve()), version_base="1.3"):
            return configuration.check(compose("config", overrides=[*words, *overrides]))

    def images_config(self, backbone: str) -> Config:
        """One epoch from images, in batches of the usual size or of what a slow backbone gets."""
        words = [f"backbone={backbone}", "trainer.max_epochs=1"]
        if backbone in HEAVY:
            words.append(f"trainer.batch_size={self.effort.heavy_batch}")
        return self.config(*words)

    def datamodule(self, config: Config, images: int) -> CardiomegalyDataModule:
        """The data of a run whose epoch has this many training images: the cohort's, repeated."""
        root = Path(config.data.root)
        generate_phantom(root, images=self.effort.cohort, size=256)
        table = load_labelled_images(root).table
        store = cache.open_cache(table, root, Path(config.data.cache), config.backbone.image_size)
        cache.fill_cache(store, table, progress=False)
        datamodule = build_datamodule(config)
        datamodule.setup()
        train, val = datamodule.parts["train"], datamodule.parts["val"]
        copies = math.ceil(images / len(train))
        datamodule.parts["train"] = pd.concat([train] * copies, ignore_index=True)[:images]
        # Validation is no part of what is timed: one image of each class will do.
        datamodule.parts["val"] = val.groupby("target").head(1).reset_index(drop=True)
        return datamodule
