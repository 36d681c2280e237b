"""Backbone and head as one network: grey images in, logits and an attention map out.

Design choices: no Lightning here, so that prediction, export and the page need none of it; the
network returns logits, and whoever needs probabilities applies the sigmoid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from cardiomegaly.config import BackboneConfig
from cardiomegaly.model.backbone import Backbone
from cardiomegaly.model.building import build
from cardiomegaly.model.heads import HeadOutput


class CardiomegalyClassifier(nn.Module):
    """Logits of cardiomegaly, and the attention map of a head that has one.

    Args:
        backbone: which network; its weights are loaded by the caller.
        head: `_target_` and options of the head.

    Raises:
        UserError: as `Backbone` and `building.build`.
    """

    def __init__(self, backbone: BackboneConfig, head: Mapping[str, Any]) -> None:
        super().__init__()
        self.backbone = Backbone(backbone)
        self.head: nn.Module = build(
            head,
            "head",
            nn.Module,
            {
                "in_features": self.backbone.num_features,
                "feature_size": self.backbone.feature_size,
            },
        )

    def forward(self, image: torch.Tensor) -> HeadOutput:
        """(B, 1 or 3, H, W), `uint8` or float in [0, 1] -> logits (B,), attention (B, 1, h, w)."""
        logits, attention = self.head(self.backbone(image))
        return HeadOutput(logits, None if attention is None else self.backbone.whole(attention))

    @property
    def attends(self) -> bool:
        """Whether the head has an attention map."""
        features = torch.zeros(1, self.backbone.num_features, *self.backbone.feature_size)
        training = self.head.training
        with torch.no_grad():
            attention = self.head.eval()(features).attention
        self.head.train(training)
        return attention is not None

    def features(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Features (B, C, h, w) of a batch: its own, or those of its `image` (B, 1, H, W)."""
        if "features" not in batch:
            return self.backbone(batch["image"])
        device = batch["features"].device.type
        mixed = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if mixed else torch.float32
        # float16 to bfloat16 at once is slow
        return batch["features"].float().to(dtype)

    def logits(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits (B,) of a batch as in `features`, in float32."""
        return self.head(self.features(batch)).logits.float()
