"""What one sees of a training: how it begins, a line an epoch, how it ends; a bar in a terminal."""

from __future__ import annotations

import logging
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, TQDMProgressBar

from cardiomegaly.config import Config
from cardiomegaly.data.datamodule import CardiomegalyDataModule
from cardiomegaly.model.weights import ObtainedWeights
from cardiomegaly.training.callbacks import History
from cardiomegaly.training.device import device_name
from cardiomegaly.training.module import CardiomegalyModule

log = logging.getLogger(__name__)
COMMAND = "python -m cardiomegaly.train"


def in_terminal() -> bool:
    """Whether somebody looks at what is printed; a bar in a file is of no use."""
    return sys.stdout.isatty() and sys.stderr.isatty()


@rank_zero_only
def announce(
    config: Config,
    datamodule: CardiomegalyDataModule,
    module: CardiomegalyModule,
    weights: ObtainedWeights,
    trainer: Trainer,
    folder: Path,
) -> None:
    """Say what is about to be trained, on what, where, and how to go on if it is interrupted."""
    trained = config.trainer
    for line in (
        *_data_lines(config, datamodule),
        f"model: {config.backbone.name} ({config.backbone.model}) at {config.backbone.image_size} "
        f"pixels{_region(config.backbone.region)}, trained: {config.backbone.trainable}, "
        f"features {config.features.name}; head {config.head_name}; {_parameters(module)}",
        f"weights: {'' if weights.path is None else f'{weights.name} from '}{weights.source}",
        f"training: balance={config.balance}, seed {config.seed}, batches of "
        f"{datamodule.batch_size}, at most {trained.max_epochs} epochs (counted from 0), ends when "
        f"{trained.monitor} has not been better for {trained.patience}; {device_name(trainer)}, "
        f"{trainer.precision}",
        f"learning: {', '.join(_learning(config))}",
        f"run folder: {folder}",
    ):
        log.info("%s", line)
    if not (HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN):
        log.info("if it is interrupted, go on by: %s resume=%s", COMMAND, folder)


def _learning(config: Config) -> list[str]:
    """What moves the weights, by the names of its classes."""
    names = ("loss", "optimizer", "schedule", "averaging")
    used = {name: getattr(config, name).get("_target_") for name in names}
    classes = [f"{name} {used[name].rpartition('.')[2]}" for name in names if used[name]]
    trained = config.backbone.trainable != "none"
    rate = f"rate {config.trainer.learning_rate:g} of the head"
    rates = rate + f", {config.backbone.learning_rate:g} of the backbone" * trained
    weight = config.trainer.attention_weight
    return [*classes, rates, *([f"attention drawn to hearts by {weight:g}"] if weight else [])]


def _region(edges: list[float] | None) -> str:
    if edges is None:
        return ""
    top, left, bottom, right = edges
    return f", of which it sees rows {top:.0%} to {bottom:.0%}, columns {left:.0%} to {right:.0%}"


def _data_lines(config: Config, datamodule: CardiomegalyDataModule) -> list[str]:
    generated = " (a generated cohort, no patients; for NIH say data=nih data.root=FOLDER)"
    labelled, finding = datamodule.labelled, config.data.finding.lower()
    return [
        f"data: {config.data.name}{generated if config.data.phantom is not None else ''} in "
        f"{config.data.root}; {labelled.n_rows:,} rows in {labelled.label_file.name}, "
        f"{len(labelled.table):,} images found, {len(datamodule.unreadable)} unreadable",
        f"cohort: {config.cohort.name}, views {' and '.join(config.cohort.views)}; "
        f"split: {config.split.file or config.split.name}",
        *(
            f"{part:<5} {len(table):>7,} images of {table['patient_id'].nunique():>6,} patients, "
            f"{table['target'].mean():6.1%} with {finding}"
            for part, table in datamodule.parts.items()
        ),
    ]


def _parameters(module: CardiomegalyModule) -> str:
    parameters = list(module.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    return f"{trained:,} of {sum(p.numel() for p in parameters):,} parameters are trained"


class EpochLines(Callback):
    """A plain line an epoch, and one at the end that says why."""

    def __init__(self, config: Config, history: History) -> None:
        self.monitor = config.trainer.monitor
        self.history = history

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say the epoch's figures; `history` and early stopping know of it already."""
        if not trainer.is_global_zero:
            return
        row = self.history.rows[-1]
        last = (trainer.max_epochs or 0) - 1
        names = dict.fromkeys(("train/loss", "val/loss", self.monitor))
        figures = ", ".join(f"{name} {row[name]:.4f}" for name in names)
        stopping = _early_stopping(trainer)
        seconds = float(np.median([row["seconds"] for row in self.history.rows]))
        left = (last - trainer.current_epoch) * seconds
        log.info(
            "epoch %d/%d: %s, %s, patience %d of %d left, %.0f images/s, at most %s left",
            trainer.current_epoch, last, figures, self._best(),
            stopping.patience - stopping.wait_count, stopping.patience, row["images_per_second"],
            timedelta(seconds=round(left)),
        )  # fmt: skip

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say why the training ends."""
        if not trainer.is_global_zero or not self.history.rows:
            return
        stopping, epoch = _early_stopping(trainer), self.history.rows[-1]["epoch"]
        why = f"that was the last of trainer.max_epochs={trainer.max_epochs}"
        if stopping.wait_count >= stopping.patience:
            why = f"{self.monitor} has not been better for trainer.patience={stopping.patience}"
        elif epoch + 1 < (trainer.max_epochs or 0):
            why = "it was pruned"
        log.info("the training ends after epoch %d: %s; %s", epoch, why, self._best())

    def _best(self) -> str:
        row = self.history.best(self.monitor)
        return f"best {row[self.monitor]:.4f} in epoch {row['epoch']}"


class ProgressBar(TQDMProgressBar):
    """Lightning's, with the loss and the monitored metric beside it."""

    def __init__(self, monitor: str) -> None:
        super().__init__(refresh_rate=5)
        self.monitor = monitor

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The loss of the last batch, and the metric of the last epoch."""
        items: dict[str, Any] = {}
        if isinstance(pl_module, CardiomegalyModule) and pl_module.losses:
            items["loss"] = f"{float(pl_module.losses[-1]):.4f}"
        if self.monitor in trainer.callback_metrics:
            items[self.monitor] = f"{float(trainer.callback_metrics[self.monitor]):.4f}"
        return items


def _early_stopping(trainer: Trainer) -> EarlyStopping:
    stopping = trainer.early_stopping_callback
    assert stopping is not None  # noqa: S101  (for the type checker)
    return stopping
