"""One run from its configuration to its folder: data, fit, test, results."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning import Trainer, seed_everything
from tqdm import tqdm

from cardiomegaly.config import Config
from cardiomegaly.data.datamodule import CardiomegalyDataModule
from cardiomegaly.data.download import download
from cardiomegaly.evaluation.calibration import platt_line
from cardiomegaly.evaluation.metrics import binary_metrics
from cardiomegaly.model.predictor import Predictor
from cardiomegaly.model.weight_files import load_weights
from cardiomegaly.model.weights import ObtainedWeights, obtain
from cardiomegaly.training.device import (
    check_device,
    choose_precision,
    device_name,
    keep_freed_memory,
    uses_gpu,
)
from cardiomegaly.training.features import reuse_features
from cardiomegaly.training.module import CardiomegalyModule
from cardiomegaly.training.provenance import describe
from cardiomegaly.training.record import (
    CHECKPOINT,
    LAST_CHECKPOINT,
    METRICS,
    SPLIT,
    Run,
    check_begun,
    check_same_data,
    write_begun,
    write_results,
)
from cardiomegaly.training.trainer import build_trainer, find_batch_size, quiet_lightning

log = logging.getLogger(__name__)
FALLBACK_BATCH = 24  # images, where `trainer.batch_size=auto` has not yet found its size
TESTED = ("val", "test")
IMAGE_COLUMNS = ("image", "patient_id", "split", "target", "view_position", "sex", "age")


@dataclass(frozen=True)
class TrainedRun:
    """A finished training.

    Attributes:
        record: what its folder holds, as `record.read_run` reads it.
        config: its configuration.
        datamodule: its data.
        predictor: its best checkpoint, on the device of the training.
    """

    record: Run
    config: Config
    datamodule: CardiomegalyDataModule
    predictor: Predictor


def train(config: Config, folder: Path) -> TrainedRun | None:
    """Train, test the best checkpoint and write the run folder.

    Returns:
        The run; None in all but the first process of a distributed training.

    Raises:
        UserError: data, weights or configuration cannot be used as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with quiet_lightning():
        seed_everything(config.seed, workers=True, verbose=False)
        checkpoint = _prepare_resume(config, folder)
        check_device(config.trainer)
        keep_freed_memory()
        module, weights = build_module(config)  # missing weights are noticed at once
        precision = choose_precision(config.trainer)
        datamodule = build_datamodule(config)
        datamodule.prepare_data()
        datamodule.setup()
        _begin(folder, datamodule, resumed=checkpoint is not None)
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
            trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
        if not trainer.is_global_zero:
            return None
        device = trainer.strategy.root_device
        predictor = Predictor.from_checkpoint(
            folder / CHECKPOINT, device, precision, config.trusted
        )
        predictions = _predict(config, datamodule, predictor)
    metrics = part_metrics(predictions, config.threshold)
    metrics["meta"] = {
        **describe(config, datamodule, weights, predictor.classifier),
        **history.summary(trainer),
        "calibration": calibration(predictions),
        "train_seconds": time.perf_counter() - start,
        "device": device_name(trainer),
        "precision": precision,
    }
    record = write_results(folder, asdict(config), predictions, metrics)
    return TrainedRun(record, config, datamodule, predictor)


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
        on_gpu=uses_gpu(config.trainer),
    )


def build_module(config: Config) -> tuple[CardiomegalyModule, ObtainedWeights]:
    """The model of a run with its initial weights, and where these came from.

    Raises:
        UserError: the weights are not there or do not fit, or the network or head cannot be built
            as configured.
    """
    weights = obtain(config.backbone.model, config.backbone.weights, download)
    module = CardiomegalyModule(
        asdict(config.backbone), dict(config.head), config.trainer.learning_rate, config.threshold
    )
    if weights.path is not None:
        load_weights(module.classifier.backbone.model, weights.path)
    return module, weights


def part_metrics(predictions: pd.DataFrame, threshold: float) -> dict[str, dict[str, Any]]:
    """Metrics of the validation and of the test part."""
    parts = {part: predictions[predictions["split"] == part] for part in TESTED}
    return {
        part: binary_metrics(rows["target"], rows["probability"], threshold, rows["logit"])
        for part, rows in parts.items()
    }


def calibration(predictions: pd.DataFrame) -> dict[str, Any]:
    """Platt's line on the logit, fitted on validation, which keeps its natural prevalence."""
    val = predictions[predictions["split"] == "val"]
    slope, intercept = platt_line(val["target"], val["logit"])
    return {"method": "platt", "fitted_on": "val", "slope": slope, "intercept": intercept}


def _prepare_resume(config: Config, folder: Path) -> Path | None:
    """The checkpoint to go on from, if there is one; the split is then that of the run."""
    if config.resume is None or not (folder / SPLIT).is_file():
        return None
    config.split.file = str(folder / SPLIT)
    last = folder / LAST_CHECKPOINT
    if not last.is_file():
        return None
    check_begun(folder)
    return last


@rank_zero_only
def _begin(folder: Path, datamodule: CardiomegalyDataModule, resumed: bool) -> None:
    """Record what the run is begun with, or check that it is still the same."""
    labels_sha256 = datamodule.labelled.label_file_sha256
    if resumed:
        check_same_data(folder, datamodule.split_table, labels_sha256)
        (folder / METRICS).unlink(missing_ok=True)  # from here on the run is unfinished again
    else:
        write_begun(folder, datamodule.split_table, labels_sha256)


def _predict(
    config: Config, datamodule: CardiomegalyDataModule, predictor: Predictor
) -> pd.DataFrame:
    """A row for each validation and test image, validation first."""
    tables = []
    for part, loader in zip(TESTED, datamodule.predict_dataloader(), strict=True):
        bar = tqdm(loader, desc=f"predicting {part}", disable=not config.trainer.progress_bar)
        prediction = predictor.predict_batches(bar)
        table = datamodule.parts[part][list(IMAGE_COLUMNS)].copy()
        table.insert(4, "logit", prediction.logits)
        table.insert(5, "probability", prediction.probability)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


@rank_zero_only
def _announce(
    config: Config, datamodule: CardiomegalyDataModule, trainer: Trainer, precision: str
) -> None:
    if config.data.phantom is not None:
        log.info(
            "data=phantom: a generated cohort, no patients; for NIH say data=nih data.root=FOLDER"
        )
    log.info(
        "%s rows in the label file, %s images found, %d unreadable",
        f"{datamodule.labelled.n_rows:,}",
        f"{len(datamodule.labelled.table):,}",
        len(datamodule.unreadable),
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
        "%s, weights: %s, trainable: %s; head %s; balance=%s; %s, %s",
        config.backbone.model,
        "random" if config.backbone.weights == "none" else config.backbone.weights,
        config.backbone.trainable,
        config.head_name,
        config.balance,
        device_name(trainer),
        precision,
    )
