"""Fits what refuses unfit images, at the end of a training, on images that are made unfit.

Some training images (at most 256, and half of them) are what others are compared with; of the
rest, up to 1,000 teach the regression what is fit, and 256 of these, made unfit in every way,
what is not. Validation gives the limits: each refuses 1 in 200 of its images, and never more than
what lies far out, since of few images their quantile would be the worst of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from cardiomegaly.data.datamodule import CardiomegalyDataModule
from cardiomegaly.data.sampler import BatchKey
from cardiomegaly.model.predictor import Predictor
from cardiomegaly.model.refusal import (
    FIT,
    MIRRORED,
    UNLIKE,
    Array,
    Reference,
    Refusal,
    distances,
    to_grids,
    to_ranks,
    unit,
    with_squares,
)

MOST, MOST_FIT = 256, 1000  # images compared with, and that teach what is fit
LEAST = 16  # training images
VALIDATION = 500  # images at most
COMPONENTS = 40
REFUSED = 0.005  # of the validation images, by each limit
DOUBTFUL = 0.04  # of the probability of being fit: a limit is never over it
FAR = 5.0  # standard deviations over the mean distance: a limit is never under it
BATCH = 32

Pixels = NDArray[np.uint8]


def fit_refusal(
    datamodule: CardiomegalyDataModule, predictor: Predictor, seed: int
) -> Refusal | None:
    """Fit on the images of a run; None where it has too few.

    Args:
        datamodule: of the run.
        predictor: its best checkpoint.
        seed: of the choice of images and of what is made of them.
    """
    rng = np.random.default_rng(seed)
    train = _pixels(datamodule, "train", MOST + MOST_FIT, rng)
    val = _pixels(datamodule, "val", VALIDATION, rng)
    if len(train) < LEAST or not len(val):
        return None
    known, other = np.split(train, [min(MOST, len(train) // 2)])
    ranks = to_ranks(to_grids(known))
    mean = ranks.mean(0)
    components = np.linalg.svd(ranks - mean, full_matrices=False)[2][:COMPONENTS]
    reference = Reference(
        mean / np.linalg.norm(mean), ranks, np.vstack([unit(mean[None]), components])
    )
    kinds, weights, bias, centre, scale = _fit(reference, other, rng)
    features = unit(_pooled(predictor, known))
    away = distances(_pooled(predictor, val), features)
    distance = max(np.quantile(away, 1 - REFUSED), away.mean() + FAR * away.std())
    refusal = Refusal(
        reference, centre, scale, weights, bias, kinds, DOUBTFUL, features, float(distance)
    )
    probability = refusal.probabilities(reference.statistics(to_grids(val)))
    sound = probability[:, [kinds.index(FIT), kinds.index(MIRRORED)]].sum(1)
    return replace(refusal, limit=min(DOUBTFUL, float(np.quantile(sound, REFUSED))))


def _pixels(
    datamodule: CardiomegalyDataModule, part: str, most: int, rng: np.random.Generator
) -> Pixels:
    n = len(datamodule.parts[part])
    chosen = rng.permutation(n)[:most].astype(np.int64)
    dataset = datamodule.dataset(part)
    return np.asarray(dataset[BatchKey(chosen, seed=0)]["image"][:, 0].numpy())


def _pooled(predictor: Predictor, pixels: Pixels) -> Array:
    starts = range(0, len(pixels), BATCH)
    return np.concatenate([predictor.predict(pixels[s : s + BATCH, None]).pooled for s in starts])


def _fit(
    reference: Reference, images: Pixels, rng: np.random.Generator
) -> tuple[list[str], Array, Array, Array, Array]:
    """Kinds, weights, bias, centre and scale of the regression on images made unfit."""
    moved = np.stack([_moved(image, rng) for image in images])
    rows = [reference.statistics(to_grids(fit)) for fit in (images, moved)]
    names = [FIT] * 2 * len(images)
    for kind, spoil in SPOILT:
        spoilt = np.stack([_square(spoil(image, rng), len(image)) for image in images[:MOST]])
        rows.append(reference.statistics(to_grids(spoilt)))
        names += [kind] * len(spoilt)
    given = with_squares(np.concatenate(rows))
    centre, scale = given.mean(0), given.std(0) + 1e-6
    model = LogisticRegression(max_iter=300).fit((given - centre) / scale, names)
    weights, bias = (np.asarray(a, np.float32) for a in (model.coef_, model.intercept_))
    return [str(kind) for kind in model.classes_], weights, bias, centre, scale


def _square(image: Pixels, size: int) -> Pixels:
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)


def _moved(image: Pixels, rng: np.random.Generator) -> Pixels:
    """A patient who stood otherwise: turned by up to 8 degrees, a tenth nearer or aside."""
    middle = len(image) / 2
    angle, zoom = rng.uniform(-8, 8), rng.uniform(0.9, 1.1)
    turn = np.asarray(cv2.getRotationMatrix2D((middle, middle), angle, zoom), np.float64)
    turn[:, 2] += rng.uniform(-0.07, 0.07, 2) * len(image)
    border = cv2.BORDER_REPLICATE
    return np.asarray(cv2.warpAffine(image, turn, image.shape[::-1], borderMode=border), np.uint8)


def _crop(image: Pixels, rng: np.random.Generator) -> Pixels:
    size = image.shape[0]
    side = int(size * rng.uniform(0.3, 0.65))
    top, left = rng.integers(0, size - side + 1, 2)
    return image[top : top + side, left : left + side]


def _lateral(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Both halves of a chest upon each other, as from the side, narrower than the image."""
    middle = image.shape[1] // 2
    left, right = image[:, :middle], image[:, -middle:][:, ::-1]
    share = rng.uniform(0.3, 0.7)
    both = cv2.addWeighted(left, share, right, 1 - share, 0)[:, :: int(rng.choice([-1, 1]))]
    margin = int(middle * rng.uniform(0, 0.4))
    return np.asarray(cv2.copyMakeBorder(both, 0, 0, margin, margin, cv2.BORDER_CONSTANT, value=0))


def _noise(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Clouds of any grain: from white noise to a few large blots, as most photographs are."""
    size = image.shape[0]
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    frequency[0, 0] = 1 / size
    spectrum = np.fft.fft2(rng.normal(size=(size, size))) / frequency ** rng.uniform(0, 2)
    clouds = np.fft.ifft2(spectrum).real
    low, high = np.quantile(clouds, [0.01, 0.99])
    return np.asarray(np.clip((clouds - low) / (high - low) * 255, 0, 255), np.uint8)


def _text(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Lines of letters, dark on bright or bright on dark."""
    size = image.shape[0]
    page = np.full((size, size), 255, np.uint8)
    step = int(rng.integers(size // 16, size // 5)) + 2
    for y in range(step, size, step):
        word = "".join(chr(letter) for letter in rng.integers(65, 91, int(rng.integers(4, 40))))
        cv2.putText(page, word, (2, y), cv2.FONT_HERSHEY_SIMPLEX, step / 40, 0, 1 + step // 20)
    return page if rng.random() < 0.5 else np.asarray(255 - page, np.uint8)


def _shuffled(image: Pixels, rng: np.random.Generator) -> Pixels:
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
    (MIRRORED, lambda image, rng: image[:, ::-1]),
    ("inverted", lambda image, rng: 255 - image),
    ("rotated by 180 degrees", lambda image, rng: np.rot90(image, 2)),
    ("rotated by 180 degrees", lambda image, rng: image[::-1]),
    ("rotated by 90 degrees", lambda image, rng: np.rot90(image, 1)),
    ("rotated by 90 degrees", lambda image, rng: np.rot90(image, 3)),
    ("rotated by 90 degrees", lambda image, rng: image.T),
    ("a part of a chest", _crop),
    ("a part of a chest", _crop),
    ("a lateral view", _lateral),
    (UNLIKE, _noise),
    (UNLIKE, _text),
    (UNLIKE, _shuffled),
]
