"""What is measured on: the real configuration, a small generated cohort, PNGs, a label file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir

from cardiomegaly import config as configuration
from cardiomegaly.config import Config
from cardiomegaly.data.datamodule import CardiomegalyDataModule
from cardiomegaly.data.phantom.cohort import generate_phantom
from cardiomegaly.training.run import build_datamodule

BACKBONES = ("mobilenetv1", "inceptionv3", "efficientnetb4", "resnet152v2")
NIH_ROWS = 112_120
COHORT = 60  # generated images
ORIGINALS, ORIGINAL_SIZE, LINKED = 16, 1024, 256  # generated PNGs, their side; links to PNGs


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
    def originals(self) -> list[Path]:
        """PNGs to decode."""
        root = Path(self.given_originals or self.folder / "originals")
        if self.given_originals is None:
            generate_phantom(root, images=ORIGINALS, size=ORIGINAL_SIZE)
        return sorted(root.rglob("*.png"))

    @cached_property
    def linked(self) -> Path:
        """A data folder whose `LINKED` images are links to the PNGs, each linked several times."""
        root = self.folder / "linked"
        root.mkdir()
        table = pd.read_csv(self.labels, nrows=LINKED, index_col=False)
        table.to_csv(root / "Data_Entry_2017.csv", index=False)
        for name, original in zip(table["Image Index"], cycle(self.originals), strict=False):
            (root / name).symlink_to(original.resolve())
        return root

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

    def datamodule(self, config: Config, images: int = 0) -> CardiomegalyDataModule:
        """The data of a run, its training part repeated or cut to this many images."""
        datamodule = build_datamodule(config)
        datamodule.prepare_data()
        datamodule.setup()
        if images:
            repeat(datamodule, images)
        return datamodule


def repeat(datamodule: CardiomegalyDataModule, images: int) -> None:
    """Let an epoch have this many training images, those of the cohort again and again."""
    train, val = datamodule.parts["train"], datamodule.parts["val"]
    datamodule.parts["train"] = train.iloc[np.resize(np.arange(len(train)), images)].reset_index()
    # Validation is no part of what is timed: one image of each class will do.
    datamodule.parts["val"] = val.groupby("target").head(1).reset_index(drop=True)
