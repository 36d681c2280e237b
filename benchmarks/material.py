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
NIH_ROWS = 112_120
COHORT, ORIGINALS, ORIGINAL_SIZE = 60, 16, 1024  # generated images; and PNGs, and their side


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: of which the median is taken.
        seconds: that a timed stretch lasts, at least.
        thorough: with memory, torch.compile, timm's ResNet, whole runs, and every backbone in plain
            float32: minutes more.
        heavy_batch: images of a step of any backbone but the first.
        rows: images of the memory test, and of the label file where none is given.
        image_size: None is each backbone's own.
        backbones: which.
    """

    rounds: int
    seconds: float
    thorough: bool
    heavy_batch: int = 24
    rows: int = NIH_ROWS
    image_size: int | None = None
    backbones: tuple[str, ...] = BACKBONES


QUICK = Effort(rounds=3, seconds=1, thorough=False, heavy_batch=4)
FULL = Effort(rounds=7, seconds=3, thorough=True)


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
    given_originals: str | None = None
    given_labels: str | None = None

    @cached_property
    def originals(self) -> pd.DataFrame:
        """PNGs to decode: columns path, bytes, mtime_ns."""
        if self.given_originals is None:
            generate_phantom(self.folder / "png", images=ORIGINALS, size=ORIGINAL_SIZE)
        images = find_images(Path(self.given_originals or self.folder / "png"))
        return images.sort_values("path").reset_index(drop=True)

    @cached_property
    def labels(self) -> Path:
        """A label file as long as NIH's."""
        if self.given_labels is not None:
            return Path(self.given_labels)
        root, path = self.folder / "few", self.folder / "labels.csv"
        generate_phantom(root, images=2 * COHORT, size=32)
        table = pd.read_csv(root / "Data_Entry_2017.csv")
        table = table.iloc[np.resize(np.arange(len(table)), self.effort.rows)]
        table["Image Index"] = [f"{i:08d}_000.png" for i in range(len(table))]
        table["Patient ID"] = np.arange(len(table)) // 4  # NIH has 112,120 images of 30,805
        table.to_csv(path, index=False)
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
