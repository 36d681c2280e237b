"""What one looks at after a training: the plots of its folder and a closing table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import ConfusionMatrixDisplay

from cardiomegaly.data.sampler import BatchKey
from cardiomegaly.reports.image_sheets import plot_images, plot_maps
from cardiomegaly.reports.model_card import write_card
from cardiomegaly.reports.plots import INK, drawing, plot_epochs, plot_ranking, save_note
from cardiomegaly.training.record import MODEL_CARD
from cardiomegaly.training.run import TrainedRun

SHEET = 24  # training images on the sheet
OVERLAYS = 4  # most confident right, and as many wrong, of each class


def write(run: TrainedRun) -> None:
    """Draw plots/ and print the closing table."""
    draw(run)
    write_card(run.record, run.refusal, run.record.folder / MODEL_CARD)
    print(closing_table(run.record.metrics))
    if (weights := run.record.meta["weights"])["name"] == "none":
        print(f"\nweights: {weights['source']}")
    folder = run.record.folder
    print(f"\nrun folder: {folder}\npictures:   {folder / 'plots'}")


def closing_table(metrics: dict[str, dict[str, Any]]) -> str:
    """All metrics of the validation and test parts, side by side, as text."""
    parts = {"validation": metrics["val"], "test": metrics["test"]}
    columns = {
        title: {name: _figure(part[name]) for name in metrics["test"]}
        for title, part in parts.items()
    }
    return "\n" + pd.DataFrame(columns).to_string(col_space=12)


def _figure(value: float | None) -> str:
    if value is None or np.isnan(value):
        return "undefined"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def draw(run: TrainedRun) -> None:
    """Draw the plots of a run into plots/."""
    folder, threshold = run.record.folder / "plots", run.config.threshold
    finding = run.config.data.finding.lower()
    val, test = (run.record.part(part) for part in ("val", "test"))
    curves = {
        name: (part["target"], part["probability"])
        for name, part in (("validation", val), ("test", test))
    }
    history = run.record.history.set_index("epoch")
    panels = {
        title: {name: history[column] for name, column in lines.items() if column in history}
        for title, lines in {
            "loss": {"validation": "val/loss", "training": "train/loss"},
            "AUROC": {"validation": "val/auroc"},
        }.items()
    }
    plot_epochs(panels, folder / "history.png", best_epoch=run.record.meta["best_epoch"])
    plot_ranking(curves, folder, threshold)
    plot_confusion_matrix(*curves["test"], threshold, folder / "confusion_matrix.png", finding)
    key = next(iter(run.datamodule.training_batches()))
    batch = run.datamodule.dataset("train", augmented=True)[key]
    titles = [finding if target else "without" for target in batch["target"][:SHEET]]
    plot_images(batch["image"][:SHEET, 0].numpy(), titles, folder / "training_images.png")
    for name, rows in most_confident(test, threshold, OVERLAYS).items():
        if rows.empty:
            continue
        images = run.datamodule.dataset("test")[BatchKey(np.array(rows.index), seed=0)]["image"]
        attention = run.predictor.predict(images).attention
        if attention is not None:
            titles = [
                f"label {target}, probability {probability:.2f}"
                for target, probability in zip(rows["target"], rows["probability"], strict=True)
            ]
            plot_maps(images[:, 0].numpy(), attention, titles, folder / f"attention_{name}.png")


def plot_confusion_matrix(
    target: npt.ArrayLike,
    probability: npt.ArrayLike,
    threshold: float,
    path: Path | str,
    finding: str,
) -> None:
    """Draw the counts of the four outcomes at a threshold, shaded by their share of the row."""
    classes = (f"no {finding}", finding)
    truth, called = np.asarray(target).astype(int), np.asarray(probability) >= threshold
    if not len(truth):
        return save_note("no images", path)
    with drawing(path, 4.8, 4.2) as (axes,):
        display = ConfusionMatrixDisplay.from_predictions(
            truth, called.astype(int), labels=[0, 1], normalize="true", display_labels=classes,
            cmap="Blues", values_format=".1%", colorbar=False, ax=axes,
            im_kw={"vmin": 0, "vmax": 1},
        )  # fmt: skip
        for (row, column), text in np.ndenumerate(display.text_):
            count = int(((truth == row) & (called == column)).sum())
            text.set_text(f"{count:,}\n{text.get_text()} of row")
        axes.set_yticks([0, 1], classes, rotation=90, va="center")
        axes.set(xlabel=f"called at a threshold of {threshold:.3f}", ylabel="label")
        axes.tick_params(length=0, colors=INK)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
    return None


def most_confident(test: pd.DataFrame, threshold: float, n: int) -> dict[str, pd.DataFrame]:
    """The rows that the model is surest of, right and wrong, n called positive before n others."""
    table = test.assign(called=test["probability"] >= threshold)
    table["sureness"] = table["probability"].where(table["called"], 1 - table["probability"])
    table = table.sort_values(["called", "sureness"], ascending=False, kind="stable")
    right = table["called"] == (table["target"] == 1)
    return {
        name: table[chosen].groupby("called", sort=False).head(n)
        for name, chosen in (("right", right), ("wrong", ~right))
    }
