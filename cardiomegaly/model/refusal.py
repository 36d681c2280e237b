"""Is this a chest radiograph as the model was trained on? If not, why not.

An image is reduced to 32 x 32 grey levels, and these to their ranks, so that exposure does not
count. Statistics: similarity with the mean training image in eight orientations (inverted, it is
negative), the scores of the training images' principal components and what these leave over, and
how rough the picture is. A small neural network on them, taught on training images and on the same
made unfit, says what is wrong, and limits fitted on validation when to say so
(`training.refusal_fitting`). Apart from these, an image is refused whose pooled features lie
farther from the training images' than a limit.

Source of the last: Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML
2022.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from cardiomegaly import UserError

SIDE = 32
NEIGHBOUR = 5  # its distance counts, of pooled features
BLANK = 4.0  # grey levels of standard deviation
FIT, MIRRORED, UNLIKE = "fit", "mirrored", "no chest radiograph as it was trained on"
LIMITS = ("sound", "mirrored", "distance")
PLACES = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
ORIENTATIONS = np.stack(
    [np.rot90(start, turn).ravel() for start in (PLACES, PLACES[:, ::-1]) for turn in range(4)]
)

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """What images are compared with.

    Attributes:
        mean: (1024,) ranks of the mean training image, of length 1.
        components: (K, 1024) principal ones of the training images' ranks and of their mirrors'.
    """

    mean: Array
    components: Array

    def statistics(self, grids: Array) -> Array:
        """(B, 32, 32) grey levels -> (B, S)."""
        ranks = to_ranks(grids)
        turned = np.empty((len(ORIENTATIONS), SIDE * SIDE), np.float32)  # the mean, not every image
        np.put_along_axis(turned, ORIENTATIONS, self.mean[None], axis=1)
        scores = ranks @ self.components.T
        left_over = 1 - (scores**2).sum(1)
        rough = np.abs(np.diff(grids, axis=1)).mean((1, 2)) + np.abs(np.diff(grids)).mean((1, 2))
        spread = grids.std((1, 2))
        others = np.stack([left_over, rough / (spread + 1), np.log1p(spread)], axis=1)
        return np.concatenate([ranks @ turned.T, scores, others], axis=1)


@dataclass(frozen=True)
class Network:
    """One hidden layer of rectified linear units, from statistics to the probability of each kind.

    Attributes:
        centre, scale: (S,) of the statistics.
        hidden, hidden_bias: (S, H) and (H,).
        output, output_bias: (H, kinds) and (kinds,).
    """

    centre: Array
    scale: Array
    hidden: Array
    hidden_bias: Array
    output: Array
    output_bias: Array

    def probabilities(self, statistics: Array) -> Array:
        """(B, S) -> (B, kinds)."""
        given = (statistics - self.centre) / self.scale
        units = np.maximum(given @ self.hidden + self.hidden_bias, 0)
        scores = units @ self.output + self.output_bias
        powers: Array = np.exp(scores - scores.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)


@dataclass(frozen=True)
class Refusal:
    """What is needed to refuse an image, as it is kept with a run.

    Attributes:
        reference: for the statistics.
        network: on these.
        kinds: FIT, MIRRORED, and what an unfit image is called.
        features: (n, C) of training images, each of length 1.
        sound: limit of the probability of being fit or mirrored, below which an image is refused.
        mirrored: limit of the probability of being mirrored if it is one of both, over which that
            is said.
        distance: limit of that of the fifth nearest features, over which an image is refused.
    """

    reference: Reference
    network: Network
    kinds: list[str]
    features: Array
    sound: float
    mirrored: float
    distance: float

    def reasons(self, pixels: NDArray[np.uint8], pooled: Array) -> list[tuple[bool, str]]:
        """Whether each image (B, H, W) with features (B, C) is refused, and why; or a warning.

        On one thread: others of NumPy's would wait for more to do, and take the network's cores.
        """
        with _blas().limit(limits=1, user_api="blas"):
            probability = self.network.probabilities(self.reference.statistics(to_grids(pixels)))
            far = distances(pooled, self.features) > self.distance
        sound, mirrored = soundness(probability, self.kinds)
        probability[:, [self.kinds.index(FIT), self.kinds.index(MIRRORED)]] = 0
        result = []
        for row, flat in enumerate(pixels.std((1, 2)) < BLANK):
            if flat:
                result.append((True, "blank"))
            elif sound[row] < self.sound:
                result.append((True, self.kinds[int(probability[row].argmax())]))
            elif far[row]:
                result.append((True, UNLIKE))
            else:
                warned = mirrored[row] > self.mirrored
                result.append((False, "warning: mirrored" if warned else ""))
        return result

    def to_bytes(self) -> bytes:
        """All of it as an .npz file, numbers in half precision where that is enough."""
        file = io.BytesIO()
        halves = asdict(self.reference) | {"features": self.features}
        others = asdict(self.network) | {name: getattr(self, name) for name in LIMITS}
        halves = {name: array.astype(np.float16) for name, array in halves.items()}
        np.savez_compressed(file, kinds=self.kinds, **halves, **others)
        return file.getvalue()


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def of_bytes(data: bytes, source: object) -> Refusal:
    """Read what `to_bytes` wrote; nothing in it is executed.

    Raises:
        UserError: it is something else.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            kinds = [str(kind) for kind in file["kinds"]]
            arrays = {name: file[name].astype(np.float32) for name in file.files if name != "kinds"}
        return Refusal(
            reference=Reference(arrays.pop("mean"), arrays.pop("components")),
            kinds=kinds,
            features=arrays.pop("features"),
            **{name: float(arrays.pop(name)) for name in LIMITS},
            network=Network(**arrays),
        )
    except Exception as error:  # whatever a damaged or hostile file makes numpy and zipfile say
        raise UserError(
            f"{source} holds no readable statistics for refusing images ({error}); train or export "
            "again"
        ) from error


def soundness(probability: Array, kinds: list[str]) -> tuple[Array, Array]:
    """Of (B, kinds): the probability of being fit or mirrored, and of the latter given that."""
    mirrored = probability[:, kinds.index(MIRRORED)]
    sound = probability[:, kinds.index(FIT)] + mirrored
    return sound, mirrored / np.maximum(sound, 1e-12)


def to_grids(pixels: NDArray[np.uint8]) -> Array:
    """(B, H, W) -> (B, 32, 32) grey levels."""
    small = [cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in pixels]
    return np.stack(small).astype(np.float32)


def to_ranks(grids: Array) -> Array:
    """(B, 32, 32) -> (B, 1024): ranks, centred and of length 1."""
    order = grids.reshape(len(grids), -1).argsort(axis=1, kind="stable")
    ranks = np.empty(order.shape, np.float32)
    np.put_along_axis(ranks, order, np.arange(SIDE**2, dtype=np.float32)[None], axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    return ranks / np.linalg.norm(ranks, axis=1, keepdims=True)


def unit(vectors: Array) -> Array:
    """Vectors (n, C) at length 1."""
    scaled: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return scaled


def distances(pooled: Array, features: Array) -> Array:
    """How far the fifth nearest of features (n, C) is from each of (B, C), all at length 1."""
    similarity = unit(pooled) @ features.T
    place = max(0, similarity.shape[1] - NEIGHBOUR)
    fifth = np.partition(similarity, place, axis=1)[:, place]
    found: Array = np.sqrt(np.maximum(0, 2 - 2 * fifth))
    return found
