"""Lightning's Trainer as this project sets it up: to train, to find a batch size."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.tuner import Tuner

from cardiomegaly import UserError
from cardiomegaly.config import Config
from cardiomegaly.data.datamodule import CardiomegalyDataModule
from cardiomegaly.model.building import build
from cardiomegaly.training.callbacks import EpochSeed, History, PatientEarlyStopping
from cardiomegaly.training.checkpoints import AtomicCheckpointIO, checkpoint_callbacks
from cardiomegaly.training.module import CardiomegalyModule
from cardiomegaly.training.progress import EpochLines, ProgressBar

log = logging.getLogger(__name__)
LIGHTNING_ADVICE = (  # chosen on purpose here, or of no use to the reader
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*isinstance.*LeafSpec.*is deprecated.*",  # torch's own, inside Lightning
    ".*GPU available but not used.*",
    ".*sync_dist=True.*",  # validation metrics are computed over all ranks already
    ".*all_gather is deprecated.*",  # Lightning's use of torch
)
EVAL_MODE = ".*module\\(s\\) in eval mode at the start of training.*"


def build_trainer(
    config: Config, folder: Path, precision: Any, others: Sequence[Callback] = ()
) -> tuple[Trainer, History]:
    """Lightning's Trainer with this project's callbacks, and others."""
    trainer = config.trainer
    # Filling memory that is written anyway costs 5% of a step and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    history = History(folder, trainer.mode)
    return (
        Trainer(
            accelerator=trainer.accelerator,
            devices=trainer.devices,
            strategy=trainer.strategy,
            precision=precision,
            max_epochs=trainer.max_epochs,
            gradient_clip_val=trainer.gradient_clip_val,
            accumulate_grad_batches=trainer.accumulate_grad_batches,
            limit_train_batches=trainer.limit_train_batches,
            deterministic=trainer.deterministic,
            log_every_n_steps=trainer.log_every_n_steps,
            enable_progress_bar=trainer.progress_bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the samplers know their rank
            callbacks=[*_callbacks(config, folder, history), *others],
            plugins=[AtomicCheckpointIO()],
            logger=_loggers(config, folder),
            default_root_dir=folder,
        ),
        history,
    )


def _callbacks(config: Config, folder: Path, history: History) -> list[Callback]:
    trainer = config.trainer
    callbacks: list[Callback] = [
        EpochSeed(config.seed),
        PatientEarlyStopping(
            trainer.monitor, trainer.patience, trainer.mode, trainer.freeze_epochs
        ),
        history,
        EpochLines(config, history),
        *checkpoint_callbacks(trainer, folder),
    ]
    if config.averaging:
        callbacks.append(build(config.averaging, "averaging", WeightAveraging, {}))
    if trainer.progress_bar:
        callbacks.append(ProgressBar(trainer.monitor))
    return callbacks


def find_batch_size(
    trainer: Trainer, module: CardiomegalyModule, datamodule: CardiomegalyDataModule
) -> int:
    """The largest power of two that the device's memory holds, set in the data module.

    Raises:
        UserError: one image does not fit.
    """
    most = len(datamodule.parts["train"])
    datamodule.batch_size = 1  # the tuner's first loaders are made before it sets its own
    found = Tuner(trainer).scale_batch_size(
        module,
        datamodule=datamodule,
        init_val=1,
        max_trials=max(1, most.bit_length() - 1),
        batch_arg_name="batch_size",
    )
    if not found:
        raise UserError("trainer.batch_size=auto: not even one image fits; use another backbone")
    datamodule.batch_size = found
    log.info("trainer.batch_size=auto: %d images fit", datamodule.batch_size)
    return found


@contextmanager
def quiet_lightning(module: CardiomegalyModule | None = None) -> Iterator[None]:
    """Drop advice of Lightning's that does not apply here.

    Its warning about modules in eval mode is dropped only where these are the frozen backbone's.
    """
    advice = list(LIGHTNING_ADVICE)
    if module is not None:
        evaluating = {part for part in module.modules() if not part.training}
        if evaluating <= module.classifier.backbone.frozen_modules():
            advice.append(EVAL_MODE)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in advice:
            warnings.filterwarnings("ignore", message=message)
        yield


def end_loggers(trainer: Trainer) -> None:
    """End a run of Weights & Biases, which would go on in the next one of this process."""
    if any(isinstance(logger, WandbLogger) for logger in trainer.loggers):
        import wandb

        wandb.finish()


def _loggers(config: Config, folder: Path) -> list[Logger] | bool:
    """The configured loggers, each start of a run in a folder of its own below `logs/`.

    Raises:
        UserError: the package of one is not installed.
    """
    starts = len(list((folder / "logs").glob("start-*"))) + 1
    loggers = []
    for name, settings in config.logger.items():
        place = {"save_dir": folder / "logs", "name": f"start-{starts}", "version": name}
        taken = inspect.signature(get_class(settings["_target_"])).parameters
        own = {key: value for key, value in place.items() if key in taken and key not in settings}
        try:
            loggers.append(instantiate(settings, **own))
        except InstantiationException as error:
            if isinstance(error.__cause__, ModuleNotFoundError):
                raise UserError(
                    f"logger: {name} is not installed; say pip install 'cardiomegaly[loggers]'"
                ) from error
            raise
    return loggers or False
