"""Batch norms of a frozen network, folded into the convolutions before them.

In eval mode a batch norm multiplies and shifts each channel by constants, which the weights and
bias of the convolution before it can hold: the same values, one pass over memory less.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils.hooks import RemovableHandle

TOLERANCE = 1e-3  # of the largest feature, between folded and not
Pairs = list[tuple[str, str]]


@torch.no_grad()
def fold_batch_norms(network: Any, probe: torch.Tensor) -> Any:
    """A copy of a timm network in eval mode whose convolutions hold the batch norms after them.

    Batch norms that follow no convolution stay. Where the copy does not give what the network
    gives for `probe` (a convolution that scales its own weights, an output used twice), nothing is
    folded and the network itself is returned.

    Args:
        network: with `forward_features`, in eval mode.
        probe: images (B, 3, H, W) as it takes them.
    """
    device = probe.device.type
    with torch.autocast(device, enabled=False):
        expected, pairs = _followed(network, probe)
        if not pairs:
            return network
        folded = copy.deepcopy(network)
        used = Counter(name for pair in pairs for name in pair)
        for convolution, norm in pairs:
            if used[convolution] == used[norm] == 1:
                _fold(folded, convolution, norm)
        found = folded.forward_features(probe)
    error = (found - expected).abs().max() / expected.abs().max().clamp(min=1e-12)
    return folded if error < TOLERANCE else network


def _followed(network: Any, probe: torch.Tensor) -> tuple[torch.Tensor, Pairs]:
    """Features, and the names of convolutions and of the batch norms that take their outputs."""
    names = {module: name for name, module in network.named_modules()}
    outputs: dict[int, tuple[torch.Tensor, int, nn.Module]] = {}  # held, so that ids stay theirs
    pairs: Pairs = []

    def gave(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        outputs[id(output)] = (output, output._version, module)

    def took(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        held, version, convolution = outputs.get(id(inputs[0]), (None, 0, module))
        if held is not None and held._version == version:  # not changed in place meanwhile
            pairs.append((names[convolution], names[module]))

    handles: list[RemovableHandle] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(gave))
        elif isinstance(module, _BatchNorm):
            handles.append(module.register_forward_pre_hook(took))
    try:
        return network.forward_features(probe), pairs
    finally:
        for handle in handles:
            handle.remove()


def _fold(network: nn.Module, convolution: str, norm: str) -> None:
    conv: Any = network.get_submodule(convolution)
    bn: Any = network.get_submodule(norm)
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
    )
    # timm's batch norm may do more: dropout (idle in eval mode) and the activation.
    network.set_submodule(norm, getattr(bn, "act", None) or nn.Identity())
