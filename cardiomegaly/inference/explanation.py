"""One image explained: what the model says, where it looks, and whether that is worth showing.

A heart lies where hearts lie, so each map stands beside a box that never saw the image: where the
map puts less of itself into the heart box than that, the picture says so.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiomegaly.inference.metadata import NOT_CLINICAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Map = NDArray[np.float32]
PANEL, LINE = 3.2, 46  # inches, and letters that fit below


class Row(NamedTuple):
    """One image's line of the table; the figures are None where it is refused.

    `probability` is calibrated where a calibration was fitted and `threshold` stands on the same
    scale; `probability_raw` is what the network says. `reason` tells why an image is refused, or
    warns.
    """

    image: str
    probability: float | None
    probability_raw: float | None
    threshold: float
    decision: str
    refused: bool
    reason: str


class MapScore(NamedTuple):
    """A map against the heart box: whether its peak and how much of its sum lie inside.

    `blind_pointing` and `blind_energy` are those of the mean heart box of other images.
    """

    pointing: bool
    energy: float
    blind_pointing: bool
    blind_energy: float

    @property
    def worse(self) -> bool:
        """Whether a box that never saw the image does better."""
        return self.energy < self.blind_energy or self.pointing < self.blind_pointing


@dataclass
class Explanation:
    """Of one image.

    Attributes:
        row: what is predicted.
        pixels: (H, W) as the network saw them.
        attention: (h, w) in [0, 1]; None where the head has none.
        contribution: what each position adds to the logit (h, w).
        contribution_name: "contribution", or "Grad-CAM" where the head has no such map.
        box: x, y, width, height of the heart in the 1024-pixel frame, where it is known.
        scores: by map, how it does against the box.
    """

    row: Row
    pixels: NDArray[np.uint8]
    attention: Map | None
    contribution: Map
    contribution_name: str
    box: NDArray[np.float64] | None = None
    scores: dict[str, MapScore] = field(default_factory=dict)

    @property
    def maps(self) -> dict[str, Map]:
        """The maps that there are, by name; a refused image has none."""
        if self.row.refused:
            return {}
        attention = {} if self.attention is None else {"attention": self.attention}
        return attention | {self.contribution_name: self.contribution}

    @property
    def title(self) -> str:
        """File name, probability, threshold and decision in words."""
        row, name = self.row, Path(self.row.image).name
        if row.refused or row.probability is None:
            return f"{name}: refused, {row.reason}"
        warning = f"\n{row.reason}" if row.reason else ""
        return (
            f"{name}: {row.decision}, probability {row.probability:.2f} "
            f"(threshold {row.threshold:.2f}){warning}"
        )

    def figure(self) -> Figure:
        """The image beside its maps, as a matplotlib figure."""
        return draw([self])

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        buffer = io.BytesIO()
        self.figure().savefig(buffer, format="png")
        return buffer.getvalue()


def draw(explanations: Sequence[Explanation]) -> Figure:
    """A row of panels for each image: itself, then under each of its maps."""
    from matplotlib.figure import Figure  # takes a second, and a table needs none of it

    columns = 1 + max(len(explanation.maps) for explanation in explanations)
    size = (PANEL * columns + 0.6, (PANEL + 0.7) * len(explanations) + 0.25)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    figure.supxlabel(NOT_CLINICAL, fontsize=8, color="#666666")
    grid = figure.subplots(len(explanations), columns, squeeze=False)
    for explanation, (plain, *others) in zip(explanations, grid, strict=True):
        _draw_image(plain, explanation)
        _write_below(plain, explanation.title)
        for axes in others[len(explanation.maps) :]:
            axes.axis("off")
        for axes, (name, saliency) in zip(others, explanation.maps.items(), strict=False):
            _draw_image(axes, explanation)
            _draw_map(axes, name, saliency, explanation)
    return figure


def describe(name: str, saliency: Map, score: MapScore | None) -> str:
    """What stands under a map."""
    lines = [f"{name}, {saliency.min():.2g} to {saliency.max():.2g}"]
    if name == "contribution":
        lines[0] = f"contribution to the logit, sum {saliency.sum():+.2f}"
    if score is not None:
        lines.append(
            f"peak {'in' if score.pointing else 'outside'} the heart box, {score.energy:.0%} of "
            f"the map in it; {score.blind_energy:.0%} of the mean heart box"
        )
        if score.worse:
            lines.append("worse than the mean heart box, which never saw the image")
    return "\n".join(lines)


def _draw_image(axes: Axes, explanation: Explanation) -> None:
    axes.imshow(explanation.pixels, cmap="gray", vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])
    if explanation.box is not None:
        from matplotlib.patches import Rectangle

        x, y, width, height = explanation.box * len(explanation.pixels) / 1024
        axes.add_patch(Rectangle((x, y), width, height, fill=False, ec="#F0E442", lw=1.2))


def _draw_map(axes: Axes, name: str, saliency: Map, explanation: Explanation) -> None:
    height, width = explanation.pixels.shape
    signed = name == "contribution"
    limit = float(np.abs(saliency).max()) or 1.0
    low, high = (-limit, limit) if signed else (float(saliency.min()), float(saliency.max()))
    drawn = axes.imshow(
        saliency, cmap="RdBu_r" if signed else "viridis", vmin=low, vmax=high, alpha=0.45,
        interpolation="bilinear", extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )  # fmt: skip
    axes.figure.colorbar(drawn, ax=axes, shrink=0.8, pad=0.02).ax.tick_params(labelsize=7)
    _write_below(axes, describe(name, saliency, explanation.scores.get(name)))


def _write_below(axes: Axes, text: str) -> None:
    lines = [textwrap.fill(line, LINE) for line in text.splitlines()]
    axes.set_xlabel("\n".join(lines), fontsize=8, loc="left")
