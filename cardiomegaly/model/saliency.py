"""Where a classifier looks: Grad-CAM on its last feature maps, for heads without attention too."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cardiomegaly import UserError
from cardiomegaly.model.classifier import CardiomegalyClassifier

Maps = NDArray[np.float32]


def gradcam_maps(classifier: CardiomegalyClassifier, image: torch.Tensor) -> Maps:
    """Grad-CAM of the logit, (B, H, W) from 0 to 1, for images (B, 1, H, W).

    It is taken at the backbone's output, so a frozen backbone needs no gradient.

    Raises:
        UserError: the package grad-cam is not installed.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017; the package grad-cam.
    """
    try:
        from pytorch_grad_cam import GradCAM
    except ImportError as error:
        raise UserError(
            "gradcam: the package grad-cam is not installed; "
            "say pip install 'cardiomegaly[explain]' or gradcam=false"
        ) from error
    explained = _FromFeatures(classifier.eval())
    whole = classifier.backbone.whole
    with GradCAM(explained, [explained.features], reshape_transform=whole) as cam:
        found: Maps = cam(image, [lambda logit: logit] * len(image))
    classifier.zero_grad()
    return found


class _FromFeatures(nn.Module):
    """The classifier with its feature maps as a layer that gradients reach."""

    def __init__(self, classifier: CardiomegalyClassifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.features = nn.Identity()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.classifier.backbone(image).detach().requires_grad_()
        logits: torch.Tensor = self.classifier.head(self.features(features)).logits
        return logits
