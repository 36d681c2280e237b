"""Folded batch norms: the same features, and the network itself where they would not be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from timm.layers import StdConv2d
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from cardiomegaly import config
from cardiomegaly.model.backbone import Backbone
from cardiomegaly.model.folding import fold_batch_norms

# Batch norms that follow no convolution:
KEPT = {"resnet152v2": 51, "densenet121": 62, "inceptionv3": 9}
NAMES = list(config.backbones())


def count(network: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in network.modules())


def with_statistics(network: nn.Module) -> nn.Module:
    """As after a training: batch norms that change what goes through them."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            for tensor in (module.running_mean, module.bias):
                tensor.data.normal_(0, 0.1, generator=generator)  # type: ignore[union-attr]
            for tensor in (module.running_var, module.weight):
                tensor.data.uniform_(0.5, 1.5, generator=generator)  # type: ignore[union-attr]
    return network


class Small(nn.Module):
    """Two convolutions, two batch norms; `middle` acts on what is between the first of each."""

    def __init__(self, convolution: type[nn.Conv2d] = nn.Conv2d, middle: Any = None) -> None:
        super().__init__()
        self.conv1, self.norm1 = convolution(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = convolution(8, 8, 1), nn.BatchNorm2d(8)
        self.middle = middle
        with_statistics(self).eval()

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        if self.middle is not None:
            x = self.middle(x)
        x = F.relu(self.norm1(x))
        return self.norm2(self.conv2(x))


class UsedTwice(Small):
    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        return self.norm1(x) + x


class SharedNorm(Small):
    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm1(self.conv2(self.norm1(self.conv1(x))))


@pytest.mark.parametrize("name", NAMES)
def test_a_frozen_backbone_gives_the_same_features(
    composed: Callable[..., DictConfig], name: str
) -> None:
    settings = config.check(composed(f"backbone={name}", "backbone.image_size=96"))
    backbone = Backbone(settings.backbone)
    with_statistics(backbone.model)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    image = torch.randint(0, 256, (3, 1, 96, 96), dtype=torch.uint8)
    found = backbone(image)
    with torch.no_grad():
        expected = backbone.model.forward_features(backbone.normalise(image))
    torch.testing.assert_close(found / expected.std(), expected / expected.std(), atol=1e-3, rtol=0)
    assert count(backbone._folded_network()) == KEPT.get(name, 0)
    after = backbone.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert set(after) == set(before)


def test_other_weights_are_noticed(composed: Callable[..., DictConfig]) -> None:
    settings = config.check(composed("backbone.image_size=64")).backbone
    one, other = Backbone(settings), Backbone(settings)
    image = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    first = one(image)
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(other(image), first)
    with torch.no_grad():
        next(other.model.parameters()).mul_(2)
    assert not torch.allclose(other(image), first)
    assert torch.equal(one(image), first)
    folded = one._folded_network()
    assert one._folded_network() is folded  # kept while nothing changes
    assert one.to(memory_format=torch.channels_last)._folded_network() is not folded


def test_in_inference_mode(composed: Callable[..., DictConfig]) -> None:
    settings = config.check(composed("backbone.image_size=64")).backbone
    image = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    backbone = Backbone(settings)
    with torch.inference_mode():
        inside, made_inside = backbone(image), Backbone(settings)(image)
    assert torch.equal(inside, Backbone.forward(backbone, image))
    assert made_inside.shape == inside.shape
    assert count(backbone._folded_network()) == 0


def test_what_follows_a_convolution_is_folded() -> None:
    network, probe = Small(), torch.rand(2, 3, 8, 8)
    folded = fold_batch_norms(network, probe)
    assert (count(folded), count(network)) == (0, 2)
    with torch.no_grad():
        torch.testing.assert_close(folded.forward_features(probe), network.forward_features(probe))


def test_what_is_changed_before_its_batch_norm_is_left() -> None:
    for middle in (torch.relu, lambda x: x.add_(1)):
        folded = fold_batch_norms(Small(middle=middle), torch.rand(2, 3, 8, 8))
        assert isinstance(folded.norm1, nn.BatchNorm2d)
        assert isinstance(folded.norm2, nn.Identity)


@pytest.mark.parametrize("network", [UsedTwice(), Small(StdConv2d)])
def test_where_the_features_would_differ_nothing_is_folded(network: nn.Module) -> None:
    assert fold_batch_norms(network, torch.rand(2, 3, 8, 8)) is network


def test_a_shared_batch_norm_is_left() -> None:
    network, probe = SharedNorm(), torch.rand(2, 3, 8, 8)
    folded = fold_batch_norms(network, probe)
    assert count(folded) == 2
    with torch.no_grad():
        assert torch.equal(folded.forward_features(probe), network.forward_features(probe))
