"""The drawing of a phantom chest radiograph: anatomy in one exposure, and its pixels.

The drawing has its origin in the middle of the thorax and half the inner thorax width as its
unit; x runs to the image's right (the patient's left), y downwards. A film places that on the
image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # float32, (size, size) or one row or column of it

NIH_FRAME = 1024  # NIH's boxes are in pixels of its 1024 x 1024 images


class Ellipse(NamedTuple):
    """A heart or an opacity: centre, half axes and tilt (radians) in the drawing's coordinates."""

    x: float
    y: float
    a: float
    b: float
    tilt: float


# Findings beside the heart: how often, where in the lung (x, y), half axes, how dense.
OPACITIES = {
    "Atelectasis": (0.10, 0.50, 0.25, 0.30, 0.06, 0.10),
    "Effusion": (0.12, 0.80, 0.75, 0.30, 0.28, 0.22),
    "Mass": (0.05, 0.55, -0.15, 0.17, 0.14, 0.15),
    "Nodule": (0.07, 0.55, -0.35, 0.06, 0.06, 0.14),
}


@dataclass(frozen=True)
class Film:
    """One patient's anatomy in one exposure, in the drawing's coordinates and image fractions."""

    view: str
    half: float  # half the inner thorax width, as a share of the image's side
    centre: tuple[float, float]  # of the thorax, from the image's centre, shares of its side
    angle: float  # rotation in radians
    tall: float  # lungs reach from -tall to +tall
    base: float  # height of the costophrenic angles
    rise: float  # of the left dome above them
    wall: float  # thickness of the thoracic wall
    breast: float  # density, 0 = none
    curve: float  # of the spine
    knob: float  # radius of the aortic knob
    rib_phase: float
    heart: Ellipse
    opacities: dict[str, Ellipse]

    def box(self, shape: Ellipse) -> tuple[float, float, float, float]:
        """Return the x, y, width and height that enclose `shape`, in NIH's 1024-pixel frame."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        x, y = self.centre[0] + self.half * shape.x, self.centre[1] + self.half * shape.y
        tilt = shape.tilt + self.angle
        wide = self.half * np.hypot(shape.a * np.cos(tilt), shape.b * np.sin(tilt))
        high = self.half * np.hypot(shape.a * np.sin(tilt), shape.b * np.cos(tilt))
        middle = np.array([x * cos - y * sin, x * sin + y * cos])
        reach = np.array([wide, high])
        low, top = np.clip([middle - reach, middle + reach], -0.5, 0.5)
        corner, extent = (low + 0.5) * NIH_FRAME, (top - low) * NIH_FRAME
        return float(corner[0]), float(corner[1]), float(extent[0]), float(extent[1])


def _within(distance: Array, softness: float) -> Array:
    """Map a signed distance (positive inside) to a mask in [0, 1] with a soft border."""
    return np.clip(distance / softness + 0.5, 0, 1)


def _inside(shape: Ellipse, x: Array, y: Array, softness: float) -> Array:
    cos, sin = math.cos(shape.tilt), math.sin(shape.tilt)
    x, y = x - shape.x, y - shape.y
    along, across = cos * x + sin * y, cos * y - sin * x
    radius = np.sqrt((along / shape.a) ** 2 + (across / shape.b) ** 2)
    return _within((1 - radius) * min(shape.a, shape.b), softness)


def _profile(y: Array, at: tuple[float, ...], width: tuple[float, ...]) -> Array:
    """Interpolate a width by height, without corners."""
    window = np.hanning(2 * max(2, len(y) // 24) + 1)
    line = np.pad(np.interp(y[:, 0], at, width), len(window) // 2, mode="edge")
    return np.convolve(line, window / window.sum(), "valid")[:, None].astype(np.float32)


def radiograph(film: Film, size: int, rng: np.random.Generator, heart: bool) -> NDArray[np.uint8]:
    """Draw one image, (size, size) uint8: densities along the ray add up, the film answers."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    x, y = axis[None, :] - film.centre[0], axis[:, None] - film.centre[1]
    x, y = x / film.half, y / film.half
    off, tall, trunk = np.abs(x), film.tall, 1.0 + film.wall
    outer = _profile(
        y / tall, (-1, -0.92, -0.8, -0.56, -0.16, 0.4), (0.45, 0.62, 0.73, 0.85, 0.95, 1)
    )
    medial = _profile(
        y / tall, (-1, -0.88, -0.68, -0.4, 0.2, 1), (0.36, 0.25, 0.19, 0.17, 0.15, 0.13)
    )
    widths = (0.36, 0.5, trunk + 0.25, trunk + 0.3, trunk, trunk + 0.1)
    skin = _profile(y, (-tall - 0.5, -tall - 0.25, -tall + 0.05, -tall + 0.5, 0.5, 2), widths)
    dome = np.clip(1 - ((off - 0.42) / 0.58) ** 2, -1, 1) * (film.rise + 0.07 * _within(-x, 0.01))
    dome = film.base - dome  # the right one stands higher, above the liver
    below = _within(y - dome, 0.06) * _within(outer + 0.03 - off, 0.06)
    abdomen = np.maximum(below, _within(y - film.base, 0.5))
    lungs = _within(np.minimum(outer - off, off - medial), 0.05)
    lungs = lungs * _within(np.minimum(dome - y, y + tall), 0.05)
    filled = 0.85 * _great_vessels(film, x, y)
    if heart:
        filled = np.maximum(filled, _inside(film.heart, x, y, 0.06))

    body = _within(skin - off, 0.08)
    thick = np.sqrt(np.clip(1 - (off / (skin + 0.05)) ** 2, 0, 1))
    density = body * (0.30 + 0.30 * thick + 0.13 * abdomen) + 0.08 * filled
    air = lungs * (1 - 0.93 * filled)
    density += air * (_lung_texture(film, x, y, size, rng) - 0.36)
    density += _bones(film, x, y, outer, abdomen)
    gas = Ellipse(0.48, film.base - film.rise + 0.2, 0.24, 0.14, 0.0)
    density -= 0.14 * abdomen * _inside(gas, x, y, 0.1)
    for name, shape in film.opacities.items():
        density += OPACITIES[name][-1] * air * _inside(shape, x, y, 0.1)
    for side in (-0.52, 0.52) if film.breast else ():
        breast = _inside(Ellipse(side, 0.35 * tall, 0.42, 0.42, 0.0), x, y, 0.2)
        density += film.breast * (1 - 0.8 * abdomen) * breast
    return _expose(density, film, rng)


def _great_vessels(film: Film, x: Array, y: Array) -> Array:
    """Draw the mediastinum above the heart: caval vein, aortic knob and pulmonary trunk."""
    height = -0.42 * film.tall
    stalk = _within(0.2 - np.abs(x - 0.04), 0.08) * _within(y + 0.75 * film.tall, 0.4)
    knob = _inside(Ellipse(0.15, height, film.knob, film.knob, 0.0), x, y, 0.05)
    conus = Ellipse(0.17, height + 0.3, 0.9 * film.knob, 2 * film.knob, -0.3)
    stalk = stalk * _within(0.35 - y, 0.3)
    return np.maximum(np.maximum(knob, _inside(conus, x, y, 0.06)), stalk)


def _bones(film: Film, x: Array, y: Array, outer: Array, abdomen: Array) -> Array:
    """Draw ribs (behind: steep bands; in front: faint ones), spine, clavicles, shoulder blades."""
    tall, ap, off = film.tall, film.view == "AP", np.abs(x)
    behind = _stripes(8.6 / (2 * tall), y + tall, 0.42 * off**2 - 0.28 * off, film.rib_phase)
    before = _stripes(7.5 / (2 * tall), y + tall, 0.55 * off - 0.75, 0.7 * film.rib_phase)
    bands = 0.08 * behind + 0.05 * before * _within(off - 0.35, 0.2)
    cage = _within(outer + 0.05 - off, 0.05) * _within(y + tall + 0.05, 0.1)
    ribs = bands * cage * _within(off - 0.1, 0.1) * (1 - 0.7 * abdomen)
    spine = _within(0.12 - np.abs(x - film.curve * np.sin(2 * y)), 0.05)
    spine = spine * (0.11 + 0.02 * np.cos(31 * y))
    windpipe = _within(0.065 - np.abs(x + 0.01), 0.05) * _within(-0.42 * tall - y, 0.1)
    # In bed the patient leans back and the shoulders stay: clavicles high, blades over the lungs.
    collar = -tall + (-0.05 if ap else 0.1) + 0.22 * (1 - off) ** 2 - 0.12 * off
    clavicles = _within(0.05 - np.abs(y - collar), 0.04)
    clavicles = clavicles * _within(np.minimum(off - 0.1, 1.25 - off), 0.1)
    below = y + 0.35 * tall
    blades = _within(0.16 - np.abs(off - (0.78 if ap else 1.12) - 0.25 * below), 0.05)
    blades = blades * _within(0.45 - np.abs(below), 0.2)
    return ribs + spine - 0.08 * windpipe + 0.09 * clavicles + 0.06 * blades


def _stripes(frequency: float, y: Array, x: Array, phase: float) -> Array:
    """Return narrow bright stripes along y = -x: a wave of a sum, made of waves of one axis."""
    down, across = 2 * np.pi * (frequency * y + phase), 2 * np.pi * frequency * x
    wave = np.cos(down) * np.cos(across) - np.sin(down) * np.sin(across)
    return np.maximum(wave, 0) ** 2


def _lung_texture(film: Film, x: Array, y: Array, size: int, rng: np.random.Generator) -> Array:
    """Draw what lungs show: hilum, vessels that branch out from it, and a cloudy ground."""
    hilum = np.exp(-((np.abs(x) - 0.3) ** 2) / 0.05 - (y + 0.1) ** 2 / 0.12)
    cloud: Array = np.zeros((size, size), dtype=np.float32)
    for cells, strength in ((10, 0.5), (40, 0.45)):
        grid = rng.standard_normal((cells, cells), dtype=np.float32)
        cloud += strength * cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
    vessels: Array = np.zeros((size, size), dtype=np.float32)
    along = np.linspace(0, 1, 7)
    for side in np.repeat((-1, 1), 14):
        direction, length, bend = rng.uniform((-1.3, 0.4, -0.4), (1.3, 0.85, 0.4))
        way = np.stack([np.cos(direction + bend * along), np.sin(direction + bend * along)], 1)
        points = (0.2, -0.1) + length * along[:, None] * way
        points = (points * (side, 1) * film.half + film.centre + 0.5) * size * 8
        for share, strength in ((7, 0.35), (5, 0.6), (3, 1.0)):  # they thin out
            piece, thick = points[:share].round().astype(np.int32), max(1, size // 32 // share)
            cv2.polylines(vessels, [piece], False, strength, thick, cv2.LINE_AA, 3)
    vessels = cv2.GaussianBlur(vessels, (0, 0), size / 256)
    return 0.07 * hilum + 0.035 * cloud * (0.7 + hilum) + 0.11 * vessels


def _expose(density: Array, film: Film, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn, expose, blur and grain a drawing; an AP film is flatter and may show leads."""
    size, ap = len(density), film.view == "AP"
    gain, bias = rng.uniform(1.1, 1.5) * (0.76 if ap else 1.0), rng.normal(0.06 if ap else 0, 0.05)
    slope = rng.normal(0, 0.1, 2)  # the beam is not equally strong everywhere
    axis = np.linspace(-0.5, 0.5, size)
    beam = 1 + slope[0] * axis[None, :] + slope[1] * axis[:, None]
    image: Array = ((0.5 + bias + gain * (density - 0.46)) * beam).astype(np.float32)
    cos, sin, middle = math.cos(film.angle), math.sin(film.angle), (size - 1) / 2
    turn = [[cos, -sin, middle * (1 - cos + sin)], [sin, cos, middle * (1 - sin - cos)]]
    image = cv2.warpAffine(image, np.array(turn), (size, size), borderMode=cv2.BORDER_REPLICATE)
    for _ in range(rng.integers(0, 4) if ap else 0):
        a, b, c = rng.uniform((0.1, 0.1, 0.3, 0.3, 0.2, 0.9), (0.9, 0.4, 0.7, 0.6, 0.8, 1)).reshape(
            3, 2
        )
        way = np.linspace(0, 1, 20)[:, None]
        points = ((1 - way) ** 2 * a + 2 * way * (1 - way) * b + way**2 * c) * size * 8
        lead = points.round().astype(np.int32)
        cv2.polylines(image, [lead], False, 0.95, max(1, size // 256), cv2.LINE_AA, 3)
    image = cv2.GaussianBlur(image, (0, 0), size / 256 * rng.uniform(0.4, 1.0))
    grain = rng.standard_normal((size, size), dtype=np.float32)
    image = image + np.float32(rng.uniform(0.006, 0.02)) * grain
    for _ in range(4):  # the edges of the field, one after the other
        image = np.rot90(image)
        image[: int(size * max(0.0, rng.uniform(-0.15, 0.05)))] = 0.03
    pixels = (255 * np.clip(image, 0, 1)).astype(np.uint8, order="C")
    x, y = (size * rng.uniform((0.03, 0.05), (0.1, 0.12))).astype(int).tolist()
    mark, font = "AP" if ap else "R", cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(pixels, mark, (x, y), font, size / 700, 240, 1, cv2.LINE_AA)
    return pixels
