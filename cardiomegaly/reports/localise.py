"""Judges where runs look, and boxes given, against the heart boxes of NIH's list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cardiomegaly import UserError
from cardiomegaly.data.boxes import read_boxes
from cardiomegaly.data.images import ImageFolder
from cardiomegaly.data.labels import FINDING
from cardiomegaly.evaluation.localisation import score_boxes, score_maps, summarise
from cardiomegaly.model.predictor import Predictor
from cardiomegaly.reports.evaluation_content import MapSheet
from cardiomegaly.reports.subjects import Subject

Maps = list[NDArray[np.float32]]
TRAINED = "training"
PART_NAMES = {"val": "held out", "test": "held out", "train": TRAINED}
CORNERS = ["x", "y", "width", "height"]
SHOWN, SHEET_SIZE = 8, 256


@dataclass
class Localisation:
    """Summaries (part, n_images and as `localisation.summarise`), a row an image and method,
    sheets to look at, and what was left out and why."""

    summaries: list[pd.DataFrame] = field(default_factory=list)
    images: list[pd.DataFrame] = field(default_factory=list)
    sheets: list[MapSheet] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Looking:
    """How to look.

    `boxes` is NIH's list, `given` a list of boxes to judge or None; `gradcam` None takes Grad-CAM
    where its package is installed; `fraction` of a map's range bounds its box; `seed` is that of
    the bootstrap.
    """

    boxes: Path
    given: Path | None = None
    gradcam: bool | None = None
    fraction: float = 0.5
    seed: int = 0


def localise(
    subject: Subject,
    predictors: Mapping[str, Predictor],
    folder: ImageFolder | None,
    looking: Looking,
) -> Localisation:
    """Judge maps and given boxes on the boxed hearts of a subject, training images apart.

    Raises:
        UserError: a list cannot be read, the boxes given lack an image, an
            image cannot be decoded, or Grad-CAM is wanted and not installed.
    """
    found, boxes = Localisation(), boxed_hearts(subject, looking.boxes)
    if predictors and folder is not None:
        there = np.array([folder.has(image) for image in boxes["image"]], bool)
        found.notes += (
            [f"{(~there).sum()} boxed images are not at hand."] if not there.all() else []
        )
        boxes = boxes[there]
    for part, rows in boxes.groupby("part"):
        if len(rows) < 2:
            found.notes.append(f"{part}: 1 boxed image; the baselines need two.")
            continue
        images = rows["image"].tolist()
        maps = _maps(predictors, folder, images, looking.gradcam, found.notes) if folder else {}
        true = rows[CORNERS].to_numpy(np.float64)
        scores = {name: score_maps(kept, true, looking.fraction) for name, kept in maps.items()}
        if looking.given is not None:
            scores["boxes given"] = score_boxes(_given(looking.given, images), true)
        summary = summarise(scores, true, rows["patient_id"].tolist(), looking.seed)
        summary.insert(0, "n_images", len(rows))
        summary.insert(0, "part", part)
        found.summaries.append(summary)
        found.images += [
            table.assign(image=images, part=part, method=name) for name, table in scores.items()
        ]
        if part != TRAINED and folder is not None:
            found.sheets += _sheets(maps, scores, images, true, folder)
    if boxes.empty:
        found.notes.append("No image of these predictions has a heart box.")
    return found


def boxed_hearts(subject: Subject, path: Path) -> pd.DataFrame:
    """Heart boxes of a subject's images: image, x, y, width, height, patient_id and part."""
    boxes = read_boxes(path)
    boxes = boxes[boxes["finding"] == FINDING].drop_duplicates("image")
    return boxes.merge(subject.images.replace({"part": PART_NAMES}), on="image")


def _given(path: Path, images: list[str]) -> NDArray[np.float64]:
    boxes = read_boxes(path)
    boxes = boxes[boxes["finding"] == FINDING].drop_duplicates("image").set_index("image")
    absent = [image for image in images if image not in boxes.index]
    if absent:
        raise UserError(
            f"given_boxes: {path} has no box of {len(absent)} boxed images, {absent[0]} for one; "
            "give one heart box for each"
        )
    return boxes.loc[images, CORNERS].to_numpy(np.float64)


def _maps(
    predictors: Mapping[str, Predictor],
    folder: ImageFolder,
    images: list[str],
    gradcam: bool | None,
    notes: list[str],
) -> dict[str, Maps]:
    """Maps of every image by method; what a head or a machine lacks becomes a note."""
    kept: dict[str, Maps] = {}
    wanted = find_spec("pytorch_grad_cam") is not None if gradcam is None else gradcam
    for name, predictor in predictors.items():
        suffix = f", {name}" if len(predictors) > 1 else ""
        for batch in folder.batches(images, predictor.image_size):
            attention = predictor.predict(batch).attention
            if attention is not None:
                kept.setdefault(f"attention{suffix}", []).extend(attention)
            if wanted:
                kept.setdefault(f"Grad-CAM{suffix}", []).extend(predictor.gradcam(batch))
        if f"attention{suffix}" not in kept:
            notes.append(f"The head of {name} has no attention map.")
    if predictors and not wanted:
        notes.append("Grad-CAM is left out (pip install 'cardiomegaly[explain]' brings it).")
    return kept


def _sheets(
    maps: Mapping[str, Maps],
    scores: Mapping[str, pd.DataFrame],
    images: list[str],
    boxes: NDArray[np.float64],
    folder: ImageFolder,
) -> list[MapSheet]:
    """Draw, of each method, images spread evenly from its best to its worst."""
    sheets = []
    for name, kept in maps.items():
        order = np.argsort(-scores[name]["iou"].to_numpy(), kind="stable")
        chosen = order[np.linspace(0, len(order) - 1, min(SHOWN, len(order))).astype(int)]
        titles = [f"{Path(images[at]).stem}, IoU {scores[name]['iou'][at]:.2f}" for at in chosen]
        pixels = folder.pixels([images[at] for at in chosen], SHEET_SIZE)
        sheets.append(MapSheet(name, pixels, [kept[at] for at in chosen], boxes[chosen], titles))
    return sheets
