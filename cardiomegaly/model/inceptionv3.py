"""Keras' InceptionV3 as a torch module, registered with timm as `inceptionv3`.

Paper: Rethinking the Inception Architecture for Computer Vision, https://arxiv.org/abs/1512.00567

It is timm's `inception_v3` but for the 3x3 average pooling in nine of its blocks, where timm counts
the padding and Keras and TensorFlow do not; parameters keep timm's names, so that weights of either
fit. Same outputs as Keras for the same weights, whatever the image size. Keras' batch norms have no
scale of their own: it is 1 in weights from there, and trained here where the network is trained.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.inception_v3 import InceptionA, InceptionC, InceptionE, InceptionV3
from torch import Tensor, nn
from torch.nn import functional as F


class PooledConv(nn.Module):
    """The 1x1 convolution behind timm's average pooling, of whose mean it takes out the padding.

    Args:
        layer: timm's, with `conv` and `bn`.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.conv, self.bn = layer.conv, layer.bn

    def forward(self, x: Tensor) -> Tensor:
        inside = F.avg_pool2d(torch.ones_like(x[:1, :1]), kernel_size=3, stride=1, padding=1)
        return self.bn(self.conv(x).div_(inside))  # as x / inside, on fewer channels


class KerasInceptionV3(InceptionV3):
    """InceptionV3: image (B,3,H,W) to features (B,2048,h,w), then timm's classifier."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for block in self.modules():
            if isinstance(block, InceptionA | InceptionC | InceptionE):
                block.branch_pool = PooledConv(block.branch_pool)


default_cfgs = generate_default_cfgs(
    {
        "inceptionv3.tf_in1k": {
            "hf_hub_id": "timm/inception_v3.tf_in1k",
            "num_classes": 1000,
            "input_size": (3, 299, 299),
            "pool_size": (8, 8),
            "crop_pct": 0.875,
            "interpolation": "bicubic",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "first_conv": "Conv2d_1a_3x3.conv",
            "classifier": "fc",
            "license": "apache-2.0",
        }
    }
)


@register_model
def inceptionv3(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Keras' InceptionV3; timm passes its own arguments through."""
    return build_model_with_cfg(KerasInceptionV3, "inceptionv3", pretrained, **kwargs)
