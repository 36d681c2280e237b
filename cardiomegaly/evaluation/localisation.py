"""Localisation: does a map or a box find the heart better than a box that never looks?

A heart lies where hearts lie, so every figure stands beside three baselines that do not see the
image: the mean of the other boxes, that box at the centre of the image, and that box at half its
size. What counts is the lift over the best of them.

Boxes are x, y (upper left corner), width, height in the 1024-pixel frame of NIH's list. A saliency
map covers the whole image, whatever its size; it is scaled bilinearly and negative values are cut
to 0. Its box is the frame of the largest connected region at or above a fraction of the way from
its minimum to its maximum, since an attention map need not fall to 0 anywhere. Its point is the
centre of all pixels that reach the maximum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from cardiomegaly import UserError
from cardiomegaly.evaluation.influence import mean_statistic
from cardiomegaly.evaluation.intervals import Patients, interval, paired_difference
from cardiomegaly.evaluation.metrics import Array

FRAME = 1024
# Maps are scaled to this many pixels a side: a quarter of the frame, finer than any map here.
GRID = 256
CUTS = (0.1, 0.3, 0.5, 0.7)


def area(boxes: Array) -> Array:
    """Width by height, row by row: (n, 4) to (n,)."""
    return np.asarray(boxes[..., 2:].prod(axis=-1))


def intersection(one: Array, two: Array) -> Array:
    """Area that boxes share, row by row: (n, 4) and (n, 4) to (n,)."""
    low = np.maximum(one[..., :2], two[..., :2])
    high = np.minimum(one[..., :2] + one[..., 2:], two[..., :2] + two[..., 2:])
    return np.asarray(np.clip(high - low, 0, None).prod(axis=-1))


def iou(boxes: Array, true: Array) -> Array:
    """Intersection over union, row by row."""
    shared = intersection(boxes, true)
    return shared / (area(boxes) + area(true) - shared)


def iobb(boxes: Array, true: Array) -> Array:
    """Intersection over the box judged: 1 for any box inside the true one.

    Source: Wang et al., "ChestX-ray8", CVPR 2017.
    """
    return intersection(boxes, true) / area(boxes)


def score_boxes(boxes: Array, true: Array, points: Array | None = None) -> pd.DataFrame:
    """Judge a box (and a point, by default the box's centre) for each image.

    Args:
        boxes, true: (n, 4) boxes in the 1024-pixel frame.
        points: (n, 2) x and y.

    Returns:
        A row an image: pointing (the point lies in the true box), iou, iobb, iou>0.1 and so on,
        and energy (the share of the box judged that lies in the true one).

    Raises:
        UserError: shapes that are not (n, 4), or a box without area.
    """
    boxes, true = _boxes("judged", boxes), _boxes("true", true)
    if boxes.shape != true.shape:
        raise UserError(f"boxes: one for each image is needed, got {len(boxes)} and {len(true)}")
    points = boxes[:, :2] + boxes[:, 2:] / 2 if points is None else points
    inside = (points >= true[:, :2]) & (points <= true[:, :2] + true[:, 2:])
    overlap: dict[str, Array] = {"iou": iou(boxes, true), "iobb": iobb(boxes, true)}
    columns = {"pointing": inside.all(axis=1).astype(np.float64), **overlap}
    for name, values in overlap.items():
        columns |= {f"{name}>{cut}": (values > cut).astype(np.float64) for cut in CUTS}
    return pd.DataFrame(columns | {"energy": overlap["iobb"]})


def _boxes(name: str, boxes: Array) -> Array:
    numbers = np.asarray(boxes, np.float64)
    if numbers.ndim != 2 or numbers.shape[1] != 4 or not (numbers[:, 2:] > 0).all():
        raise UserError(
            f"boxes ({name}): rows of x, y, width and height over 0 are needed, got an array of "
            f"shape {numbers.shape}"
        )
    return numbers


def score_maps(maps: Sequence[NDArray[np.floating]], true: Array, fraction: float) -> pd.DataFrame:
    """Judge a saliency map (h, w) for each image, as `score_boxes` does.

    energy is the share of the map's sum that lies in the true box. A map without a positive value
    points at the centre and frames the whole image.

    Raises:
        UserError: as `score_boxes`; a fraction outside (0, 1]; or a map that is no plane of
            finite numbers.
    """
    true = _boxes("true", true)
    if not 0 < fraction <= 1:
        raise UserError(f"fraction: a number over 0 and up to 1 is allowed, got {fraction:g}")
    scaled = [scale_map(saliency) for saliency in maps]
    boxes = np.array([box_of_map(saliency, fraction) for saliency in scaled]).reshape(-1, 4)
    points = np.array([peak(saliency) for saliency in scaled]).reshape(-1, 2)
    table = score_boxes(boxes, true, points)
    pairs = zip(scaled, true, strict=True)
    return table.assign(energy=[energy_inside(saliency, box) for saliency, box in pairs])


def scale_map(saliency: NDArray[np.floating]) -> Array:
    """Scale a map to 256 x 256 bilinearly, pixel areas on pixel areas; negative values become 0."""
    given = np.asarray(saliency, np.float64)
    if given.ndim != 2 or not given.size or not np.isfinite(given).all():
        raise UserError(
            f"saliency map: finite numbers in rows and columns are needed, got shape {given.shape}"
        )
    zoom = GRID / np.array(given.shape)
    scaled: Array = ndimage.zoom(given, zoom, order=1, mode="nearest", grid_mode=True)
    # A map that is zero everywhere says as much as one that is equal everywhere.
    return np.clip(scaled, 0, None) if (scaled > 0).any() else np.ones_like(scaled)


def box_of_map(scaled: Array, fraction: float) -> Array:
    """Frame the largest connected region at or above a fraction of the way up from the minimum."""
    low, high = scaled.min(), scaled.max()
    regions, _ = ndimage.label(scaled >= low + fraction * (high - low))
    largest = int(np.argmax(np.bincount(regions.ravel())[1:]))
    rows, columns = ndimage.find_objects(regions)[largest]
    edges = columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start
    return np.array(edges, np.float64) * (FRAME / GRID)


def peak(scaled: Array) -> Array:
    """Return x and y of the maximum; the centre of all pixels that reach it."""
    rows, columns = np.nonzero(scaled >= scaled.max() * (1 - 1e-9))
    return (np.array([columns.mean(), rows.mean()]) + 0.5) * (FRAME / GRID)


def energy_inside(scaled: Array, box: Array) -> float:
    """Share of a map's sum inside a box; pixels on its border count by their part."""
    edges = np.arange(GRID + 1) * (FRAME / GRID)

    def covered(low: float, size: float) -> Array:
        held = np.clip(np.minimum(edges[1:], low + size) - np.maximum(edges[:-1], low), 0, None)
        return held / (FRAME / GRID)

    across, down = covered(box[0], box[2]), covered(box[1], box[3])
    return float(down @ scaled @ across / scaled.sum())


def blind_boxes(true: Array) -> dict[str, Array]:
    """Boxes that do not see the image, (n, 4) by name, each from the OTHER boxes.

    Raises:
        UserError: fewer than two boxes.
    """
    true = _boxes("true", true)
    if len(true) < 2:
        raise UserError(f"boxes: the baselines need two images or more, got {len(true)}")
    mean = (true.sum(axis=0) - true) / (len(true) - 1)
    size = mean[:, 2:]
    centre = mean[:, :2] + size / 2
    middle = np.full_like(centre, FRAME / 2)
    kept = {"mean box": (centre, size), "centred box": (middle, size)}
    kept["half-size mean box"] = (centre, size / 2)
    return {name: np.hstack([at - wide / 2, wide]) for name, (at, wide) in kept.items()}


def summarise(
    scores: Mapping[str, pd.DataFrame], true: Array, patient: Sequence[int]
) -> pd.DataFrame:
    """Average each method over images and measure its lift over the best blind baseline.

    Args:
        scores: by method, of `score_boxes` or `score_maps` on the same n images.
        true: (n, 4) boxes.
        patient: (n,) identifiers.

    Returns:
        A row a method (baselines last) and metric: method, metric, value, low, high,
        best_baseline, lift, lift_low, lift_high. The limits of the lift are the lowest over all
        baselines, so the choice of the best does not flatter the method.
    """
    blind = {name: score_boxes(box, true) for name, box in blind_boxes(true).items()}
    patients = Patients.of(np.ones(len(true)), patient)
    statistics = {
        name: {metric: mean_statistic(patients, table[metric].to_numpy()) for metric in table}
        for name, table in {**scores, **blind}.items()
    }
    rows = []
    for name, metrics in statistics.items():
        for metric, statistic in metrics.items():
            row = {"method": name, "metric": metric, **asdict(interval(statistic))}
            if name in scores:
                lifts = {b: paired_difference(statistic, statistics[b][metric])[0] for b in blind}
                best = min(lifts, key=lambda baseline: lifts[baseline].value)
                row |= {"best_baseline": best, "lift": lifts[best].value}
                row |= {"lift_low": min(lift.low for lift in lifts.values())}
                row |= {"lift_high": min(lift.high for lift in lifts.values())}
            rows.append(row)
    return pd.DataFrame(rows)
