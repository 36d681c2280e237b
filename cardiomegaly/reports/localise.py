"""Judges where runs look, and boxes given, against the heart boxes of NIH's list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cardiomegaly import UserError
from cardiomegaly.data.boxes import HEART, NUMBERS, find_boxes, read_boxes
from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.evaluation.localisation import score_boxes, score_maps, summarise
from cardiomegaly.training.record import Run

ATTENTION, GRADCAM = "attention", "Grad-CAM"
TRAINED, HELD_OUT = "training", "held out"
PART_NAMES = {"val": HELD_OUT, "test": HELD_OUT, "train": TRAINED}
COLUMNS = ["part", "n_images", "method", "metric", "value"]

Maps = dict[str, NDArray[np.float32]]  # by image


@dataclass
class Localisation:
    """Where maps look and boxes lie.

    `summary` has part, n_images and the columns of `localisation.summarise`, `images` a row an
    image and method with the image's true box; both are empty where nothing was judged. `maps` are
    by method and image. `notes` say what was left out.
    """

    summary: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS))
    images: pd.DataFrame = field(default_factory=pd.DataFrame)
    maps: dict[str, Maps] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def pointing(self) -> dict[str, Any] | None:
        """How often the attention's highest point lies in the heart box on held-out images.

        A row of `summary` with `blind`, the figure of its best baseline; None if not measured.
        """
        rows = self.summary.set_index("method")
        rows = rows[(rows["part"] == HELD_OUT) & (rows["metric"] == "pointing")]
        for method in rows.index[rows.index.str.startswith(ATTENTION)]:
            row = rows.loc[method]
            blind = rows.loc[row["best_baseline"], "value"]
            return row.to_dict() | {"method": method, "blind": blind}
        return None


def localise(
    images: pd.DataFrame,
    runs: Mapping[str, Run],
    folder: ImageFolder | None,
    *,
    boxes: Path | None = None,
    given_boxes: Path | None = None,
    gradcam: bool | None,
    fraction: float,
    device: str,
) -> Localisation:
    """Judge maps and given boxes on the boxed hearts among images, training images by themselves.

    Args:
        images: image, patient_id and part of what the models may have seen.
        runs: by name, those whose maps are judged.
        folder: where the images are, None where they are not at hand.
        boxes: NIH's list or VinDr's table; None for the one among the images.
        given_boxes: a list like NIH's, whose boxes are judged as well.
        gradcam: judge Grad-CAM too; None where its package is installed.
        fraction: of a map's range, above which its box lies.
        device: for the maps: auto, cpu or cuda.

    Raises:
        UserError: a list that is missing or not one, or boxed images without a given box.
    """
    result = Localisation()
    others = {run.meta.get("finding", HEART) for run in runs.values()} - {HEART}
    if others:
        return Localisation(notes=[f"heart boxes say nothing of {', '.join(others)}"])
    if boxes is None and folder is not None:
        boxes = find_boxes(folder.root)
    if boxes is None:
        result.notes.append("no list of boxes is at hand (boxes=FILE)")
        return result
    hearts = boxed_hearts(images, boxes, folder)
    if hearts.empty:
        result.notes.append("no image of these predictions has a heart box")
    elif runs and folder is not None:
        at_hand = np.array([folder.has(image) for image in hearts["image"]])
        if not at_hand.all():
            result.notes.append(f"{(~at_hand).sum()} boxed images are not at hand")
        hearts = hearts[at_hand]
        if gradcam is None and find_spec("pytorch_grad_cam") is None:
            gradcam = False
            result.notes.append("Grad-CAM needs pip install 'cardiomegaly[explain]'")
        names = hearts["image"].tolist()
        result.maps = _maps(runs, folder, names, gradcam is not False, device, result.notes)
        if result.maps and not any(method.startswith(ATTENTION) for method in result.maps):
            result.notes.append("the head has no attention map")
    summaries, tables = [result.summary], [result.images]
    for part, rows in hearts.groupby("part"):
        if len(rows) < 2:
            result.notes.append(f"{part}: 1 boxed image; the baselines need two")
            continue
        true = rows[NUMBERS].to_numpy(np.float64)
        scores = {
            method: score_maps([maps[image] for image in rows["image"]], true, fraction)
            for method, maps in result.maps.items()
        }
        if given_boxes is not None:
            scores["boxes given"] = score_boxes(_given(given_boxes, rows["image"]), true)
        if scores:
            summary = summarise(scores, true, rows["patient_id"].tolist())
            summaries.append(summary.assign(part=part, n_images=len(rows)))
            known = rows[["image", "part", *NUMBERS]].reset_index(drop=True)
            tables += [known.join(table).assign(method=name) for name, table in scores.items()]
    result.summary = pd.concat(summaries[1:] or summaries, ignore_index=True)
    result.images = pd.concat(tables[1:] or tables, ignore_index=True)
    return result


def boxed_hearts(
    images: pd.DataFrame, path: Path, folder: ImageFolder | None = None
) -> pd.DataFrame:
    """Images that have a heart box in a list: their columns, with x, y, width, height."""
    boxes = read_boxes(path, folder)
    boxes = boxes[boxes["finding"] == HEART].drop_duplicates("image")
    return boxes.merge(images.replace({"part": PART_NAMES}), on="image")


def _given(path: Path, images: pd.Series) -> NDArray[np.float64]:
    boxes = boxed_hearts(pd.DataFrame({"image": images, "part": ""}), path).set_index("image")
    absent = images[~images.isin(boxes.index)]
    if len(absent):
        raise UserError(
            f"given_boxes: {path} has no box of {len(absent)} boxed images, {absent.iloc[0]} for "
            "one; give one heart box for each"
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
    """Maps by method and image; a model or image that cannot be read is a note."""
    # Networks and their libraries take seconds and most of a GiB: only where they are needed.
    from cardiomegaly.model.predictor import Predictor, choose_device

    maps: dict[str, list[NDArray[np.float32]]] = {}
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
    return {method: dict(zip(images, every, strict=True)) for method, every in maps.items()}
