"""What happens between the epochs of a training."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from cardiomegaly.training.files import write_csv
from cardiomegaly.training.record import HISTORY

log = logging.getLogger(__name__)
SEEDS = 2**32


class EpochSeed(Callback):
    """Seed dropout by (seed, epoch, rank): a resumed training repeats an undisturbed one."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed torch's generators before the first batch: making loaders draws from them too."""
        if batch_idx == 0:
            key = [self.seed, trainer.current_epoch, trainer.global_rank]
            torch.manual_seed(int(np.random.default_rng(key).integers(SEEDS)))


class PatientEarlyStopping(EarlyStopping):
    """Early stopping that keeps the configured patience, and its end, when it is restored.

    It knows of two phases: a trained backbone rests at first, and learns from `tuned_from` on.
    Where patience is used up before, the second phase begins at once; it has its own patience.

    Args:
        monitor, patience, mode: as Lightning's.
        freeze_epochs: of the first phase; 0 for none.
    """

    def __init__(self, monitor: str, patience: int, mode: str, freeze_epochs: int) -> None:
        super().__init__(monitor, patience=patience, mode=mode)
        self.tuned_from = freeze_epochs

    def state_dict(self) -> dict[str, Any]:
        """What was seen so far, and when the second phase begins."""
        return super().state_dict() | {"tuned_from": self.tuned_from}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was seen so far, not the patience of that time."""
        super().load_state_dict(state_dict | {"patience": self.patience})
        self.tuned_from = state_dict.get("tuned_from", self.tuned_from)  # older ones have no phases

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train no further where a run that is resumed had stopped."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Let the backbone rest or learn."""
        pl_module.classifier.backbone.rest(trainer.current_epoch < self.tuned_from)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look whether the training ends, or its first phase."""
        stops, following = trainer.should_stop, trainer.current_epoch + 1
        super().on_train_epoch_end(trainer, pl_module)
        patient = self.wait_count < self.patience
        if (following < self.tuned_from and patient) or following > self.tuned_from:
            return
        self.tuned_from, self.wait_count = following, 0
        if not patient:
            trainer.should_stop = stops
        if trainer.is_global_zero:
            log.info("from epoch %d on the backbone learns too", following)


class History(Callback):
    """Writes `history.csv`: a row an epoch, with its time and training speed.

    Checkpoints hold the rows, so that a resumed run has those that belong to its weights.

    Args:
        folder: of the run.
        mode: `min` or `max`, which value of the monitored metric is the best.
    """

    def __init__(self, folder: Path, mode: str) -> None:
        self.path = folder / HISTORY
        self.mode = mode
        self.rows: list[dict[str, Any]] = []
        self.images = 0
        self.train_seconds = self.epoch_start = 0.0
        self.peak_memory = 0  # bytes

    @property
    def images_per_second(self) -> float:
        """Median training speed of the epochs, the first left out where there are more."""
        speeds = [row["images_per_second"] for row in self.rows]
        return float(np.median(speeds[1:] or speeds)) if speeds else float("nan")

    def best(self, metric: str) -> dict[str, Any]:
        """The epoch with the best value of a metric, the first of equals."""
        choose = min if self.mode == "min" else max
        return choose(self.rows, key=lambda row: row[metric])

    def state_dict(self) -> dict[str, Any]:
        """The epochs so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on behind the epochs of the checkpoint."""
        self.rows = list(state_dict["rows"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what a resumed run has of its checkpoint, whatever became of the file."""
        if self.rows and trainer.is_global_zero:
            write_csv(self.path, pd.DataFrame(self.rows))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's clock."""
        self.images = 0
        self.epoch_start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count images and memory, and stop the epoch's clock at its last step."""
        self._measure_memory(trainer)
        self.images += len(batch["target"]) * trainer.world_size
        if trainer.is_last_batch:
            if trainer.strategy.root_device.type == "cuda":
                torch.cuda.synchronize()
            self.train_seconds = time.perf_counter() - self.epoch_start

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count memory."""
        self._measure_memory(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row."""
        if not trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append(
            {"epoch": trainer.current_epoch}
            | {name: metrics[name] for name in sorted(metrics) if "/" in name}
            | {
                "lr": trainer.optimizers[0].param_groups[0]["lr"],
                "seconds": time.perf_counter() - self.epoch_start,
                "images_per_second": self.images / self.train_seconds,
            }
        )
        write_csv(self.path, pd.DataFrame(self.rows))

    def summary(self, trainer: Trainer) -> dict[str, Any]:
        """Epochs, the best of them, speed and memory, for `metrics.json`."""
        checkpoint = trainer.checkpoint_callback
        assert isinstance(checkpoint, ModelCheckpoint)  # noqa: S101  (for the type checker)
        assert checkpoint.best_model_score is not None  # noqa: S101
        best = torch.load(checkpoint.best_model_path, mmap=True, weights_only=True)
        return {
            "epochs": len(self.rows),
            "best_epoch": best["epoch"],
            "monitor": checkpoint.monitor,
            "best_value": float(checkpoint.best_model_score),
            "images_per_second": self.images_per_second,
            "peak_memory_mb": self.peak_memory / 1e6,
        }

    def _measure_memory(self, trainer: Trainer) -> None:
        """Keep the most that this process or its GPU has held after a batch."""
        device = trainer.strategy.root_device
        if device.type == "cuda":
            held = torch.cuda.max_memory_allocated(device)
        else:
            held = psutil.Process().memory_info().rss
        self.peak_memory = max(self.peak_memory, held)
