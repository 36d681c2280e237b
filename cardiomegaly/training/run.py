"""One run from its configuration to its folder: data, fit, test, results."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning import Callback, seed_everything
from tqdm.contrib.logging import logging_redirect_tqdm

from cardiomegaly import UserError
from cardiomegaly.config import HEART, Config
from cardiomegaly.data.datamodule import CardiomegalyDataModule
from cardiomegaly.data.download import download
from cardiomegaly.data.labels import LabelledImages
from cardiomegaly.model.memory import keep_freed_memory
from cardiomegaly.model.predictor import Predictor, load_classifier, load_parts
from cardiomegaly.model.refusal import Refusal
from cardiomegaly.model.weights import (
    HUB,
    MissingWeightsError,
    ObtainedWeights,
    digest,
    hub_network,
    load_weights,
    obtain,
)
from cardiomegaly.training.begun import check_same_data, read_begun, write_begun
from cardiomegaly.training.checkpoints import choose_checkpoint
from cardiomegaly.training.device import (
    check_device,
    choose_precision,
    device_name,
    uses_gpu,
)
from cardiomegaly.training.features import choose_features, reuse_features
from cardiomegaly.training.files import replacing
from cardiomegaly.training.module import CardiomegalyModule
from cardiomegaly.training.optimisation import build_optimizer, build_schedule
from cardiomegaly.training.progress import announce, in_terminal
from cardiomegaly.training.provenance import describe
from cardiomegaly.training.record import (
    CHECKPOINT,
    METRICS,
    REFUSAL,
    SPLIT,
    Run,
    checkpoint_of,
    write_results,
)
from cardiomegaly.training.refusal_fitting import fit_refusal
from cardiomegaly.training.results import calibration, part_metrics, predict
from cardiomegaly.training.trainer import (
    build_trainer,
    end_loggers,
    find_batch_size,
    quiet_lightning,
)

log = logging.getLogger(__name__)
RANDOM_INSTEAD = (
    "random weights, as the pretrained ones could not be had: its figures show that the program "
    "works, and nothing else"
)
FALLBACK_BATCH = 24  # images, where `trainer.batch_size=auto` has not yet found its size


@dataclass(frozen=True)
class TrainedRun:
    """A finished training.

    Attributes:
        record: what its folder holds, as `record.read_run` reads it.
        config: its configuration.
        datamodule: its data.
        predictor: its best checkpoint, on the device of the training.
        refusal: what refuses unfit images, None where it had too few to fit that.
    """

    record: Run
    config: Config
    datamodule: CardiomegalyDataModule
    predictor: Predictor
    refusal: Refusal | None


def train(
    config: Config,
    folder: Path,
    callbacks: Sequence[Callback] = (),
    images: LabelledImages | None = None,
) -> TrainedRun | None:
    """Train, test the best checkpoint and write the run folder.

    Args:
        config: of the run.
        folder: of the run.
        callbacks: Lightning's, besides those of every training.
        images: of its data, if they have been read already.

    Returns:
        The run; None in all but the first process of a distributed training.

    Raises:
        UserError: data, weights or configuration cannot be used as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    config.trainer.progress_bar = config.trainer.progress_bar and in_terminal()
    with quiet_lightning():
        checkpoint = _prepare_resume(config, folder)  # builds a network, so before the seed is set
        seed_everything(config.seed, workers=True, verbose=False)
        check_device(config.trainer)
        keep_freed_memory()
        datamodule = build_datamodule(config)
        if images is not None:
            datamodule.labelled = images
        if config.backbone.region == HEART:
            datamodule.prepare_data()
            datamodule.setup()
            config.backbone.region = datamodule.heart_region()
        module, weights = build_module(config)  # missing weights are noticed at once
        precision = choose_precision(config.trainer)
        trainer, history = build_trainer(config, folder, precision, callbacks)
        datamodule.prepare_data()
        datamodule.setup()
        if config.trainer.attention_weight:
            datamodule.draw_hearts()
        if config.features.name == "auto":
            config.features.name = choose_features(
                config, datamodule, module.classifier.backbone, precision
            )
        _begin(folder, config, datamodule, weights, resumed=checkpoint is not None)
        module.to(memory_format=torch.channels_last)
        if config.trainer.compile:
            module.classifier.backbone.compile()
        if config.features.name == "reuse":
            device = trainer.strategy.root_device
            reuse_features(config, datamodule, module.classifier.backbone, device, precision)
        with quiet_lightning(module), _logging_beside_bar(config):
            if config.trainer.batch_size == "auto":
                find_batch_size(trainer, module, datamodule)
            announce(config, datamodule, module, weights, trainer, folder)
            try:
                trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
            finally:
                end_loggers(trainer)
        if not trainer.is_global_zero:
            return None
        device = trainer.strategy.root_device
        datamodule.use_features({})  # tested as it is used: from images, in float32
        predictor = Predictor.from_checkpoint(folder / CHECKPOINT, device, trust=config.trusted)
        predictions = predict(datamodule, predictor, config.flips, config.trainer.progress_bar)
        refusal = fit_refusal(datamodule, predictor, config.seed)
        if refusal is not None:
            with replacing(folder / REFUSAL) as file:
                file.write(refusal.to_bytes())
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
    return TrainedRun(record, config, datamodule, predictor, refusal)


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
    weights, backbone = _obtain_weights(config), config.backbone
    if backbone.model.startswith(HUB):  # a checkpoint is to be read without a network
        model, options = hub_network(backbone.model, download)
        backbone = replace(backbone, model=model, options=options | (backbone.options or {}))
    module = CardiomegalyModule(
        backbone=asdict(backbone),
        head=config.head,
        loss=config.loss,
        optimizer=config.optimizer,
        schedule=config.schedule,
        learning_rate=config.trainer.learning_rate,
        layer_decay=config.trainer.layer_decay,
        attention_weight=config.trainer.attention_weight,
        monitor=config.trainer.monitor,
        threshold=config.threshold,
    )
    if config.trainer.attention_weight and not module.classifier.attends:
        raise UserError(
            f"trainer.attention_weight={config.trainer.attention_weight}: the head "
            f"{config.head_name} has no attention map; use head=gwap"
        )
    optimizer = build_optimizer(module.hparams, module.classifier)  # mistakes are noticed at once
    if config.schedule:
        build_schedule(module.hparams, optimizer, steps=2, epochs=2)
    if weights.path is not None and config.init.backbone_from is None:
        load_weights(module.classifier.backbone.model, weights.path)
    if config.init.run is not None:
        load_parts(module.classifier, checkpoint_of(config.init.run), config.init.parts)
    return module, weights


def _obtain_weights(config: Config) -> ObtainedWeights:
    """What the backbone starts from."""
    if config.init.backbone_from is not None:
        path = checkpoint_of(config.init.backbone_from)
        name = path.parent.parent.name if path.name == CHECKPOINT.name else path.name
        return ObtainedWeights(path, name, str(path), digest(path, "sha256"))
    try:
        return obtain(config.backbone.model, config.backbone.weights, download)
    except MissingWeightsError as missing:
        if config.data.phantom is None or not config.data.phantom.random_weights:
            raise
        log.warning("%s (%s)", RANDOM_INSTEAD, missing)
        return ObtainedWeights(None, "none", RANDOM_INSTEAD, None)


def _prepare_resume(config: Config, folder: Path) -> Path | None:
    """The checkpoint to go on from, if there is one; the split is then that of the run.

    A job that SLURM requeued goes on too, from its last epoch: Lightning saved it in the middle
    of one, where the epoch's data would begin anew.
    """
    for saved in folder.glob("hpc_ckpt_*.ckpt"):
        saved.unlink(missing_ok=True)
    requeued = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    checkpoint = choose_checkpoint(folder) if config.resume is not None or requeued else None
    if checkpoint is not None:
        load_classifier(folder / CHECKPOINT, config.trusted)  # refused now, not after the training
        begun = read_begun(folder)
        config.split.file = str(folder / SPLIT)
        if config.features.name == "auto":
            config.features.name = begun["features"]
        if begun["weights"] == "none":  # even if pretrained ones have come meanwhile
            config.backbone.weights = "none"
        log.info("going on from %s", checkpoint)
    elif config.resume is not None:
        log.info("no epoch was finished in %s: the run begins anew", folder)
    return checkpoint


@rank_zero_only
def _begin(
    folder: Path,
    config: Config,
    datamodule: CardiomegalyDataModule,
    weights: ObtainedWeights,
    resumed: bool,
) -> None:
    """Record what the run is begun with, or check that it is still the same."""
    labels_sha256 = datamodule.labelled.label_file_sha256
    if resumed:
        check_same_data(folder, datamodule.split_table, labels_sha256)
    else:
        split, features = datamodule.split_table, config.features.name
        write_begun(folder, split, labels_sha256, features, weights.name)
    (folder / METRICS).unlink(missing_ok=True)  # from here on the run is unfinished


def _logging_beside_bar(config: Config) -> AbstractContextManager[None]:
    """Keep log lines and the progress bar from writing over each other."""
    return logging_redirect_tqdm() if config.trainer.progress_bar else nullcontext()
