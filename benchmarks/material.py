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
from cardiomegaly.data.datamodule import CardiomegalyDataModule
from cardiomegaly.data.labels import find_images
from cardiomegaly.data.phantom.cohort import generate_phantom
from cardiomegaly.training.run import build_datamodule

BACKBONES = ("mobilenetv1", "inceptionv3", "efficientnetb4", "resnet152v2")
NIH_ROWS, NIH_PATIENTS = 112_120, 30_805
POSITIVE, MALE, PA = 0.025, 0.56, 0.6  # shares of NIH's images
COHORT, ORIGINALS, ORIGINAL_SIZE = 60, 16, 1024  # generated images; and PNGs, and their side


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: of which the median is taken.
        seconds: that a timed stretch lasts, at least.
        read: images that the memory test reads, of `rows`.
        thorough: with torch.compile, timm's ResNet, the memory of a training, a whole run, and
            every backbone in plain float32: minutes more.
        heavy_batch: images of a step of any backbone but the first.
        rows: of the label file where none is given, and of the memory test.
        image_size: None is each backbone's own.
        backbones: which.
    """

    rounds: int
    seconds: float
    read: int
    thorough: bool
    heavy_batch: int = 24
    rows: int = NIH_ROWS
    image_size: int | None = None
    backbones: tuple[str, ...] = BACKBONES


QUICK = Effort(rounds=3, seconds=1, read=2_400, thorough=False, heavy_batch=4)
FULL = Effort(rounds=7, seconds=3, read=NIH_ROWS, thorough=True)


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
            generate_phantom(root, images=ORIGINALS, size=ORIGINAL_SIZE)
        images = find_images(root).sort_values("path").reset_index(drop=True)
        return images[images["path"].str.lower().str.endswith(".png")]

    @cached_property
    def labels(self) -> Path:
        """A label file as long as NIH's."""
        if self.given_labels is not None:
            return self.given_labels
        rng, n = np.random.default_rng(0), self.effort.rows
        positive, male, pa = rng.random((3, n))
        columns = {
            "Image Index": [f"{i:08d}_000.png" for i in range(n)],
            "Finding Labels": np.where(positive < POSITIVE, "Cardiomegaly|Effusion", "No Finding"),
            "Follow-up #": 0,
            "Patient ID": np.sort(rng.integers(1, max(2, n * NIH_PATIENTS // NIH_ROWS), n)),
            "Patient Age": 57,
            "Patient Gender": np.where(male < MALE, "M", "F"),
            "View Position": np.where(pa < PA, "PA", "AP"),
        }
        path = self.folder / "labels.csv"
        pd.DataFrame(columns).to_csv(path, index=False)
        return path

    def config(self, *overrides: str) -> Config:
        """The project's own configuration on a generated cohort, on the CPU, without a bar."""
        settings = [
            "data=phantom", f"data.root='{self.folder / 'cohort'}'",
            f"data.cache='{self.folder / 'cache'}'", "cohort=all", "backbone.weights=none",
            f"data.phantom.images={COHORT}", "split.fractions=[0.5,0.25,0.25]", "features=live",
            "trainer=cpu", "trainer.progress_bar=false", "trainer.max_epochs=1", "logger=none",
        ]  # fmt: skip
        if self.effort.image_size is not None:
            settings.append(f"backbone.image_size={self.effort.image_size}")
        with initialize_config_dir(str(configuration.CONF_DIR.resolve()), version_base="1.3"):
            return configuration.check(compose("config", overrides=[*settings, *overrides]))

    def backbone_config(self, name: str, *overrides: str) -> Config:
        """For this backbone, in batches of the usual size or of what a slow one gets."""
        if name != BACKBONES[0]:
            overrides = (f"trainer.batch_size={self.effort.heavy_batch}", *overrides)
        return self.config(f"backbone={name}", *overrides)

    def datamodule(self, config: Config, images: int) -> CardiomegalyDataModule:
        """The data of a run whose epoch has this many training images: the cohort's, repeated."""
        datamodule = build_datamodule(config)
        datamodule.prepare_data()
        datamodule.setup()
        train, val = datamodule.parts["train"], datamodule.parts["val"]
        copies = math.ceil(images / len(train))
        datamodule.parts["train"] = pd.concat([train] * copies, ignore_index=True)[:images]
        # Validation is no part of what is timed: one image of each class will do.
        datamodule.parts["val"] = val.groupby("target").head(1).reset_index(drop=True)
        return datamodule
