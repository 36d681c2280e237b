"""What `metrics.json` says of a run beside its figures: all that is needed to repeat it."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig

from cardiomegaly import __version__
from cardiomegaly.config import Config
from cardiomegaly.data.datamodule import CardiomegalyDataModule
from cardiomegaly.data.split import split_hash
from cardiomegaly.model.weights import ObtainedWeights

PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "timm", "hydra-core", "albumentations",
    "pandas", "numpy", "scikit-learn",
)  # fmt: skip


def describe(
    config: Config,
    datamodule: CardiomegalyDataModule,
    weights: ObtainedWeights,
    network: torch.nn.Module,
) -> dict[str, Any]:
    """Settings, data, weights and versions of a run."""
    parameters = list(network.parameters())
    return {
        "backbone": config.backbone.name,
        "model": config.backbone.model,
        "balance": config.balance,
        "head": config.head_name,
        **{name: getattr(config, name) for name in ("loss", "optimizer", "schedule", "averaging")},
        "attention_weight": config.trainer.attention_weight,
        "region": config.backbone.region,
        "init": None if config.init.run is None else asdict(config.init),
        "seed": config.seed,
        "trainable": config.backbone.trainable,
        "features": config.features.name,
        "image_size": config.backbone.image_size,
        "cohort": config.cohort.name,
        "split": config.split.name,
        "fold": None if config.split.folds is None else config.split.fold,
        "threshold": config.threshold,
        "flips": config.flips,
        **_data(config, datamodule),
        "weights": {name: getattr(weights, name) for name in ("name", "source", "sha256")},
        "parameters": sum(p.numel() for p in parameters),
        "parameters_trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "versions": {
            "cardiomegaly": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "overrides": overrides(),
    }


def overrides() -> list[str]:
    """Hydra's words of this run; none where it was not started by Hydra."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _data(config: Config, datamodule: CardiomegalyDataModule) -> dict[str, Any]:
    labelled, unreadable = datamodule.labelled, datamodule.unreadable
    root = Path(config.data.root).expanduser().absolute()
    label_file = labelled.label_file.expanduser().absolute()
    return {
        "data": config.data.name,
        "data_root": str(root),
        # Below the folder of the data, so that a copy of that folder serves as well.
        "label_file": str(label_file.relative_to(root))
        if label_file.is_relative_to(root)
        else str(label_file),
        "label_file_sha256": labelled.label_file_sha256,
        "split_hash": split_hash(datamodule.split_table),
        "n_label_rows": labelled.n_rows,
        "n_images_found": len(labelled.table),
        "n_missing": labelled.n_missing,
        "n_ignored": labelled.n_ignored,
        "n_other_views": datamodule.n_other_views,
        "label_counts": labelled.label_counts,
        "not_in_label_file": labelled.unknown,
        "patients": config.data.patient if labelled.patients_known else "unknown",
        **{name: getattr(config.data, name) for name in ("finding", "uncertain", "blank", "fit")},
        "n_unreadable": len(unreadable),
        "unreadable": unreadable,
        **{f"n_{part}": len(table) for part, table in datamodule.parts.items()},
    }
