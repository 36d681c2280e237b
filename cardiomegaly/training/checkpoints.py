"""Checkpoints: written in one step, checked before they are gone on from, at home where they lie.

`best.ckpt` is the epoch with the best monitored value, `last.ckpt` the one that ended last; both
are written at the end of an epoch, since a training that is resumed in the middle of one would
begin its data anew.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from cardiomegaly import UserError
from cardiomegaly.config import TrainerConfig
from cardiomegaly.model.predictor import read_checkpoint
from cardiomegaly.training.files import replacing
from cardiomegaly.training.record import CHECKPOINT, LAST_CHECKPOINT

log = logging.getLogger(__name__)
PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, brings it to disk and moves it there."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Keep the former file until the new one is whole.

        Raises:
            RunError: the disk is full, or the folder read-only.
        """
        with replacing(Path(path)) as file:
            torch.save(checkpoint, file)


class MovableCheckpoint(ModelCheckpoint):
    """Lightning's, which forgets the best score when the folder of a run was moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was seen so far, with the files where they are now."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        paths = {name: here(state_dict[name]) for name in PATHS}
        super().load_state_dict(
            state_dict | paths | {"best_k_models": best, "dirpath": self.dirpath}
        )


def checkpoint_callbacks(config: TrainerConfig, folder: Path) -> list[ModelCheckpoint]:
    """Those of the best and of the last epoch, in this order: `last.ckpt` knows of the best."""
    best, last = folder / CHECKPOINT, folder / LAST_CHECKPOINT
    return [
        MovableCheckpoint(
            best.parent,
            filename=best.stem,
            monitor=config.monitor,
            mode=config.mode,
            enable_version_counter=False,
        ),
        MovableCheckpoint(last.parent, filename=last.stem, enable_version_counter=False),
    ]


def choose_checkpoint(folder: Path) -> Path | None:
    """The checkpoint from which the run in a folder goes on; None where no epoch was finished.

    Raises:
        UserError: the best checkpoint is damaged or gone, while later epochs were begun.
    """
    best, last = folder / CHECKPOINT, folder / LAST_CHECKPOINT
    for leftover in best.parent.glob(".*.tmp"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    if not best.is_file() and not last.is_file():
        return None
    try:
        best_epoch = read_checkpoint(best)["epoch"]
    except UserError as error:
        raise UserError(
            f"resume: {error}; it holds what the run is judged by: restore it, or start the run "
            "anew"
        ) from error
    try:
        last_epoch = read_checkpoint(last)["epoch"]
    except UserError as error:
        log.warning("%s; going on from %s, the best epoch so far", error, best)
        return best
    return best if best_epoch > last_epoch else last  # killed before the last was written
