"""Losses that torch lacks; `conf/loss` names them, and torch's own binary cross-entropy.

A loss is a module: logits (B,) and targets (B,), 0 or 1, in; a number out. `attention_loss` is a
term beside any of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss


class BinaryCrossEntropy(nn.Module):
    """Binary cross-entropy with a weight for positives and smoothed labels.

    Args:
        pos_weight: how many times a positive counts.
        smoothing: targets are drawn this share of the way to one half.

    Source of smoothing: Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016.
    """

    def __init__(self, pos_weight: float, smoothing: float) -> None:
        super().__init__()
        if not (pos_weight > 0 and 0 <= smoothing < 1):
            raise ValueError(
                "pos_weight must be over 0, smoothing at least 0 and under 1, "
                f"got {pos_weight} and {smoothing}"
            )
        self.pos_weight = pos_weight
        self.smoothing = smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits (B,), targets (B,) -> the mean."""
        smooth = target * (1 - self.smoothing) + self.smoothing / 2
        weight = logits.new_tensor(self.pos_weight)
        return F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=weight)


class FocalLoss(nn.Module):
    """Cross-entropy in which images that are easy already count little.

    Args:
        alpha: weight of positives, 1 - alpha that of negatives; under 0 for none.
        gamma: how little; 0 is cross-entropy.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.
    """

    def __init__(self, alpha: float, gamma: float) -> None:
        super().__init__()
        if not (alpha <= 1 and gamma >= 0):
            raise ValueError(f"alpha must be at most 1, gamma at least 0, got {alpha} and {gamma}")
        self.alpha = alpha
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits (B,), targets (B,) -> the mean."""
        return sigmoid_focal_loss(logits, target, self.alpha, self.gamma, reduction="mean")


def attention_loss(attention: Tensor, heart: Tensor) -> Tensor:
    """How little of the attention lies in the heart: minus the logarithm of its share.

    Args:
        attention: (B, 1, h, w), over 0.
        heart: (B, 1, H, W), 0 outside of the heart; 0 everywhere where it is not known.

    Returns:
        The sum over the images whose heart is known, by the number B of all; at least 0.
    """
    height, width = attention.shape[-2:]
    cover = F.adaptive_avg_pool2d((heart > 0).float(), (height, width))
    known = cover.amax((1, 2, 3)) > 0
    tiny = torch.finfo(torch.float32).tiny
    inside = (attention * cover).sum((1, 2, 3)).clamp_min(tiny)
    share = inside / attention.sum((1, 2, 3)).clamp_min(tiny)
    return -torch.where(known, share, 1.0).log().mean()
