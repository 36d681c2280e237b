"""What one looks at after a training: the plots of its folder and a closing table."""

from __future__ import annotations

from typing import Any

import numpy as np

from cardiomegaly.data.sampler import BatchKey
from cardiomegaly.reports import plots
from cardiomegaly.training.run import TrainedRun

SHEET = 24  # training images on the sheet
OVERLAYS = 4  # most confident right, and as many wrong, of each class


def write(run: TrainedRun) -> None:
    """Draw plots/ and print the closing table."""
    draw(run)
    print(closing_table(run.record.metrics))
    if (weights := run.record.meta["weights"])["name"] == "none":
        print(f"\nweights: {weights['source']}")
    folder = run.record.folder
    print(f"\nrun folder: {folder}\npictures:   {folder / 'plots'}")


def closing_table(metrics: dict[str, dict[str, Any]]) -> str:
    """All metrics of the validation and test parts, side by side, as text."""
    lines = ["", f"{'':<20}{'validation':>12}{'test':>12}"]
    for name in metrics["test"]:
        values = [_cell(metrics[part][name]) for part in ("val", "test")]
        lines.append(f"{name:<20}{values[0]:>12}{values[1]:>12}")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None or np.isnan(value):
        return "undefined"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def draw(run: TrainedRun) -> None:
    """Draw the plots of a run into plots/."""
    folder, threshold = run.record.folder / "plots", run.config.threshold
    val, test = (run.record.part(part) for part in ("val", "test"))
    curves = {
        "validation": (val["target"].to_numpy(), val["probability"].to_numpy()),
        "test": (test["target"].to_numpy(), test["probability"].to_numpy()),
    }
    plots.plot_history(run.record.history, folder / "history.png", run.record.meta["best_epoch"])
    plots.plot_roc(curves, folder / "roc.png", threshold)
    plots.plot_precision_recall(curves, folder / "precision_recall.png", threshold)
    plots.plot_confusion_matrix(*curves["test"], threshold, folder / "confusion_matrix.png")
    key = next(iter(run.datamodule.training_batches()))
    batch = run.datamodule.dataset("train", augmented=True)[key]
    titles = ["cardiomegaly" if target else "without" for target in batch["target"][:SHEET]]
    plots.plot_image_sheet(
        batch["image"][:SHEET, 0].numpy(), titles, folder / "training_images.png"
    )
    _draw_attention(run, *curves["test"])


def _draw_attention(run: TrainedRun, target: np.ndarray, probability: np.ndarray) -> None:
    chosen = most_confident(target, probability, run.config.threshold, OVERLAYS)
    dataset = run.datamodule.dataset("test")
    for name, positions in chosen.items():
        if not len(positions):
            continue
        images = dataset[BatchKey(positions, seed=0)]["image"]
        attention = run.predictor.predict(images).attention
        if attention is None:
            return
        titles = [f"label {int(target[i])}, probability {probability[i]:.2f}" for i in positions]
        path = run.record.folder / "plots" / f"attention_{name}.png"
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
