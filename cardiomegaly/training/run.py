"""One run from its configuration to its folder: data, fit, test, results."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from tqdm import tqdm

from cardiomegaly.config import Config, TrainerConfig
from cardiomegaly.data.datamodule import CardiomegalyDataModule
from cardiomegaly.model.predictor import Prediction, Predictor, load_classifier
from cardiomegaly.model.weights import ObtainedWeights, load_weights, obtain
from cardiomegaly.reports import run_report
from cardiomegaly.training.callbacks import History
from cardiomegaly.training.device import (
    check_device,
    choose_precision,
    device_name,
    keep_freed_memory,
)
from cardiomegaly.training.features import reuse_features
from cardiomegaly.training.module import CardiomegalyModule
from cardiomegaly.training.record import SPLIT, write_csv
from cardiomegaly.training.trainer import (
    CHECKPOINTS,
    build_trainer,
    find_batch_size,
    quiet_lightning,
)

log = logging.getLogger(__name__)
FALLBACK_BATCH = 24  # images, where `trainer.batch_size=auto` has not yet found its size


@dataclass
class Finished:
    """What a training hands to its results."""

    config: Config
    folder: Path
    datamodule: CardiomegalyDataModule
    predictor: Predictor
    weights: ObtainedWeights
    history: History
    predictions: dict[str, Prediction]
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
        UserError: data, weights or configuration cannot be used as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with quiet_lightning():
        seed_everything(config.seed, workers=True, verbose=False)
        _prepare_resume(config, folder)
        check_device(config.trainer)
        keep_freed_memory()
        module, weights = build_module(config)  # missing weights are noticed at once
        precision = choose_precision(config.trainer)
        datamodule = build_datamodule(config)
        datamodule.prepare_data()
        datamodule.setup()
        write_csv(folder / SPLIT, datamodule.split_table)
        module.to(memory_format=torch.channels_last)
        if config.trainer.compile:
            module.classifier.backbone.compile()
        trainer, history = build_trainer(config, folder, precision)
        if config.features.name == "reuse":
            device = trainer.strategy.root_device
            reuse_features(config, datamodule, module.classifier.backbone, device, precision)
        _announce(config, datamodule, trainer, precision)
        with quiet_lightning(module):
            if config.trainer.batch_size == "auto":
                find_batch_size(trainer, module, datamodule)
            trainer.fit(
                module,
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
        predictor = Predictor(best, trainer.strategy.root_device, precision)
        predictions = {
            part: predictor.predict_batches(
                tqdm(loader, desc=f"predicting {part}", disable=not config.trainer.progress_bar)
            )
            for part, loader in zip(("val", "test"), datamodule.predict_dataloader(), strict=True)
        }
        finished = Finished(
            config=config,
            folder=folder,
            datamodule=datamodule,
            predictor=predictor,
            weights=weights,
            history=history,
            predictions=predictions,
            epochs=len(history.rows),
            best_epoch=best_epoch(history, config.trainer),
            best_value=best_value,
            seconds=time.perf_counter() - start,
            precision=precision,
            device=device_name(trainer),
        )
        run_report.write(finished)
    return best_value


def build_datamodule(config: Config) -> CardiomegalyDataModule:
    """The data of a run, not yet prepared."""
    size = config.trainer.batch_size
    return CardiomegalyDataModule(
        data=config.data,
        cohort=config.cohort,
        split=config.split,
        augment=config.augment,
        image_size=config.backbone.image_size,
        batch_size=FALLBACK_BATCH if size == "auto" else size,
        balance=config.balance,
        seed=config.seed,
    )


def build_module(config: Config) -> tuple[CardiomegalyModule, ObtainedWeights]:
    """The model of a run with its initial weights, and where these came from.

    Raises:
        UserError: the weights are not there or do not fit, or the network or head cannot be built
            as configured.
    """
    weights = obtain(config.backbone.model, config.backbone.weights)
    module = CardiomegalyModule(
        asdict(config.backbone), dict(config.head), config.trainer.learning_rate
    )
    if weights.path is not None:
        load_weights(module.classifier.backbone.model, weights.path)
    return module, weights


def best_epoch(history: History, trainer: TrainerConfig) -> int:
    """The epoch of the best monitored value, the first of equals as the checkpoint keeps it."""
    values = [row[trainer.monitor] for row in history.rows]
    best = np.nanargmin(values) if trainer.mode == "min" else np.nanargmax(values)
    return int(history.rows[int(best)]["epoch"])


def _prepare_resume(config: Config, folder: Path) -> None:
    if config.resume is not None and (folder / SPLIT).is_file():
        config.split.file = str(folder / SPLIT)


def _last_checkpoint(config: Config, folder: Path) -> Path | None:
    last = folder / CHECKPOINTS / "last.ckpt"
    return last if config.resume is not None and last.is_file() else None


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
