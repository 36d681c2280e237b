"""What follows the backbone: feature maps in, one logit an image out, and an attention map.

`GWAPHead` is the study's; `GAPHead` and `DenseHead` are its earlier steps. Another head is a
module with `forward(features) -> HeadOutput` whose class is named by `head._target_`, built with
`in_features` (channels) and `feature_size` (height, width) besides its own options. Where it has
a method `contribution`, that map explains it, and Grad-CAM where it has none.

Source of attention-weighted pooling as used here: K. Mader, "Attention on Pretrained-VGG16 for
Bone Age", Kaggle, 2018, which the Keras study follows.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


class HeadOutput(NamedTuple):
    """`logits` (B,), and `attention` (B, 1, h, w) in [0, 1], or None where a head has none."""

    logits: torch.Tensor
    attention: torch.Tensor | None


def global_weighted_average_pooling(rows: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    """Average features over the positions, weighted by attention.

    Args:
        rows: (B, P, C), the features of P positions.
        attention: (B, P), not negative.

    Returns:
        (B, C); the plain average for uniform attention, and 0 where attention vanishes everywhere.
    """
    total = attention.sum(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return torch.bmm((attention / total)[:, None], rows)[:, 0]


class GWAPHead(nn.Module):
    """Batch norm, attention map, global weighted average pooling, dropout and two dense layers.

    Two ways of writing make it train several times as fast on a processor, with the same result:
    1x1 convolutions are linear layers on rows (B * h * w, C), which for channels-last features is
    a view; and batch norm, being one scale and one shift a channel, is moved into the first linear
    layer and behind the pooling, so that normalised features are never written down.

    Args:
        in_features: channels of the feature maps.
        feature_size: height and width of the feature maps (any; taken for a common signature).
        attention_channels: of the 1x1 convolutions before the map.
        hidden: units of the first dense layer.
        dropout: before each dense layer.
    """

    def __init__(
        self,
        in_features: int,
        feature_size: tuple[int, int],
        attention_channels: list[int],
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(in_features)
        self.first = nn.Linear(in_features, attention_channels[0])
        self.others = nn.ModuleList(
            nn.Linear(before, after) for before, after in pairwise(attention_channels)
        )
        self.attention_map = nn.Linear(attention_channels[-1], 1)
        self.classify = _dense_layers(in_features, hidden, dropout)

    def forward(self, features: torch.Tensor) -> HeadOutput:
        """(B, C, h, w) -> logits (B,) and attention (B, 1, h, w)."""
        batch, channels, height, width = features.shape
        rows = features.permute(0, 2, 3, 1).reshape(-1, channels)
        rows, scale, shift = self._normalise(rows)
        attention = self._attend(rows, scale, shift, (batch, height, width))
        pooled = global_weighted_average_pooling(
            rows.view(batch, height * width, channels), attention.reshape(batch, -1).to(rows.dtype)
        )
        return HeadOutput(_score(self.classify, pooled * scale + shift), attention)

    def contribution(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> what each position adds to the logit (B, h, w); see `contributions`."""
        batch, channels, height, width = features.shape
        rows = features.permute(0, 2, 3, 1).reshape(-1, channels)
        rows, scale, shift = self._normalise(rows)
        weight = self._attend(rows, scale, shift, (batch, height, width)).reshape(batch, -1, 1)
        share = weight / weight.sum(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        shares = share * (rows * scale + shift).view(batch, -1, channels)
        return contributions(self.classify, shares).view(batch, height, width)

    def _normalise(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows, scale and shift (C,) so that rows * scale + shift is their batch norm."""
        norm = self.norm
        if self.training and rows.requires_grad:  # then gradients run through the statistics
            return norm(rows), torch.ones_like(norm.weight), torch.zeros_like(norm.bias)
        assert norm.running_mean is not None and norm.running_var is not None  # noqa: S101
        if self.training:
            _, mean, inverse_std = torch.native_batch_norm(
                rows, None, None, norm.running_mean, norm.running_var, True, 0.1, norm.eps
            )
        else:
            mean, inverse_std = norm.running_mean, torch.rsqrt(norm.running_var + norm.eps)
        scale = norm.weight * inverse_std
        return rows, scale, norm.bias - mean * scale

    def _attend(
        self,
        rows: torch.Tensor,
        scale: torch.Tensor,
        shift: torch.Tensor,
        grid: tuple[int, int, int],
    ) -> torch.Tensor:
        """The attention map (B, 1, h, w) in [0, 1], float32."""
        weight = self.first.weight
        x = F.elu(F.linear(rows, weight * scale, self.first.bias + weight @ shift))
        for convolution in self.others:
            x = F.elu(convolution(x))
        x = x.view(*grid, -1).permute(0, 3, 1, 2)
        # 2x2 average pooling, stride 1, "same": in Keras the padding below and right does not count
        x = F.avg_pool2d(x, 2, stride=1, padding=1, count_include_pad=False)[:, :, 1:, 1:]
        return torch.sigmoid(self.attention_map(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).float())


class GAPHead(nn.Module):
    """Global average pooling and two dense layers: the study's step before attention."""

    def __init__(
        self, in_features: int, feature_size: tuple[int, int], hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.classify = _dense_layers(in_features, hidden, dropout)

    def forward(self, features: torch.Tensor) -> HeadOutput:
        """(B, C, h, w) -> logits (B,); no attention."""
        return HeadOutput(_score(self.classify, features.mean(dim=(2, 3))), None)

    def contribution(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> what each position adds to the logit (B, h, w), as in `GWAPHead`."""
        rows = features.flatten(2).transpose(1, 2)
        return contributions(self.classify, rows / rows.shape[1]).view(features[:, 0].shape)


class DenseHead(nn.Module):
    """All positions flattened into two dense layers: the study's first step."""

    def __init__(
        self, in_features: int, feature_size: tuple[int, int], hidden: int, dropout: float
    ) -> None:
        super().__init__()
        height, width = feature_size
        self.classify = _dense_layers(in_features * height * width, hidden, dropout)

    def forward(self, features: torch.Tensor) -> HeadOutput:
        """(B, C, h, w) -> logits (B,); no attention."""
        return HeadOutput(_score(self.classify, features.flatten(1)), None)


def contributions(layers: nn.Sequential, shares: torch.Tensor) -> torch.Tensor:
    """Integrated gradients of the logit, from a zero pooled vector, summed over channels.

    The integral has a closed form: from 0 to a hidden unit's input z, the mean slope of its ELU is
    (ELU(z + b) - ELU(b)) / z.

    Args:
        layers: the dense layers behind the pooling, in eval mode.
        shares: (B, P, C), of P positions; they sum to the pooled vector.

    Returns:
        (B, P); the positions of an image sum to its logit minus that of the zero vector.

    Source: Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017.
    """
    hidden, last = (layer for layer in layers if isinstance(layer, nn.Linear))
    parts = F.linear(shares.float(), hidden.weight)
    z = parts.sum(dim=1)
    flat = z.abs() < 1e-6  # where the quotient would be rounding alone: the slope itself
    rise = (F.elu(z + hidden.bias) - F.elu(hidden.bias)) / torch.where(flat, 1.0, z)
    slope = torch.where(flat, hidden.bias.clamp_max(0).exp().expand_as(z), rise)
    return (parts * (slope * last.weight[0])[:, None]).sum(dim=2)


def _dense_layers(in_features: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(in_features, hidden),
        nn.ELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, 1),
    )


def _score(layers: nn.Sequential, pooled: torch.Tensor) -> torch.Tensor:
    """Logits (B,) in float32: bfloat16 would leave a few hundred different probabilities."""
    with torch.autocast(pooled.device.type, enabled=False):
        return layers(pooled.float()).squeeze(1)
