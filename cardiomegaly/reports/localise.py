"""Judges where runs look, and boxes given, against the heart boxes of NIH's list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cardiomegaly import UserError
from cardiomegaly.data.boxes import NUMBERS, read_boxes
from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.evaluation.localisation import score_boxes, score_maps, summarise
from cardiomegaly.training.record import Run

BOX_LIST = "BBox_List_2017.csv"
FINDING = "Cardiomegaly"
ATTENTION, GRADCAM = "attention", "Grad-CAM"
TRAINED, HELD_OUT = "training", "held out"
PART_NAMES = {"val": HELD_OUT, "test": HELD_OUT, "train": TRAINED}
COLUMNS = ["part", "n_images", "method", "metric", "value"]
SHEET, SHEET_SIZE = 8, 256

Maps = list[NDArray[np.float32]]


@dataclass(frozen=True)
class MapSheet:
    """Images (n, H, W) under one method's maps, with true boxes (n, 4) and titles."""

    method: str
    images: NDArray[np.uint8]
    maps: Sequence[NDArray[np.floating]]
    boxes: NDArray[np.float64]
    titles: list[str]


@dataclass
class Localisation:
    """Where maps look and boxes lie.

    `summary` has part, n_images and the columns of `localisation.summarise`, `images` a row an
    image and method; both are empty where nothing was judged. `notes` say what was left out.
    """

    summary: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS))
    images: pd.DataFrame = field(default_factory=pd.DataFrame)
    sheets: list[MapSheet] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def localise(
    images: pd.DataFrame,
    runs: Mapping[str, Run],
    folder: ImageFolder | None,
    *,
    boxes: Path | None = None,
    given_boxes: Path | None = None,
    gradcam: bool | None,
    fraction: float,
    resamples: int,
    seed: int,
    device: str,
) -> Localisation:
    """Judge maps and given boxes on the boxed hearts among images, training images by themselves.

    Args:
        images: image, patient_id and part of what the models may have seen.
        runs: by name, those whose maps are judged.
        folder: where the images are, None where they are not at hand.
        boxes: NIH's list; None for the one among the images.
        given_boxes: a list of boxes to judge.
        gradcam: judge Grad-CAM; None where its package is installed.
        fraction: of a map's range, above which its box lies.
        resamples, seed: of the bootstrap over patients.
        device: auto, cpu or cuda.

    Raises:
        UserError: a list cannot be read, the boxes given lack an image, an image cannot be
            decoded, a checkpoint cannot be read, or Grad-CAM is wanted and not installed.
    """
    if boxes is None and folder is not None and (folder.root / BOX_LIST).is_file():
        boxes = folder.root / BOX_LIST
    if boxes is None:
        return Localisation(notes=["no list of boxes is at hand (say boxes=FILE or images=FOLDER)"])
    if not runs and given_boxes is None:
        return Localisation(notes=["predictions come without maps; given_boxes=FILE judges boxes"])
    result, hearts = Localisation(), boxed_hearts(images, boxes)
    summaries, rows_of_images = [], []
    if hearts.empty:
        result.notes.append("no image of these predictions has a heart box")
    maps: dict[str, Maps] = {}
    if runs and folder is not None:
        at_hand = np.array([folder.has(image) for image in hearts["image"]], bool)
        if not at_hand.all():
            result.notes.append(f"{(~at_hand).sum()} boxed images are not at hand")
        hearts = hearts[at_hand].reset_index(drop=True)
        if gradcam is None and find_spec("pytorch_grad_cam") is None:
            gradcam = False
            result.notes.append("Grad-CAM needs pip install 'cardiomegaly[explain]'")
        names = hearts["image"].tolist()
        maps = _maps(runs, folder, names, gradcam is not False, device, result.notes)
        if maps and not any(method.startswith(ATTENTION) for method in maps):
            result.notes.append("the head has no attention map")
    for part, rows in hearts.groupby("part"):
        if len(rows) < 2:
            result.notes.append(f"{part}: 1 boxed image; the baselines need two")
            continue
        names, true = rows["image"].tolist(), rows[NUMBERS].to_numpy(np.float64)
        own = {method: [every[row] for row in rows.index] for method, every in maps.items()}
        scores = {method: score_maps(every, true, fraction) for method, every in own.items()}
        if given_boxes is not None:
            scores["boxes given"] = score_boxes(_given(given_boxes, names), true)
        if not scores:
            continue
        summary = summarise(scores, true, rows["patient_id"].tolist(), resamples, seed)
        summaries.append(summary.assign(part=part, n_images=len(rows)))
        rows_of_images += [
            table.assign(image=names, part=part, method=name) for name, table in scores.items()
        ]
        if part == HELD_OUT and folder is not None:
            result.sheets += [
                _sheet(method, every, scores[method]["iou"].to_numpy(), names, true, folder)
                for method, every in own.items()
            ]
    if summaries:
        result.summary = pd.concat(summaries, ignore_index=True)
        result.images = pd.concat(rows_of_images, ignore_index=True)
    return result


def boxed_hearts(images: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Images that have a heart box in a list: their columns, with x, y, width, height."""
    boxes = read_boxes(path)
    boxes = boxes[boxes["finding"] == FINDING].drop_duplicates("image")
    return boxes.merge(images.replace({"part": PART_NAMES}), on="image")


def _given(path: Path, images: list[str]) -> NDArray[np.float64]:
    boxes = boxed_hearts(pd.DataFrame({"image": images, "part": ""}), path).set_index("image")
    absent = [image for image in images if image not in boxes.index]
    if absent:
        raise UserError(
            f"given_boxes: {path} has no box of {len(absent)} boxed images, {absent[0]} for one; "
            "give one heart box for each"
        )
    return boxes.loc[images, NUMBERS].to_numpy(np.float64)


def _maps(
    runs: Mapping[str, Run],
    folder: ImageFolder,
    images: list[str],
    gradcam: bool,
    device: str,
    notes: list[str],
) -> dict[str, Maps]:
    """Maps of every image by method; a model or image that cannot be read is a note."""
    # Networks and their libraries take seconds and most of a GiB: only where they are needed.
    from cardiomegaly.model.predictor import Predictor, choose_device

    maps: dict[str, Maps] = {}
    target = choose_device(device)
    for name, run in runs.items():
        try:
            predictor = Predictor.from_checkpoint(run.checkpoint, target)
            batches = list(folder.batches(images, predictor.image_size))
        except UserError as error:
            notes.append(str(error))
            continue
        suffix = f", {name}" if len(runs) > 1 else ""
        for pixels in batches:
            attention = predictor.predict(pixels).attention
            if attention is not None:
                maps.setdefault(f"{ATTENTION}{suffix}", []).extend(attention)
            if gradcam:
                maps.setdefault(f"{GRADCAM}{suffix}", []).extend(predictor.gradcam(pixels))
    return maps


def _sheet(
    method: str,
    maps: Maps,
    iou: NDArray[np.float64],
    images: list[str],
    boxes: NDArray[np.float64],
    folder: ImageFolder,
) -> MapSheet:
    """Images spread evenly from a method's best to its worst."""
    order = np.argsort(-iou, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(SHEET, len(order))).astype(int)]
    titles = [f"{Path(images[place]).stem}, IoU {iou[place]:.2f}" for place in chosen]
    pixels = folder.pixels([images[place] for place in chosen], SHEET_SIZE)
    return MapSheet(method, pixels, [maps[place] for place in chosen], boxes[chosen], titles)
