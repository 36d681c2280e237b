"""Fits what refuses unfit images, at the end of a training, on images that are made unfit.

Up to 1,256 training images, as they are and a little moved, teach the network what is fit, and 600
of these, made unfit in every way, what is not. Validation gives the limits: each refuses 1 in 200
of its images, and never more than what lies far out, since of few images their quantile would be
the worst of them.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.neural_network import MLPClassifier

from cardiomegaly.data.datamodule import CardiomegalyDataModule
from cardiomegaly.data.sampler import BatchKey
from cardiomegaly.model.predictor import Predictor
from cardiomegaly.model.refusal import (
    FIT,
    MIRRORED,
    SIDE,
    UNLIKE,
    Array,
    Limits,
    Network,
    Reference,
    Refusal,
    distances,
    soundness,
    to_grids,
    to_ranks,
    unit,
)

MOST_FIT, MOST_SPOILT, MOST_FEATURES = 1256, 600, 256  # training images used, of each
LEAST = 16  # training images
VALIDATION = 500  # images at most
MOVED = 2  # times that an image that is fit is shown a little moved
COMPONENTS = 80
AVERAGED, UNITS, EPOCHS, DECAY = 3, 64, 30, 1e-2  # networks, and of each of them
REFUSED = 0.005  # of the validation images, by each limit
WARNED = 0.01  # of the validation images, as mirrored
DOUBTFUL = 0.05  # of the probability of being fit: a limit is never over it
SURELY = 0.9  # of the probability of being mirrored: a limit is never under it
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
    train = _pixels(datamodule, "train", MOST_FIT, rng)
    val = _pixels(datamodule, "val", VALIDATION, rng)
    if len(train) < LEAST or not len(val):
        return None
    reference, network, kinds = fit_network(train, rng)
    features = unit(_pooled(predictor, train[:MOST_FEATURES]))
    away = distances(_pooled(predictor, val), features)
    probability = network.probabilities(reference.statistics(to_grids(val)))
    sound, mirrored = soundness(probability, kinds)
    limits = Limits(
        sound=min(DOUBTFUL, float(np.quantile(sound, REFUSED))),
        mirrored=max(SURELY, float(np.quantile(mirrored, 1 - WARNED))),
        distance=float(max(np.quantile(away, 1 - REFUSED), away.mean() + FAR * away.std())),
    )
    return Refusal(reference, network, limits, kinds, features)


def fit_network(images: Pixels, rng: np.random.Generator) -> tuple[Reference, Network, list[str]]:
    """Fit on training images (n, H, W); with the names of the network's outputs."""
    moved = [np.stack([_moved(image, rng) for image in images]) for _ in range(MOVED)]
    grids = [to_grids(fit) for fit in (images, *moved)]
    names = [FIT] * len(images) * len(grids)
    ranks = to_ranks(np.concatenate(grids))
    both = np.concatenate([ranks, ranks.reshape(-1, SIDE, SIDE)[..., ::-1].reshape(ranks.shape)])
    components = np.linalg.eigh(both.T @ both)[1].T[: -COMPONENTS - 1 : -1]  # the largest first
    reference = Reference(unit(ranks.mean(0, keepdims=True))[0], components)
    for kind, spoil in SPOILT:
        chosen = images[rng.permutation(len(images))[:MOST_SPOILT]]
        spoilt = [spoil(_moved(i, rng) if rng.random() < 0.5 else i, rng) for i in chosen]
        grids.append(to_grids(np.stack([_square(image, len(images[0])) for image in spoilt])))
        names += [kind] * len(spoilt)
    given = reference.statistics(np.concatenate(grids))
    centre, scale = given.mean(0), given.std(0) + 1e-6
    kinds = sorted(set(names))
    models = []
    for _ in range(AVERAGED):
        model = MLPClassifier((UNITS,), alpha=DECAY, random_state=int(rng.integers(2**31)))
        for _ in range(EPOCHS):
            model.partial_fit((given - centre) / scale, names, classes=kinds)
        models.append(model)
    return reference, _mean_network(models, centre, scale), kinds


def _mean_network(models: list[MLPClassifier], centre: Array, scale: Array) -> Network:
    """One network whose scores are the mean of several networks'."""
    hidden = np.hstack([model.coefs_[0] for model in models])
    output = np.vstack([model.coefs_[1] for model in models]) / len(models)
    hidden_bias = np.hstack([model.intercepts_[0] for model in models])
    output_bias = np.mean([model.intercepts_[1] for model in models], axis=0)
    arrays = (centre, scale, hidden, hidden_bias, output, output_bias)
    return Network(*(np.asarray(array, np.float32) for array in arrays))


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


def _half(image: Pixels, rng: np.random.Generator) -> Pixels:
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
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    frequency[0, 0] = 1 / size
    spectrum = np.fft.fft2(rng.normal(size=(size, size))) / frequency ** rng.uniform(0, 2)
    clouds = np.fft.ifft2(spectrum).real
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
    *[(MIRRORED, lambda image, rng: image[:, ::-1])] * 3,
    ("inverted", lambda image, rng: 255 - image),
    ("rotated by 180 degrees", lambda image, rng: np.rot90(image, 2)),
    ("rotated by 180 degrees", lambda image, rng: image[::-1]),
    ("rotated by 90 degrees", lambda image, rng: np.rot90(image, 1)),
    ("rotated by 90 degrees", lambda image, rng: np.rot90(image, 3)),
    ("rotated by 90 degrees", lambda image, rng: image.T),
    *[("a part of a chest", _crop)] * 4,
    *[("half of a chest", _half)] * 3,
    ("a lateral view", lateral),
    (UNLIKE, noise),
    (UNLIKE, text),
    (UNLIKE, _shuffled),
]
