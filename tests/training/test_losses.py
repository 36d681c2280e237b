"""Losses against their formulas, torch's and torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from cardiomegaly import UserError
from cardiomegaly.model.building import build
from cardiomegaly.training.losses import BinaryCrossEntropy, FocalLoss, attention_loss

LOGITS = torch.tensor([-2.0, -0.5, 0.0, 1.5, 3.0])
TARGET = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])


def by_hand(weights: np.ndarray, smooth: np.ndarray) -> float:
    """The mean of -w t log p - (1 - t) log(1 - p), or of what `weights` (2, N) weigh."""
    p = 1 / (1 + np.exp(-LOGITS.double().numpy()))
    positive, negative = weights
    return float(np.mean(-positive * smooth * np.log(p) - negative * (1 - smooth) * np.log1p(-p)))


def test_weight_and_smoothing() -> None:
    target = TARGET.double().numpy()
    weighted = BinaryCrossEntropy(pos_weight=4.0, smoothing=0.0)(LOGITS, TARGET)
    ones = np.ones(5)
    assert weighted.item() == pytest.approx(by_hand(np.stack([4 * ones, ones]), target))
    smoothed = BinaryCrossEntropy(pos_weight=1.0, smoothing=0.1)(LOGITS, TARGET)
    expected = by_hand(np.stack([ones, ones]), np.where(target == 1, 0.95, 0.05))
    assert smoothed.item() == pytest.approx(expected)
    plain = BinaryCrossEntropy(pos_weight=1.0, smoothing=0.0)(LOGITS, TARGET)
    assert plain.item() == F.binary_cross_entropy_with_logits(LOGITS, TARGET).item()


def test_focal() -> None:
    loss = FocalLoss(alpha=0.25, gamma=2.0)(LOGITS, TARGET)
    expected = sigmoid_focal_loss(LOGITS, TARGET, 0.25, 2.0, reduction="mean")
    assert loss.item() == expected.item()
    p = 1 / (1 + np.exp(-LOGITS.double().numpy()))
    weights = np.stack([0.25 * (1 - p) ** 2, 0.75 * p**2])
    assert loss.item() == pytest.approx(by_hand(weights, TARGET.double().numpy()), rel=1e-6)
    plain = FocalLoss(alpha=-1, gamma=0.0)(LOGITS, TARGET)
    assert plain.item() == pytest.approx(F.binary_cross_entropy_with_logits(LOGITS, TARGET).item())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"_target_": "BinaryCrossEntropy", "pos_weight": 0, "smoothing": 0}, "pos_weight must be"),
        ({"_target_": "BinaryCrossEntropy", "pos_weight": 1, "smoothing": 1}, "got 1 and 1"),
        ({"_target_": "FocalLoss", "alpha": 2, "gamma": 2}, "alpha must be at most 1"),
        (
            {"_target_": "FocalLoss", "alpha": 0.25},
            "FocalLoss takes alpha, gamma; got alpha",
        ),
    ],
)
def test_mistakes_are_one_line(settings: dict[str, object], message: str) -> None:
    settings |= {"_target_": f"cardiomegaly.training.losses.{settings['_target_']}"}
    with pytest.raises(UserError, match=message):
        build(settings, "loss", torch.nn.Module, {})


def test_attention_loss_by_hand() -> None:
    """Half of the first map's sum lies in its heart; the second heart is not known."""
    attention = torch.tensor([[[[1.0, 1.0], [1.0, 1.0]]], [[[0.1, 0.9], [0.5, 0.5]]]])
    heart = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    heart[0, :, :2] = 255
    assert attention_loss(attention, heart).item() == pytest.approx(np.log(2) / 2)
    heart[0] = 255  # everywhere: all of it is inside
    assert attention_loss(attention, heart).item() == pytest.approx(0, abs=1e-6)
    assert attention_loss(attention, torch.zeros_like(heart)).item() == 0


def test_attention_loss_counts_positions_by_their_part() -> None:
    """A heart that covers a quarter of a position takes a quarter of its attention."""
    heart = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    heart[0, 0, 0, 0] = 255
    uniform = torch.ones(1, 1, 2, 2)
    assert attention_loss(uniform, heart).item() == pytest.approx(-np.log(0.25 / 4))


def test_attention_loss_draws_attention_into_the_heart() -> None:
    scores = torch.zeros(1, 1, 4, 4, requires_grad=True)
    heart = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    heart[0, 0, :4, :4] = 255
    attention_loss(torch.sigmoid(scores), heart).backward()
    assert scores.grad is not None
    inside, outside = scores.grad[0, 0, 0, 0], scores.grad[0, 0].flatten()[1:]
    assert inside < 0
    assert (outside > 0).all()
