"""Heads: the GWAP arithmetic against hand computations and a plain convolutional writing of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F

from cardiomegaly import config
from cardiomegaly.model import building
from cardiomegaly.model.heads import (
    GAPHead,
    GWAPHead,
    contributions,
    global_weighted_average_pooling,
)

CHANNELS, SIZE = 24, (5, 7)


def build(name: str) -> nn.Module:
    with initialize_config_dir(str(config.CONF_DIR.resolve()), version_base="1.3"):
        cfg = compose("config", overrides=[f"head={name}"])
    head = OmegaConf.to_container(cfg.head)
    return building.build(
        head, "head", torch.nn.Module, {"in_features": CHANNELS, "feature_size": SIZE}
    )


def test_gwap_by_hand() -> None:
    rows = torch.tensor([[[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]]])
    attention = torch.tensor([[0.5, 0.25, 0.25]])
    pooled = global_weighted_average_pooling(rows, attention)
    torch.testing.assert_close(pooled, torch.tensor([[2.0, 20.0]]))  # (0.5 + 0.5 + 1.0) / 1.0


def test_gwap_ignores_the_scale_of_attention() -> None:
    rows, attention = torch.randn(2, 9, 4), torch.rand(2, 9)
    torch.testing.assert_close(
        global_weighted_average_pooling(rows, attention),
        global_weighted_average_pooling(rows, attention * 1e-6),
    )


def test_uniform_attention_is_average_pooling() -> None:
    rows = torch.randn(3, 35, 8)
    pooled = global_weighted_average_pooling(rows, torch.full((3, 35), 0.3))
    torch.testing.assert_close(pooled, rows.mean(dim=1))


def test_vanishing_attention_is_safe() -> None:
    rows = torch.randn(2, 9, 4, requires_grad=True)
    attention = torch.zeros(2, 9, requires_grad=True)
    pooled = global_weighted_average_pooling(rows, attention)
    assert torch.equal(pooled, torch.zeros(2, 4))
    pooled.sum().backward()
    assert torch.isfinite(rows.grad).all()  # type: ignore[arg-type]


def test_gwap_head_equals_its_convolutional_writing() -> None:
    """The study's layers one by one, as convolutions on (B, C, h, w)."""
    head = build("gwap").eval()
    assert isinstance(head, GWAPHead)
    head.norm.running_mean = torch.randn(CHANNELS)
    head.norm.running_var = torch.rand(CHANNELS) + 0.5
    features = torch.randn(3, CHANNELS, *SIZE)
    norm = head.norm
    x = F.batch_norm(features, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    map_ = x
    for layer in (head.first, *head.others):
        map_ = F.elu(F.conv2d(map_, layer.weight[:, :, None, None], layer.bias))
    padded = F.pad(map_, (0, 1, 0, 1), value=float("nan"))  # "same": below and right, not counted
    windows = padded.unfold(2, 2, 1).unfold(3, 2, 1).flatten(4)
    map_ = torch.nanmean(windows, dim=4)
    last = head.attention_map
    map_ = torch.sigmoid(F.conv2d(map_, last.weight[:, :, None, None], last.bias))
    pooled = (map_ * x).sum(dim=(2, 3)) / map_.sum(dim=(2, 3))
    dense = [layer for layer in head.classify if isinstance(layer, nn.Linear)]
    expected = dense[1](F.elu(dense[0](pooled))).squeeze(1)
    for layout in (torch.contiguous_format, torch.channels_last):
        output = head(features.contiguous(memory_format=layout))
        torch.testing.assert_close(output.attention, map_)
        torch.testing.assert_close(output.logits, expected)


def test_gwap_head_trains_alike_on_frozen_and_trained_features() -> None:
    """Batch norm moved into the next layers against batch norm applied: values and gradients."""
    torch.manual_seed(0)
    moved, applied = build("gwap").train(), build("gwap").train()
    applied.load_state_dict(moved.state_dict())
    features = torch.randn(8, CHANNELS, *SIZE) * 3 + 1
    outputs = []
    for head, needs_gradient in ((moved, False), (applied, True)):
        torch.manual_seed(1)  # the same dropout
        output = head(features.clone().requires_grad_(needs_gradient))
        F.softplus(output.logits).sum().backward()
        outputs.append(output)
    torch.testing.assert_close(outputs[0].logits, outputs[1].logits)
    torch.testing.assert_close(outputs[0].attention, outputs[1].attention)
    others = dict(applied.named_parameters())
    for name, parameter in moved.named_parameters():
        torch.testing.assert_close(
            parameter.grad, others[name].grad, atol=1e-5, rtol=1e-3, msg=name
        )
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(moved.norm, name), getattr(applied.norm, name))


def test_gwap_head_is_the_studys() -> None:
    head = build("gwap")
    assert isinstance(head, GWAPHead)
    assert [layer.out_features for layer in (head.first, *head.others)] == [128, 32, 16]
    kinds = [type(layer).__name__ for layer in head.classify]
    assert kinds == ["Dropout", "Linear", "ELU", "Dropout", "Linear"]
    assert head.classify[1].out_features == 128  # type: ignore[union-attr]
    assert {layer.p for layer in head.classify if isinstance(layer, nn.Dropout)} == {0.5}


@pytest.mark.parametrize(("name", "attends"), [("gwap", True), ("gap", False), ("dense", False)])
def test_every_head_trains(name: str, attends: bool) -> None:
    torch.manual_seed(0)
    head = build(name)
    features = torch.randn(16, CHANNELS, *SIZE)
    target = (features[:, 0].mean(dim=(1, 2)) > 0).float()
    optimiser = torch.optim.Adam(head.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        output = head(features)
        loss = F.binary_cross_entropy_with_logits(output.logits, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert output.logits.shape == (16,)
    if attends:
        assert output.attention.shape == (16, 1, *SIZE)
        assert 0 <= output.attention.min() <= output.attention.max() <= 1
    else:
        assert output.attention is None


def test_a_head_of_ones_own(tmp_path: Path, composed) -> None:  # type: ignore[no-untyped-def]
    cfg = composed("head=gap", "head._target_=cardiomegaly.model.heads.DenseHead")
    assert config.check(cfg).head_name == "dense"


@pytest.mark.parametrize("kind", [GWAPHead, GAPHead])
def test_contributions_sum_to_the_logit_minus_that_of_nothing(kind: type[nn.Module]) -> None:
    head, features = untied(kind), torch.randn(3, 8, 4, 5)
    with torch.no_grad():
        logits = head(features).logits
        nothing = head.classify(torch.zeros(1, 8))[0, 0]
        contribution = head.contribution(features)
    assert contribution.shape == (3, 4, 5)
    torch.testing.assert_close(contribution.sum((1, 2)), logits - nothing, atol=1e-5, rtol=1e-5)


def test_contributions_are_integrated_gradients() -> None:
    layers, steps = untied(GAPHead).classify, 2000
    shares = torch.randn(2, 6, 8)
    shares[1, :, 4:] = 0
    pooled = shares.sum(1)
    along = (torch.arange(steps) + 0.5) / steps  # midpoints of the way from 0
    way = (along[:, None, None] * pooled).requires_grad_()
    layers(way).sum().backward()
    expected = (shares * way.grad.mean(0)[:, None]).sum(2)
    torch.testing.assert_close(contributions(layers, shares), expected, atol=1e-4, rtol=1e-4)
    nothing = torch.zeros(1, 6, 8)
    assert (contributions(layers, nothing) == 0).all()


def untied(kind: type[nn.Module]) -> nn.Module:
    """A head in eval mode whose biases and statistics are not zero."""
    torch.manual_seed(1)
    options = {"attention_channels": [4]} if kind is GWAPHead else {}
    head = kind(8, (4, 5), hidden=7, dropout=0.5, **options).eval()
    with torch.no_grad():
        for name, tensor in [*head.named_parameters(), *head.named_buffers()]:
            if tensor.is_floating_point():
                drawn = torch.randn_like(tensor)
                tensor.copy_(drawn.abs() + 0.1 if "var" in name else drawn)
    return head
