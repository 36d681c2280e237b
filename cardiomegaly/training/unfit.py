"""Radiographs made unfit in every way that is refused, and fit ones a little moved."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from cardiomegaly.model.refusal import MIRRORED, UNLIKE

Pixels = NDArray[np.uint8]


def square(image: Pixels, size: int) -> Pixels:
    """(H, W) stretched to (size, size)."""
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)


def moved(image: Pixels, rng: np.random.Generator) -> Pixels:
    """A patient who stood otherwise: turned by up to 8 degrees, a tenth nearer or aside."""
    middle = len(image) / 2
    angle, zoom = rng.uniform(-8, 8), rng.uniform(0.9, 1.1)
    turn = np.asarray(cv2.getRotationMatrix2D((middle, middle), angle, zoom), np.float64)
    turn[:, 2] += rng.uniform(-0.07, 0.07, 2) * len(image)
    border = cv2.BORDER_REPLICATE
    return np.asarray(cv2.warpAffine(image, turn, image.shape[::-1], borderMode=border), np.uint8)


def crop(image: Pixels, rng: np.random.Generator) -> Pixels:
    """A square of 30 to 65% of the side, anywhere."""
    size = image.shape[0]
    side = int(size * rng.uniform(0.3, 0.65))
    top, left = rng.integers(0, size - side + 1, 2)
    return image[top : top + side, left : left + side]


def half(image: Pixels, rng: np.random.Generator) -> Pixels:
    """The left or the right half, or a little more or less."""
    width = image.shape[1]
    kept = int(width * rng.uniform(0.42, 0.6))
    return image[:, :kept] if rng.random() < 0.5 else image[:, width - kept :]


def lateral(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Both halves of a chest upon each other, as from the side, narrower than the image."""
    middle = image.shape[1] // 2
    left, right = image[:, :middle], image[:, -middle:][:, ::-1]
    share = rng.uniform(0.3, 0.7)
    both = cv2.addWeighted(left, share, right, 1 - share, 0)[:, :: int(rng.choice([-1, 1]))]
    margin = int(middle * rng.uniform(0, 0.4))
    return np.asarray(cv2.copyMakeBorder(both, 0, 0, margin, margin, cv2.BORDER_CONSTANT, value=0))


def noise(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Clouds of any grain: from white noise to a few large blots, as most photographs are."""
    size = image.shape[0]
    frequency = np.hypot(*np.meshgrid(np.fft.rfftfreq(size), np.fft.fftfreq(size)))
    frequency[0, 0] = 1 / size
    spectrum = np.fft.rfft2(rng.normal(size=(size, size))) / frequency ** rng.uniform(0, 2)
    clouds = np.fft.irfft2(spectrum, (size, size))
    low, high = np.quantile(clouds, [0.01, 0.99])
    return np.asarray(np.clip((clouds - low) / (high - low) * 255, 0, 255), np.uint8)


def text(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Lines of letters, dark on bright or bright on dark."""
    size = image.shape[0]
    page = np.full((size, size), 255, np.uint8)
    step = int(rng.integers(size // 16, size // 5)) + 2
    for y in range(step, size, step):
        word = "".join(chr(letter) for letter in rng.integers(65, 91, int(rng.integers(4, 40))))
        cv2.putText(page, word, (2, y), cv2.FONT_HERSHEY_SIMPLEX, step / 40, 0, 1 + step // 20)
    return page if rng.random() < 0.5 else np.asarray(255 - page, np.uint8)


def shuffled(image: Pixels, rng: np.random.Generator) -> Pixels:
    """The pieces of an image in another order."""
    cells = int(rng.integers(2, 5))
    side = image.shape[0] // cells
    pieces = [
        image[y * side :, x * side :][:side, :side] for y in range(cells) for x in range(cells)
    ]
    order = rng.permutation(len(pieces))
    grid = [[pieces[order[y * cells + x]] for x in range(cells)] for y in range(cells)]
    return np.block(grid)


SPOILT: list[tuple[str, Callable[[Pixels, np.random.Generator], Pixels]]] = [
    *[(MIRRORED, lambda image, rng: image[:, ::-1])] * 3,
    ("inverted", lambda image, rng: 255 - image),
    ("rotated by 180 degrees", lambda image, rng: np.rot90(image, 2)),
    ("rotated by 180 degrees", lambda image, rng: image[::-1]),
    ("rotated by 90 degrees", lambda image, rng: np.rot90(image, 1)),
    ("rotated by 90 degrees", lambda image, rng: np.rot90(image, 3)),
    ("rotated by 90 degrees", lambda image, rng: image.T),
    *[("a part of a chest", crop)] * 4,
    *[("half of a chest", half)] * 3,
    ("a lateral view", lateral),
    (UNLIKE, noise),
    (UNLIKE, text),
    (UNLIKE, shuffled),
]
