"""Sheets of radiographs, alone or under maps of where a model looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.patches import Rectangle

from cardiomegaly.data.boxes import BOX_FRAME
from cardiomegaly.reports.plots import Array, drawing, save_note


def plot_images(images: Array, titles: Sequence[str], path: Path | str) -> None:
    """Draw a sheet of grey images (N,H,W) uint8, one short title each."""
    if not len(images):
        return save_note("no images to show", path)
    columns = min(len(images), max(4, min(8, math.ceil(math.sqrt(len(images))))))
    rows = math.ceil(len(images) / columns)
    with drawing(path, 1.6 * columns, 1.85 * rows, rows, columns) as grid:
        for axes in grid:
            axes.axis("off")
        for axes, image, title in zip(grid, images, titles, strict=False):
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
            axes.set_title(title, fontsize=8)
    return None


def plot_maps(
    images: Array, maps: Array | Sequence[Array], titles: Sequence[str], path: Path | str,
    boxes: Array | None = None,
) -> None:  # fmt: skip
    """Draw each image (N,H,W) uint8 beside itself under its map (N,h,w), with its box if there is.

    Maps are scaled to the image by bilinear interpolation and share one colour scale, so that
    images can be compared; beside boxes, which are met by the place of a map's maximum, each has
    its own.
    """
    if not len(images):
        return save_note("no images to show", path)
    finite = np.concatenate([np.ravel(one)[np.isfinite(np.ravel(one))] for one in maps])
    low, high = (finite.min(), finite.max()) if finite.size and boxes is None else (None, None)
    pairs = min(len(images), 2)
    rows, extent = math.ceil(len(images) / pairs), (0, BOX_FRAME, BOX_FRAME, 0)
    with drawing(path, 4.8 * pairs, 2.5 * rows, rows, 2 * pairs) as grid:
        for axes in grid:
            axes.axis("off")
        for place, (image, saliency) in enumerate(zip(images, maps, strict=True)):
            plain, covered = grid[2 * place : 2 * place + 2]
            plain.set_title(titles[place], fontsize=8, loc="left")
            for axes in (plain, covered):
                axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=extent)
                if boxes is not None:
                    x, y, width, height = boxes[place]
                    axes.add_patch(Rectangle((x, y), width, height, fill=False, ec="#ffd000"))
            drawn = covered.imshow(
                saliency, cmap="viridis", vmin=low, vmax=high, alpha=0.45, extent=extent,
                interpolation="bilinear",
            )  # fmt: skip
        if boxes is None:
            bar = covered.figure.colorbar(drawn, ax=grid, shrink=min(1.0, 2.2 / rows), pad=0.01)
            bar.set_label("attention", fontsize=9)
            if bar.solids is not None:
                bar.solids.set_alpha(1.0)
            bar.outline.set_visible(False)
    return None
