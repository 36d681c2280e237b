"""Is this a chest radiograph as the model was trained on? If not, why not.

An image is reduced to 32 x 32 grey levels, and these to their ranks, so that exposure does not
count. Statistics: similarity with the mean training image and with the nearest training images, in
eight orientations and inverted; what the training images' principal components leave over; and
how rough the picture is. A multinomial logistic regression on them and their squares says what is
wrong, and a limit fitted on validation when to say so (`training.refusal_fitting`). Apart from
these, an image is refused whose pooled features lie farther from the training images' than a limit.

Source of the last: Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML
2022.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from cardiomegaly import UserError

SIDE = 32
NEIGHBOUR = 5  # its distance counts, of pooled features
MIRRORED_SURELY = 0.97  # its probability, before that is said
BLANK = 4.0  # grey levels of standard deviation
FIT, MIRRORED, UNLIKE = "fit", "mirrored", "no chest radiograph as it was trained on"
PLACES = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
ORIENTATIONS = np.stack(
    [np.rot90(start, turn).ravel() for start in (PLACES, PLACES[:, ::-1]) for turn in range(4)]
)

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """What images are compared with: all of the training part.

    Attributes:
        mean: (1024,) ranks of the mean image.
        images: (n, 1024) ranks.
        components: (K, 1024) principal ones of the ranks.
    """

    mean: Array
    images: Array
    components: Array

    def statistics(self, grids: Array) -> Array:
        """(B, 32, 32) grey levels -> (B, S)."""
        ranks = to_ranks(grids)
        turned = ranks[:, ORIENTATIONS]  # (B, 8, 1024)
        near = turned @ self.images.T
        scores = ranks @ self.components.T
        left_over = 1 - (scores**2).sum(1)
        rough = np.abs(np.diff(grids, axis=1)).mean((1, 2)) + np.abs(np.diff(grids)).mean((1, 2))
        spread = grids.std((1, 2))
        columns = [
            turned @ self.mean, near.max(2), -near[:, 0].min(1, keepdims=True),
            scores, np.stack([left_over, rough / (spread + 1), np.log1p(spread)], axis=1),
        ]  # fmt: skip
        return np.concatenate(columns, axis=1)


@dataclass(frozen=True)
class Refusal:
    """What is needed to refuse an image, as it is kept with a run.

    Attributes:
        reference: for the statistics.
        centre, scale: (2 S,) of the statistics and their squares.
        weights, bias: (kinds, 2 S) and (kinds,) of the logistic regression.
        kinds: FIT, MIRRORED, and what an unfit image is called.
        limit: of the probability of being fit or mirrored, below which an image is refused.
        features: (n, C) of the training images, each of length 1.
        distance: of the fifth nearest of these, over which an image is refused.
    """

    reference: Reference
    centre: Array
    scale: Array
    weights: Array
    bias: Array
    kinds: list[str]
    limit: float
    features: Array
    distance: float

    def reasons(self, pixels: NDArray[np.uint8], pooled: Array) -> list[tuple[bool, str]]:
        """Whether each image (B, H, W) with features (B, C) is refused, and why; or a warning."""
        grids = to_grids(pixels)
        probability = self.probabilities(self.reference.statistics(grids))
        fit = [self.kinds.index(FIT), self.kinds.index(MIRRORED)]
        sound = probability[:, fit].sum(1)
        probability[:, self.kinds.index(FIT)] = 0
        wrong = probability.copy()
        wrong[:, self.kinds.index(MIRRORED)] = 0
        far = distances(pooled, self.features) > self.distance
        result = []
        for row, flat in enumerate(pixels.std((1, 2)) < BLANK):
            if flat:
                result.append((True, "blank"))
            elif sound[row] < self.limit:
                result.append((True, self.kinds[int(wrong[row].argmax())]))
            elif far[row]:
                result.append((True, UNLIKE))
            else:
                mirrored = probability[row, fit[1]] > MIRRORED_SURELY
                result.append((False, "warning: mirrored" if mirrored else ""))
        return result

    def probabilities(self, statistics: Array) -> Array:
        """(B, S) -> (B, kinds)."""
        scores = (with_squares(statistics) - self.centre) / self.scale @ self.weights.T + self.bias
        powers: Array = np.exp(scores - scores.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    def to_bytes(self) -> bytes:
        """All of it as an .npz file, numbers in half precision where that is enough."""
        file = io.BytesIO()
        arrays = {name: getattr(self.reference, name).astype(np.float16) for name in _names()}
        arrays |= {f.name: getattr(self, f.name) for f in fields(self) if f.name != "reference"}
        arrays["features"] = self.features.astype(np.float16)
        np.savez_compressed(file, **arrays)
        return file.getvalue()


def of_bytes(data: bytes, source: object) -> Refusal:
    """Read what `to_bytes` wrote; nothing in it is executed.

    Raises:
        UserError: it is something else.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
        reference = Reference(**{name: arrays.pop(name).astype(np.float32) for name in _names()})
        return Refusal(
            reference=reference,
            kinds=[str(kind) for kind in arrays.pop("kinds")],
            limit=float(arrays.pop("limit")),
            distance=float(arrays.pop("distance")),
            **{name: value.astype(np.float32) for name, value in arrays.items()},
        )
    except Exception as error:  # whatever a damaged or hostile file makes numpy and zipfile say
        raise UserError(
            f"{source} holds no readable statistics for refusing images ({error}); train or export "
            "again, or say refuse=false"
        ) from error


def _names() -> list[str]:
    return [field.name for field in fields(Reference)]


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


def with_squares(statistics: Array) -> Array:
    """(B, S) -> (B, 2 S)."""
    return np.concatenate([statistics, statistics**2], axis=1)


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
