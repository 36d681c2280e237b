"""What a trained model says of images, whichever library computed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, logsumexp

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Prediction:
    """Of B images: `logits` (B,), `attention` (B, h, w) or None, `pooled` (B, C).

    Logits are float64: rounding would tie images far from the threshold. `pooled` are the
    backbone's features, averaged over the positions.
    """

    logits: NDArray[np.float64]
    attention: NDArray[np.float32] | None
    pooled: NDArray[np.float32]

    @property
    def probability(self) -> NDArray[np.float64]:
        """(B,), not calibrated."""
        probability: NDArray[np.float64] = expit(self.logits)
        return probability


def join(parts: Sequence[Prediction]) -> Prediction:
    """Predictions of several batches as one."""
    maps = [part.attention for part in parts if part.attention is not None]
    return Prediction(
        np.concatenate([part.logits for part in parts]),
        np.concatenate(maps) if maps else None,
        np.concatenate([part.pooled for part in parts]),
    )


def mean_logit(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits (K, B) of K predictions of the same images -> (B,), that of their mean probability."""
    return np.asarray(
        logsumexp(log_expit(logits), axis=0) - logsumexp(log_expit(-logits), axis=0), np.float64
    )


def predict_views(predictor: ImagePredictor, images: Images, flips: bool) -> Prediction:
    """Predict images (B, 1, H, W), with `flips` each averaged with its mirror image.

    The attention and the pooled features are those of the images as they are.
    """
    prediction = predictor.predict(images)
    if not flips:
        return prediction
    mirrored = predictor.predict(np.ascontiguousarray(images[..., ::-1]))
    return replace(prediction, logits=mean_logit(np.stack([prediction.logits, mirrored.logits])))


class ImagePredictor(Protocol):
    """What `predictor.Predictor` (torch) and `onnx.OnnxPredictor` have in common.

    `image_size` is the height and width in pixels that it was trained with; `contribution_name`
    says what `contribution` is: that, or Grad-CAM.
    """

    image_size: int
    contribution_name: str

    def predict(self, images: Images) -> Prediction:
        """Predict images (B, 1, H, W)."""

    def contribution(self, images: Images) -> NDArray[np.float32]:
        """What each position of images (B, 1, H, W) adds to the logit (B, h, w)."""
