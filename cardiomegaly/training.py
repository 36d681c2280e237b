"""One run from its configuration to its folder: data, fit, test, results."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning import Callback, Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.tuner import Tuner

from cardiomegaly import results
from cardiomegaly.assemble import build_classifier, build_datamodule, load_classifier
from cardiomegaly.callbacks import EpochSeed, History, PatientEarlyStopping
from cardiomegaly.config import Config, TrainerConfig
from cardiomegaly.data.datamodule import CardiomegalyDataModule
from cardiomegaly.device import check_device, choose_precision, device_name, keep_freed_memory
from cardiomegaly.features import reuse_features
from cardiomegaly.model.classifier import CardiomegalyClassifier
from cardiomegaly.model.weights import ObtainedWeights
from cardiomegaly.reporting.run_folder import SPLIT, write_csv

log = logging.getLogger(__name__)
CHECKPOINTS = "checkpoints"
LIGHTNING_ADVICE = (  # chosen on purpose here, or of no use to the reader
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*isinstance.*LeafSpec.*is deprecated.*",  # torch's own, inside Lightning
    ".*GPU available but not used.*",
    ".*sync_dist=True.*",  # validation metrics are computed over all ranks already
    ".*all_gather is deprecated.*",  # Lightning's use of torch
    ".*module\\(s\\) in eval mode at the start of training.*",  # the frozen backbone
)


@dataclass
class Finished:
    """What a training hands to its results."""

    config: Config
    folder: Path
    datamodule: CardiomegalyDataModule
    classifier: CardiomegalyClassifier
    weights: ObtainedWeights
    history: History
    probability: dict[str, np.ndarray]
    epochs: int
    best_epoch: int
    best_value: float
    seconds: float
    precision: str
    device: str


def train(config: Config, folder: Path) -> float:
    """Train, test the best checkpoint and write the run folder.

    Returns:
        The best value of the monitored metric on the validation part.

    Raises:
        ValueError, FileNotFoundError: data, weights or configuration cannot be used as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with quiet_lightning():
        seed_everything(config.seed, workers=True, verbose=False)
        _prepare_resume(config, folder)
        check_device(config.trainer)
        keep_freed_memory()
        classifier, weights = build_classifier(config)  # missing weights are noticed at once
        precision = choose_precision(config.trainer)
        datamodule = build_datamodule(config)
        datamodule.prepare_data()
        datamodule.setup()
        write_csv(folder / SPLIT, datamodule.split_table)
        classifier.to(memory_format=torch.channels_last)
        if config.trainer.compile:
            classifier.backbone.compile()
        trainer, history = build_trainer(config, folder, precision)
        if config.features.name == "reuse":
            device = trainer.strategy.root_device
            reuse_features(config, datamodule, classifier.backbone, device, precision)
        _announce(config, datamodule, trainer, precision)
        if config.trainer.batch_size == "auto":
            find_batch_size(trainer, classifier, datamodule)
        trainer.fit(
            classifier,
            datamodule=datamodule,
            ckpt_path=_last_checkpoint(config, folder),
            weights_only=True,
        )
        checkpoint = trainer.checkpoint_callback
        assert isinstance(checkpoint, ModelCheckpoint)  # noqa: S101  (for the type checker)
        best_value = float(checkpoint.best_model_score or np.nan)
        if not trainer.is_global_zero:
            return best_value
        best = load_classifier(Path(checkpoint.best_model_path))
        probability = predict(best, datamodule, config.trainer, precision)
        finished = Finished(
            config=config,
            folder=folder,
            datamodule=datamodule,
            classifier=best,
            weights=weights,
            history=history,
            probability=probability,
            epochs=len(history.rows),
            best_epoch=best_epoch(history, config.trainer),
            best_value=best_value,
            seconds=time.perf_counter() - start,
            precision=precision,
            device=device_name(trainer),
        )
        results.write(finished)
    return best_value


def build_trainer(config: Config, folder: Path, precision: Any) -> tuple[Trainer, History]:
    """Lightning's Trainer with this project's callbacks."""
    trainer = config.trainer
    # Filling memory that is written anyway costs 5% of a step and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    history = History(folder)
    callbacks: list[Callback] = [
        EpochSeed(config.seed),
        PatientEarlyStopping(trainer.monitor, patience=trainer.patience, mode=trainer.mode),
        ModelCheckpoint(
            folder / CHECKPOINTS,
            filename="best",
            monitor=trainer.monitor,
            mode=trainer.mode,
            save_last=True,
            enable_version_counter=False,
        ),
        history,
    ]
    if trainer.progress_bar:
        callbacks.append(TQDMProgressBar(refresh_rate=5))
    return (
        Trainer(
            accelerator=trainer.accelerator,
            devices=trainer.devices,
            strategy=trainer.strategy,
            precision=precision,
            max_epochs=trainer.max_epochs,
            accumulate_grad_batches=trainer.accumulate_grad_batches,
            limit_train_batches=trainer.limit_train_batches,
            deterministic=trainer.deterministic,
            log_every_n_steps=trainer.log_every_n_steps,
            enable_progress_bar=trainer.progress_bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the samplers know their rank
            callbacks=callbacks,
            logger=_loggers(config, folder),
            default_root_dir=folder,
        ),
        history,
    )


def predict(
    classifier: CardiomegalyClassifier,
    datamodule: CardiomegalyDataModule,
    trainer: TrainerConfig,
    precision: Any,
) -> dict[str, np.ndarray]:
    """Probabilities of the validation and test images, in their order, on one device."""
    classifier.to(memory_format=torch.channels_last)
    single = Trainer(
        accelerator=trainer.accelerator,
        devices=1,
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=trainer.progress_bar,
        enable_model_summary=False,
        deterministic=trainer.deterministic,
    )
    with quiet_lightning():
        outputs = single.predict(classifier, dataloaders=datamodule.predict_dataloader())
    assert outputs is not None  # noqa: S101  (for the type checker)
    return {
        part: torch.cat(list(batches)).cpu().numpy()
        for part, batches in zip(("val", "test"), outputs, strict=True)
    }


def find_batch_size(
    trainer: Trainer, classifier: CardiomegalyClassifier, datamodule: CardiomegalyDataModule
) -> int:
    """The largest power of two that the device's memory holds, set in the data module.

    Raises:
        ValueError: one image does not fit.
    """
    most = len(datamodule.parts["train"])
    datamodule.batch_size = 1  # the tuner's first loaders are made before it sets its own
    found = Tuner(trainer).scale_batch_size(
        classifier,
        datamodule=datamodule,
        init_val=1,
        max_trials=max(1, most.bit_length() - 1),
        batch_arg_name="batch_size",
    )
    if not found:
        raise ValueError("trainer.batch_size=auto: not even one image fits; use another backbone")
    datamodule.batch_size = found
    log.info("trainer.batch_size=auto: %d images fit", datamodule.batch_size)
    return found


def best_epoch(history: History, trainer: TrainerConfig) -> int:
    """The epoch of the best monitored value, the first of equals as the checkpoint keeps it."""
    values = [row[trainer.monitor] for row in history.rows]
    best = np.nanargmin(values) if trainer.mode == "min" else np.nanargmax(values)
    return int(history.rows[int(best)]["epoch"])


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Drop advice of Lightning's that does not apply here."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in LIGHTNING_ADVICE:
            warnings.filterwarnings("ignore", message=message)
        yield


def _prepare_resume(config: Config, folder: Path) -> None:
    if config.resume is not None and (folder / SPLIT).is_file():
        config.split.file = str(folder / SPLIT)


def _last_checkpoint(config: Config, folder: Path) -> Path | None:
    last = folder / CHECKPOINTS / "last.ckpt"
    return last if config.resume is not None and last.is_file() else None


def _loggers(config: Config, folder: Path) -> list[Logger] | bool:
    """The configured loggers, each start of a run in a folder of its own below `logs/`."""
    starts = len(list((folder / "logs").glob("start-*"))) + 1
    place: dict[str, Any] = {"save_dir": folder / "logs", "name": f"start-{starts}"}
    return [
        instantiate(logger, **place, version=name) for name, logger in config.logger.items()
    ] or False


@rank_zero_only
def _announce(
    config: Config, datamodule: CardiomegalyDataModule, trainer: Trainer, precision: str
) -> None:
    if config.data.phantom is not None:
        log.info(
            "data=phantom: a generated cohort, no patients; for NIH say data=nih data.root=FOLDER"
        )
    counts = datamodule.counts
    log.info(
        "%s rows in the label file, %s images found, %d unreadable",
        f"{counts.n_label_rows:,}",
        f"{counts.n_images_found:,}",
        counts.n_unreadable,
    )
    for part, table in datamodule.parts.items():
        log.info(
            "%-5s %6s images of %6s patients, %5.1f%% with cardiomegaly",
            part,
            f"{len(table):,}",
            f"{table['patient_id'].nunique():,}",
            100 * table["target"].mean(),
        )
    log.info(
        "%s from %s weights, trainable: %s; head %s; balance=%s; %s, %s",
        config.backbone.model,
        config.backbone.weights,
        config.backbone.trainable,
        config.head_name,
        config.balance,
        device_name(trainer),
        precision,
    )
