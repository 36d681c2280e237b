"""Ends trials of a search that Optuna's pruner finds hopeless, by what the others reached.

A job tells the search's journal the monitored metric of every epoch. That takes no more than the
journal's file, so it works with every launcher whose jobs see the sweep's folder. A trial that is
ended so is a finished run like any other, with its best epoch tested.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

import optuna
from pytorch_lightning import Callback, LightningModule, Trainer

from cardiomegaly.config import Config
from cardiomegaly.model.building import build
from cardiomegaly.sweep.search import JOURNAL, PRUNED, journal_storage

log = logging.getLogger(__name__)


class Pruning(Callback):
    """Tells of each epoch, and stops the training where it is hopeless.

    Args:
        sweep: the folder of the search.
        config: of the job.

    Raises:
        UserError: the pruner cannot be built as configured.
    """

    def __init__(self, sweep: Path, config: Config) -> None:
        self.monitor = config.trainer.monitor
        pruner = dict(config.sweep.pruner or {})
        kind = optuna.pruners.BasePruner
        self.pruner = build(pruner, "sweep.pruner", kind, {})  # type: ignore[type-abstract]
        self.storage = journal_storage(sweep / JOURNAL)
        self.study = optuna.load_study(study_name=self.monitor, storage=self.storage)
        known = self.storage.get_study_id_from_name(self.monitor)
        self.trial = self.storage.get_trial_id_from_study_id_trial_number(
            known, int(config.sweep.trial or 0)
        )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train no further where a trial that is resumed had been ended."""
        if self.storage.get_trial(self.trial).user_attrs.get(PRUNED):
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the epoch, once, and look whether others were better by then."""
        value, epoch = float(trainer.callback_metrics[self.monitor]), trainer.current_epoch
        if math.isnan(value):
            return
        if epoch not in self.storage.get_trial(self.trial).intermediate_values:
            self.storage.set_trial_intermediate_value(self.trial, epoch, value)
        if self.pruner.prune(self.study, self.storage.get_trial(self.trial)):
            self.storage.set_trial_user_attr(self.trial, PRUNED, True)
            trainer.should_stop = True
            log.info("pruned after epoch %d: other trials were better by then", epoch)
