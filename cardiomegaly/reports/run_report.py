"""What a finished training leaves behind: predictions, metrics, plots and a closing table."""

from __future__ import annotations

import platform
import resource
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig

from cardiomegaly import __version__
from cardiomegaly.data.datamodule import CardiomegalyDataModule
from cardiomegaly.data.sampler import BatchKey
from cardiomegaly.data.split import split_hash
from cardiomegaly.evaluation.metrics import binary_metrics
from cardiomegaly.model.predictor import Prediction
from cardiomegaly.reports import plots
from cardiomegaly.training.record import METRICS, PREDICTIONS, write_csv, write_json

if TYPE_CHECKING:
    from cardiomegaly.training.run import Finished

PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "timm", "hydra-core", "albumentations",
    "torchmetrics", "pandas", "numpy",
)  # fmt: skip
SHEET = 24  # training images on the sheet
OVERLAYS = 4  # most confident right, and as many wrong, of each class


def write(run: Finished) -> None:
    """Write predictions.csv, metrics.json and plots/, and print the closing table."""
    predictions = prediction_table(run.datamodule, run.predictions)
    write_csv(run.folder / PREDICTIONS, predictions)
    metrics: dict[str, dict[str, Any]] = {}
    for part, rows in predictions.groupby("split", sort=False):
        metrics[str(part)] = binary_metrics(
            rows["target"], rows["probability"], run.config.threshold
        )
    draw(run, predictions)
    write_json(run.folder / METRICS, metrics | {"meta": describe(run)})
    print(closing_table(metrics))
    print(f"\nrun folder: {run.folder}\npictures:   {run.folder / 'plots'}")


def prediction_table(
    datamodule: CardiomegalyDataModule, predictions: dict[str, Prediction]
) -> pd.DataFrame:
    """One row for each validation and test image, validation first."""
    parts = []
    for part, prediction in predictions.items():
        columns = ["image", "patient_id", "split", "target", "view_position", "sex", "age"]
        table = datamodule.parts[part][columns].copy()
        table.insert(4, "probability", prediction.probability.round(6))
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def closing_table(metrics: dict[str, dict[str, Any]]) -> str:
    """All metrics of the validation and test parts, side by side, as text."""
    lines = ["", f"{'':<20}{'validation':>12}{'test':>12}"]
    for name in metrics["test"]:
        values = [_shown(metrics[part][name]) for part in ("val", "test")]
        lines.append(f"{name:<20}{values[0]:>12}{values[1]:>12}")
    return "\n".join(lines)


def _shown(value: float) -> str:
    if isinstance(value, float) and np.isnan(value):
        return "undefined"
    return f"{int(value)}" if float(value).is_integer() and value > 1 else f"{value:.4f}"


def describe(run: Finished) -> dict[str, Any]:
    """Everything needed to repeat the run and to compare it with others."""
    config, data, counts = run.config, run.datamodule, run.datamodule.counts
    parameters = list(run.predictor.classifier.parameters())
    return {
        "backbone": config.backbone.name,
        "model": config.backbone.model,
        "balance": config.balance,
        "head": config.head_name,
        "seed": config.seed,
        "trainable": config.backbone.trainable,
        "features": config.features.name,
        "image_size": config.backbone.image_size,
        "data": config.data.name,
        "data_root": config.data.root,
        "cohort": config.cohort.name,
        "split": config.split.name,
        "split_hash": split_hash(data.split_table),
        "label_file": data.labelled.label_file.name,
        "label_file_sha256": data.labelled.label_file_sha256,
        "n_label_rows": counts.n_label_rows,
        "n_images_found": counts.n_images_found,
        "n_missing": counts.n_missing,
        "n_unreadable": counts.n_unreadable,
        "unreadable": counts.unreadable,
        **{f"n_{part}": len(table) for part, table in data.parts.items()},
        "weights": {
            "name": run.weights.name,
            "source": run.weights.source,
            "sha256": run.weights.sha256,
        },
        "parameters": sum(p.numel() for p in parameters),
        "parameters_trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "epochs": run.epochs,
        "best_epoch": run.best_epoch,
        "monitor": config.trainer.monitor,
        "best_value": run.best_value,
        "train_seconds": run.seconds,
        "images_per_second": run.history.images_per_second,
        "peak_memory_mb": _peak_memory_mb(),
        "device": run.device,
        "precision": run.precision,
        "versions": {
            "cardiomegaly": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "overrides": _overrides(),
    }


def _overrides() -> list[str]:
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _peak_memory_mb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes or in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def draw(run: Finished, predictions: pd.DataFrame) -> None:
    """Draw the plots of a run into plots/."""
    folder = run.folder / "plots"
    curves = {
        name: (rows["target"].to_numpy(), rows["probability"].to_numpy())
        for name, rows in predictions.groupby("split", sort=False)
    }
    named = {"validation": curves["val"], "test": curves["test"]}
    plots.plot_history(pd.DataFrame(run.history.rows), folder / "history.png", run.best_epoch)
    plots.plot_roc(named, folder / "roc.png", run.config.threshold)
    plots.plot_precision_recall(named, folder / "precision_recall.png", run.config.threshold)
    plots.plot_confusion_matrix(
        *curves["test"], run.config.threshold, folder / "confusion_matrix.png"
    )
    key = next(iter(run.datamodule.training_batches()))
    batch = run.datamodule.dataset("train", augmented=True)[key]
    titles = ["cardiomegaly" if target else "without" for target in batch["target"][:SHEET]]
    plots.plot_image_sheet(
        batch["image"][:SHEET, 0].numpy(), titles, folder / "training_images.png"
    )
    _draw_attention(run, curves["test"])


def _draw_attention(run: Finished, test: tuple[np.ndarray, np.ndarray]) -> None:
    chosen = most_confident(*test, run.config.threshold, OVERLAYS)
    dataset = run.datamodule.dataset("test")
    for name, positions in chosen.items():
        if not len(positions):
            continue
        images = dataset[BatchKey(positions, seed=0)]["image"]
        attention = run.predictor.predict(images).attention
        if attention is None:
            return
        titles = [f"label {int(test[0][i])}, probability {test[1][i]:.2f}" for i in positions]
        path = run.folder / "plots" / f"attention_{name}.png"
        plots.plot_attention_overlays(images[:, 0].numpy(), attention, titles, path)


def most_confident(
    target: np.ndarray, probability: np.ndarray, threshold: float, n: int
) -> dict[str, np.ndarray]:
    """Positions of the images that the model is surest of, right and wrong, positives first."""
    positive = probability >= threshold
    chosen: dict[str, np.ndarray] = {}
    for name, right in (("right", True), ("wrong", False)):
        picked = []
        for called in (True, False):
            positions = np.flatnonzero((positive == called) & ((target == 1) == (called == right)))
            sureness = probability[positions] if called else 1 - probability[positions]
            picked.append(positions[np.argsort(-sureness, kind="stable")][:n])
        chosen[name] = np.concatenate(picked)
    return chosen
