"""Backbones: normalisation, what is frozen, and that all seven fit timm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file

from cardiomegaly import UserError, config
from cardiomegaly.config import BackboneConfig
from cardiomegaly.model.backbone import Backbone

NAMES = list(config.backbones())


def settings(composed: Callable[..., DictConfig], *overrides: str) -> BackboneConfig:
    return config.check(composed(*overrides)).backbone


def test_the_seven_of_the_study() -> None:
    assert NAMES == [
        "densenet121", "efficientnetb0", "efficientnetb4", "inceptionv3", "mobilenetv1",
        "resnet152v2", "resnet50",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_backbone(composed: Callable[..., DictConfig], name: str) -> None:
    stage = settings(
        composed, f"backbone={name}", "backbone.trainable=last_stage", "backbone.image_size=96"
    )
    backbone = Backbone(stage).train()
    features = backbone(torch.zeros(2, 1, 96, 96, dtype=torch.uint8))
    assert features.shape == (2, backbone.num_features, *backbone.feature_size)
    trained = {name for name, p in backbone.model.named_parameters() if p.requires_grad}
    assert trained
    assert all(name.startswith(tuple(stage.last_stage)) for name in trained)
    early = next(m for m in backbone.model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert not early.training
    features.sum().backward()


FAMILIES = {  # of small networks, and pixels
    "convnext_atto": 64, "vit_tiny_patch16_224": 64, "deit_tiny_distilled_patch16_224": 64,
    "swin_tiny_patch4_window7_224": 64, "mixer_s32_224": 64, "pvt_v2_b0": 64,
    "maxvit_rmlp_pico_rw_256": 64, "efficientformer_l1": 224, "xcit_nano_12_p16_224": 64,
    "vit_small_patch14_dinov2": 56, "eva02_tiny_patch14_224": 56, "regnetx_002": 64,
    "mobilevit_xxs": 64, "levit_128s": 64, "hiera_tiny_224": 64, "mambaout_femto": 64,
}  # fmt: skip


def of_timm(composed: Callable[..., DictConfig], name: str, size: int, *words: str) -> Backbone:
    torch.manual_seed(0)
    model = f"backbone.model={name}", f"backbone.image_size={size}"
    return Backbone(settings(composed, "backbone=timm", *model, *words))


@pytest.mark.parametrize("name", FAMILIES)
def test_any_family_gives_maps(composed: Callable[..., DictConfig], name: str) -> None:
    """Frozen and trained alike, in place: what changes below changes the map below."""
    size = FAMILIES[name]
    backbone = of_timm(composed, name, size, "backbone.trainable=last_stage").eval()
    image = torch.randint(0, 256, (2, 1, size, size), dtype=torch.uint8)
    features = backbone(image)
    assert features.shape == (2, backbone.num_features, *backbone.feature_size)
    assert isinstance(backbone.feature_size, tuple)
    assert features.isfinite().all()
    features.sum().backward()
    trained = {name for name, p in backbone.model.named_parameters() if p.grad is not None}
    assert 0 < len(trained) < len(list(backbone.model.parameters()))
    frozen = of_timm(composed, name, size)
    frozen.load_state_dict(backbone.state_dict())
    torch.testing.assert_close(frozen(image), features, atol=1e-3, rtol=1e-3)


def test_maps_of_tokens_are_the_tokens_in_place(composed: Callable[..., DictConfig]) -> None:
    backbone = of_timm(composed, "vit_tiny_patch16_224", 64, "backbone.trainable=all").eval()
    image = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    tokens = backbone.model.forward_features(backbone.normalise(image))[:, 1:]  # without the class
    expected = tokens.transpose(1, 2).reshape(2, -1, 4, 4)
    torch.testing.assert_close(backbone(image), expected)
    swin = of_timm(composed, "swin_tiny_patch4_window7_224", 64).eval()
    expected = swin.model.forward_features(swin.normalise(image)).permute(0, 3, 1, 2)
    torch.testing.assert_close(swin(image), expected)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("crossvit_tiny_240", 64, "backbone.model: crossvit_tiny_240 gives no feature maps of an"),
        ("inception_v4", 64, "inception_v4 gives no feature maps of an image of 64 pixels"),
        ("local-dir:/tmp", 64, "timm does not know 'local-dir:/tmp'"),
    ],
)
def test_what_cannot_serve_is_refused(
    composed: Callable[..., DictConfig], name: str, size: int, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        of_timm(composed, name, size)
    assert "\n" not in str(caught.value)


def test_normalisation_is_the_networks_own(composed: Callable[..., DictConfig]) -> None:
    backbone = Backbone(settings(composed, "backbone=resnet50"))
    image = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    expected = (image.float().expand(-1, 3, -1, -1) / 255 - mean) / std
    torch.testing.assert_close(backbone.normalise(image), expected)
    torch.testing.assert_close(backbone.normalise(image.float() / 255), expected)
    torch.testing.assert_close(backbone.normalise(image.expand(-1, 3, -1, -1)), expected)
    assert not [name for name in backbone.state_dict() if name in ("scale", "shift")]
    with pytest.raises(UserError, match=r"image: must be \(batch, 1 or 3, height, width\)"):
        backbone.normalise(torch.zeros(8, 8))


def test_frozen_means_frozen(composed: Callable[..., DictConfig]) -> None:
    backbone = Backbone(settings(composed, "backbone.trainable=none"))
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.train()
    features = backbone(torch.randint(0, 256, (4, 1, 64, 64), dtype=torch.uint8))
    assert not features.requires_grad
    assert not any(module.training for module in backbone.model.modules())
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_all_trains_all(composed: Callable[..., DictConfig]) -> None:
    backbone = Backbone(settings(composed, "backbone.trainable=all")).train()
    assert all(p.requires_grad for p in backbone.parameters())
    assert all(m.training for m in backbone.model.modules())
    statistics = next(m for m in backbone.model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    before = statistics.running_mean.clone()  # type: ignore[union-attr]
    backbone(torch.randint(0, 256, (4, 1, 64, 64), dtype=torch.uint8))
    assert not torch.equal(statistics.running_mean, before)  # type: ignore[arg-type]
    backbone.eval()
    assert not any(m.training for m in backbone.model.modules())


def test_options_reach_timm(composed: Callable[..., DictConfig], imagenet_weights: Path) -> None:
    backbone = Backbone(settings(composed, "backbone.options={pad_type: same}")).eval()
    reference = timm.create_model(
        "mobilenetv1_100", num_classes=0, global_pool="", pad_type="same"
    ).eval()
    for model in (backbone.model, reference):
        model.load_state_dict(load_file(imagenet_weights))
    image = torch.randint(0, 256, (1, 1, 65, 65), dtype=torch.uint8)
    with torch.no_grad():
        expected = reference(image.float().expand(-1, 3, -1, -1) / 127.5 - 1)
        torch.testing.assert_close(backbone(image), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone.model=resnet51"], r"timm does not know 'resnet51'; did you mean .*resnet50"),
        (["backbone.options={padding: same}"], r"backbone\.options: mobilenetv1.* does not take"),
        (
            ["backbone.last_stage=[layer9]", "backbone.trainable=last_stage"],
            r"backbone\.last_stage: names modules of the network, such as conv_stem",
        ),
    ],
)
def test_mistakes(composed: Callable[..., DictConfig], overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Backbone(settings(composed, *overrides))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("backbone.trainable=some", r"backbone\.trainable: must be one of none, last_stage, all"),
        ("backbone.image_size=8", r"backbone\.image_size: must be at least 32, got 8"),
        ("backbone.learning_rate=0", r"backbone\.learning_rate: must be over 0 and finite, got 0"),
    ],
)
def test_ranges(composed: Callable[..., DictConfig], override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings(composed, override)
