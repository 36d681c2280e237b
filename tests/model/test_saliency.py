"""Saliency maps: Grad-CAM against its own formula, a missing package, heads without attention."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from cardiomegaly import UserError
from cardiomegaly.config import BackboneConfig
from cardiomegaly.model.classifier import CardiomegalyClassifier
from cardiomegaly.model.predictor import Predictor
from cardiomegaly.model.saliency import gradcam_maps

BACKBONE = {
    "name": "mobilenetv1", "model": "mobilenetv1_100", "image_size": 64, "weights": "none",
    "options": None, "trainable": "none", "learning_rate": 1e-5, "last_stage": ["blocks.6"],
}  # fmt: skip


def classifier(head: str = "GAPHead") -> CardiomegalyClassifier:
    torch.manual_seed(0)
    options = {"attention_channels": [8]} if head == "GWAPHead" else {}
    target = f"cardiomegaly.model.heads.{head}"
    return CardiomegalyClassifier(
        BackboneConfig(**BACKBONE), {"_target_": target, "hidden": 8, "dropout": 0.5, **options}
    ).eval()


IMAGES = torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8)


def test_gradcam_follows_its_formula() -> None:
    model = classifier()
    found = gradcam_maps(model, IMAGES)
    assert found.shape == (3, 64, 64) and found.min() >= 0 and found.max() <= 1
    features = model.backbone(IMAGES).detach().requires_grad_()
    model.head(features).logits.sum().backward()
    weight = features.grad.mean((2, 3), keepdim=True)
    small = (weight * features.detach()).sum(1).clamp_min(0)
    small = (small - small.amin((1, 2), keepdim=True)) / (small.amax((1, 2), keepdim=True) + 1e-7)
    expected = torch.nn.functional.interpolate(
        small[:, None], (64, 64), mode="bilinear", align_corners=False
    )[:, 0]
    expected = expected / (expected.amax((1, 2), keepdim=True) + 1e-7)
    assert found == pytest.approx(expected.detach().numpy(), abs=2e-3)


def test_gradcam_does_not_depend_on_the_other_images() -> None:
    model = classifier("GWAPHead")
    together, alone = gradcam_maps(model, IMAGES)[1], gradcam_maps(model, IMAGES[1:2])[0]
    assert together == pytest.approx(alone, abs=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_attention_is_the_heads_own_or_none() -> None:
    found = Predictor(classifier("GWAPHead")).predict(IMAGES).attention
    assert found is not None and found.shape == (3, 2, 2)
    assert (found >= 0).all() and np.isfinite(found).all()
    assert Predictor(classifier()).predict(IMAGES).attention is None


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(UserError, match="grad-cam is not installed; say pip install"):
        gradcam_maps(classifier(), IMAGES)
