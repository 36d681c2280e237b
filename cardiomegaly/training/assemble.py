"""From a configuration to the objects that it describes, and back from a run folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from cardiomegaly import UserError
from cardiomegaly import config as configuration
from cardiomegaly.config import Config
from cardiomegaly.data.datamodule import CardiomegalyDataModule
from cardiomegaly.model.classifier import CardiomegalyClassifier
from cardiomegaly.model.weights import ObtainedWeights, load_weights, obtain
from cardiomegaly.training import record

FALLBACK_BATCH = 24  # images, where `trainer.batch_size=auto` has not yet found its size


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


def build_classifier(config: Config) -> tuple[CardiomegalyClassifier, ObtainedWeights]:
    """The model of a run with its initial weights, and where these came from.

    Raises:
        UserError: the weights do not fit, or the network or head cannot be built as configured.
        UserError: the weights are not there.
    """
    weights = obtain(config.backbone.model, config.backbone.weights)
    classifier = CardiomegalyClassifier(
        asdict(config.backbone), dict(config.head), config.trainer.learning_rate
    )
    if weights.path is not None:
        load_weights(classifier.backbone.model, weights.path)
    return classifier, weights


def load_run(folder: Path) -> tuple[Config, CardiomegalyDataModule, CardiomegalyClassifier]:
    """The configuration, data (prepared, on the run's own split) and best model of a finished run.

    Raises:
        FileNotFoundError, ValueError: not a finished run folder, or its data are gone.
    """
    run = record.read_run(folder)
    config = configuration.load(folder / record.CONFIG)
    config.split.file = str(folder / record.SPLIT)
    datamodule = build_datamodule(config)
    datamodule.prepare_data()
    datamodule.setup()
    classifier = load_classifier(run.checkpoint)
    return config, datamodule, classifier


def load_classifier(checkpoint: Path) -> CardiomegalyClassifier:
    """The model of a checkpoint, in eval mode on the CPU.

    Raises:
        UserError: no such file.
    """
    if not checkpoint.is_file():
        raise UserError(f"checkpoint {checkpoint} does not exist")
    classifier = CardiomegalyClassifier.load_from_checkpoint(checkpoint, map_location="cpu")
    return classifier.eval()
