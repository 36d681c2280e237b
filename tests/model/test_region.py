"""A network that sees a region: the same as one that is given that part, its maps in place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cardiomegaly import UserError
from cardiomegaly.config import BackboneConfig
from cardiomegaly.model.backbone import Backbone
from cardiomegaly.model.classifier import CardiomegalyClassifier
from cardiomegaly.model.formats import FORMATS, Exported, largest_difference
from cardiomegaly.model.predictor import Predictor
from tests.model.test_saliency import BACKBONE

REGION = [0.25, 0.5, 0.75, 1.0]  # of 256 pixels: rows 64 to 192, columns 128 to 256
HEAD = {"_target_": "cardiomegaly.model.heads.GWAPHead", "hidden": 8, "dropout": 0.5}
HEAD |= {"attention_channels": [8, 4]}
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 1, 256, 256)).astype(np.uint8)
PARTS = IMAGES[:, :, 64:192, 128:256]


def both(head: str = "GWAPHead") -> tuple[CardiomegalyClassifier, CardiomegalyClassifier]:
    """One that sees a region of 256 pixels, and the same weights for images of 128."""
    settings = dict(HEAD) if head == "GWAPHead" else {"hidden": 8, "dropout": 0.5}
    settings["_target_"] = f"cardiomegaly.model.heads.{head}"
    config = BackboneConfig(**BACKBONE)
    torch.manual_seed(0)
    whole = CardiomegalyClassifier(replace(config, image_size=256, region=REGION), settings)
    part = CardiomegalyClassifier(replace(config, image_size=128), settings)
    part.load_state_dict(whole.state_dict())
    return whole.eval(), part.eval()


def test_it_sees_the_region_alone() -> None:
    whole, part = both()
    assert whole.backbone.feature_size == part.backbone.feature_size == (4, 4)
    found, expected = Predictor(whole).predict(IMAGES), Predictor(part).predict(PARTS)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-5)
    np.testing.assert_allclose(found.pooled, expected.pooled, rtol=1e-4, atol=1e-6)
    elsewhere = IMAGES.copy()
    elsewhere[:, :, :64], elsewhere[:, :, 192:], elsewhere[:, :, :, :128] = 0, 255, 7
    np.testing.assert_array_equal(Predictor(whole).predict(elsewhere).logits, found.logits)


def test_maps_are_in_place_and_0_elsewhere() -> None:
    whole, part = both()
    one, other = Predictor(whole), Predictor(part)
    for found, expected in (
        (one.predict(IMAGES).attention, other.predict(PARTS).attention),
        (one.contribution(IMAGES), other.contribution(PARTS)),
        (whole(torch.from_numpy(IMAGES)).attention[:, 0].detach().numpy(),
         other.predict(PARTS).attention),
    ):  # fmt: skip
        assert found is not None
        assert found.shape == (3, 8, 8)
        np.testing.assert_allclose(found[:, 2:6, 4:8], expected, rtol=1e-3, atol=1e-6)
        found[:, 2:6, 4:8] = 0
        assert not found.any()


def test_grad_cam_is_in_place() -> None:
    pytest.importorskip("pytorch_grad_cam")
    whole, _ = both("GAPHead")
    maps = Predictor(whole).gradcam(IMAGES)
    assert maps.shape == (3, 256, 256)
    assert maps[:, :48].max() < 0.01  # a cell's width aside, where the interpolation ends
    assert maps[:, :, :96].max() < 0.01
    assert maps.max() > 0.99


def test_an_exported_file_sees_it_too(tmp_path: Path) -> None:
    model = Exported(both()[0])
    FORMATS["onnx"].write(model, tmp_path / "model.onnx", {})
    images = RNG.integers(0, 256, (7, 1, 256, 256)).astype(np.uint8)
    assert largest_difference(model, FORMATS["onnx"].run(tmp_path / "model.onnx"), images) < 1e-4


def test_a_network_of_a_fixed_size_is_made_for_the_region() -> None:
    config = replace(BackboneConfig(**BACKBONE), model="vit_tiny_patch16_224", image_size=160)
    backbone = Backbone(replace(config, region=[0.2, 0.2, 0.8, 0.8], last_stage=[]))
    features = backbone(torch.zeros(1, 1, 160, 160, dtype=torch.uint8))
    assert features.shape[-2:] == backbone.feature_size == (6, 6)
    assert backbone.whole(features).shape[-2:] == (10, 10)


@pytest.mark.parametrize("region", ["lung", [0, 0, 1], [0.5, 0, 0.5, 1], [0, 0, 1.1, 1], ["a"] * 4])
def test_a_wrong_region_is_named(region: object) -> None:
    with pytest.raises(UserError, match="backbone.region: must be null, heart or the"):
        replace(BackboneConfig(**BACKBONE), region=region)
