"""Fits what refuses unfit images, at the end of a training, on images that are made unfit.

Up to 1,256 training images, as they are and a little moved, teach the network what is fit, and 600
of these, made unfit in every way, what is not. Validation gives the limits: each refuses 1 in 200
of its images, and never more than what lies far out, since of few images their quantile would be
the worst of them.
"""

from __future__ import annotations

import numpy as np
from sklearn.neural_network import MLPClassifier

from cardiomegaly.data.datamodule import CardiomegalyDataModule
from cardiomegaly.data.sampler import BatchKey
from cardiomegaly.model.predictor import Predictor
from cardiomegaly.model.refusal import (
    FIT,
    SIDE,
    Array,
    Network,
    Reference,
    Refusal,
    distances,
    soundness,
    to_grids,
    to_ranks,
    unit,
)
from cardiomegaly.training.unfit import SPOILT, Pixels, moved, square

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
    return Refusal(
        reference,
        network,
        kinds,
        features,
        sound=min(DOUBTFUL, float(np.quantile(sound, REFUSED))),
        mirrored=max(SURELY, float(np.quantile(mirrored, 1 - WARNED))),
        distance=float(max(np.quantile(away, 1 - REFUSED), away.mean() + FAR * away.std())),
    )


def fit_network(images: Pixels, rng: np.random.Generator) -> tuple[Reference, Network, list[str]]:
    """Fit on training images (n, H, W); with the names of the network's outputs."""
    shifted = [np.stack([moved(image, rng) for image in images]) for _ in range(MOVED)]
    grids = [to_grids(fit) for fit in (images, *shifted)]
    names = [FIT] * len(images) * len(grids)
    ranks = to_ranks(np.concatenate(grids))
    both = np.concatenate([ranks, ranks.reshape(-1, SIDE, SIDE)[..., ::-1].reshape(ranks.shape)])
    components = np.linalg.eigh(both.T @ both)[1].T[: -COMPONENTS - 1 : -1]  # the largest first
    reference = Reference(unit(ranks.mean(0, keepdims=True))[0], components)
    for kind, spoil in SPOILT:
        chosen = images[rng.permutation(len(images))[:MOST_SPOILT]]
        spoilt = [spoil(moved(i, rng) if rng.random() < 0.5 else i, rng) for i in chosen]
        grids.append(to_grids(np.stack([square(image, len(images[0])) for image in spoilt])))
        names += [kind] * len(spoilt)
    given = reference.statistics(np.concatenate(grids))
    centre, scale = given.mean(0), given.std(0) + 1e-6
    scaled = (given - centre) / scale
    kinds = sorted(set(names))
    codes = np.array([kinds.index(name) for name in names])
    models = []
    for _ in range(AVERAGED):
        model = MLPClassifier((UNITS,), alpha=DECAY, random_state=int(rng.integers(2**31)))
        for _ in range(EPOCHS):
            model.partial_fit(scaled, codes, classes=range(len(kinds)))
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
