"""Files of weights are read, and loaded whole or refused in one clear line."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn

from cardiomegaly import UserError
from cardiomegaly.model.weights import convert_keras, load_weights, read_state
from tests.keras_files import resnet152v2_shapes, write_keras_file

MOBILENET = "mobilenetv1_100.ra4_e3600_r224_in1k"


def mobilenet(seed: int, num_classes: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(
        MOBILENET, num_classes=num_classes, global_pool="" if not num_classes else "avg"
    )


def equal(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A file as timm keeps it on the hub: with the classifier of ImageNet."""
    path = tmp_path / "model.safetensors"
    save_file(mobilenet(1, num_classes=1000).state_dict(), path)
    return path


def test_loading_equals_timm_itself(published: Path) -> None:
    overlay = {"file": str(published)}
    expected = timm.create_model(
        MOBILENET, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay
    )
    model = mobilenet(2)
    assert not equal(model, expected)
    load_weights(model, published)
    assert equal(model, expected)


def test_a_torch_state_dict_is_loaded_too(tmp_path: Path) -> None:
    torch.save(mobilenet(1).state_dict(), tmp_path / "state.pt")
    model = mobilenet(2)
    load_weights(model, tmp_path / "state.pt")
    assert equal(model, mobilenet(1))


def test_a_file_without_counters_of_batch_norm_is_whole(tmp_path: Path) -> None:
    state = mobilenet(1).state_dict()
    save_file(
        {k: v for k, v in state.items() if "num_batches" not in k}, tmp_path / "a.safetensors"
    )
    model = mobilenet(2)
    load_weights(model, tmp_path / "a.safetensors")
    assert equal(model, mobilenet(1))


def test_weights_that_do_not_fit_are_refused_whole(tmp_path: Path) -> None:
    state = mobilenet(1).state_dict()
    del state["conv_stem.weight"]
    state["bn1.weight"] = torch.ones(3)
    state |= {f"other.{i}": torch.zeros(1) for i in range(5)}
    save_file(state, tmp_path / "a.safetensors")
    model = mobilenet(2)
    with pytest.raises(
        UserError,
        match=r"a\.safetensors: these weights are of another network: "
        r"1 missing \(conv_stem\.weight\), "
        r"5 unexpected \(other\.0; other\.1; other\.2; \.\.\.\), "
        r"1 of another shape \(bn1\.weight is \(3,\), must be \(32,\)\)$",
    ):
        load_weights(model, tmp_path / "a.safetensors")
    assert equal(model, mobilenet(2))


def test_only_the_classifier_may_be_dropped(published: Path) -> None:
    model = mobilenet(2, num_classes=2)
    with pytest.raises(UserError, match=r"2 of another shape \(classifier\.weight is \(1000,"):
        load_weights(model, published)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.h5"])
def test_a_broken_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"<html>log in</html>")
    with pytest.raises(UserError, match=rf"{name}: not a (readable|whole)"):
        read_state(tmp_path / name)


Wrapped = Callable[[dict[str, Tensor]], object]


def named(prefix: str) -> Wrapped:
    return lambda state: {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "args": Namespace(lr=0.1), "optimizer": {"state": {}}},
        lambda state: {"model": named("module.")(state)},
        named("module."),
        named("module._orig_mod."),
        lambda state: {"state_dict": named("model.")(state)},
        lambda state: {
            "state_dict": named("classifier.backbone.model.")(state)
            | {"classifier.head.dense.weight": torch.ones(1), "loss.pos_weight": torch.ones(1)},
            "hyper_parameters": {},
        },
    ],
)
def test_what_training_programs_wrap_around_weights(tmp_path: Path, wrapped: Wrapped) -> None:
    torch.save(wrapped(mobilenet(1).state_dict()), tmp_path / "last.ckpt")
    model = mobilenet(2)
    load_weights(model, tmp_path / "last.ckpt")
    assert equal(model, mobilenet(1))


def test_other_classes_in_a_checkpoint_are_not_loaded(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": mobilenet(1).state_dict(), "config": OmegaConf.create()}, tmp_path / "a.pt"
    )
    with pytest.raises(UserError, match=r"a\.pt: not a readable file of weights \(Weights only"):
        read_state(tmp_path / "a.pt")


def test_a_transformer_of_another_size_and_spelling(tmp_path: Path) -> None:
    """DINOv2's own files, as RAD-DINO's authors publish theirs; positions are interpolated."""
    torch.manual_seed(1)
    published = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=56)
    state = published.state_dict() | {"mask_token": torch.zeros(1, 384)}
    torch.save({"model": state}, tmp_path / "dino.pth")
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=84)
    load_weights(model, tmp_path / "dino.pth")
    assert torch.equal(model.blocks[3].attn.qkv.weight, published.blocks[3].attn.qkv.weight)
    small, large = (
        net.pos_embed[0, 1:].unflatten(0, (-1, n)) for net, n in ((published, 4), (model, 6))
    )
    expected = torch.nn.functional.interpolate(
        small.permute(2, 0, 1)[None], (6, 6), mode="bicubic", antialias=True
    )[0]
    torch.testing.assert_close(large.permute(2, 0, 1), expected)


def test_a_checkpoint_without_weights_is_not_a_state_dict(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt: holds dict, must be a plain state dict"):
        read_state(tmp_path / "last.ckpt")


def test_the_shared_mobilenet_fits(imagenet_weights: Path) -> None:
    model = timm.create_model(MOBILENET, num_classes=0, global_pool="", pad_type="same")
    load_weights(model, imagenet_weights)


def test_a_keras_file_of_another_network_is_refused(tmp_path: Path) -> None:
    layers = [
        (name, tensors)
        for name, tensors in resnet152v2_shapes()
        if not re.match(r"conv4_block(2\d|3\d)_", name)
    ]
    write_keras_file(tmp_path / "resnet101v2.h5", layers)
    with pytest.raises(
        UserError,
        match=r"another network: \d+ missing \(stages\.2\.19\.norm1\.weight; .*\.\.\.\)$",
    ):
        convert_keras(tmp_path / "resnet101v2.h5", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_the_file_with_the_classifier_is_refused(tmp_path: Path) -> None:
    layers = [*resnet152v2_shapes(), ("predictions", {"kernel": (2048, 1000), "bias": (1000,)})]
    write_keras_file(tmp_path / "top.h5", layers)
    with pytest.raises(UserError, match=r"2 unexpected \(predictions/predictions/bias:0; pred"):
        convert_keras(tmp_path / "top.h5", tmp_path / "out.safetensors")


def test_a_misshapen_keras_file_is_refused(tmp_path: Path) -> None:
    layers = dict(resnet152v2_shapes())
    layers["conv1_conv"]["kernel"] = (3, 3, 3, 64)
    write_keras_file(tmp_path / "odd.h5", layers.items())
    with pytest.raises(
        UserError, match=r"stem\.conv\.weight is \(64, 3, 3, 3\), must be \(64, 3, 7, 7\)"
    ):
        convert_keras(tmp_path / "odd.h5", tmp_path / "out.safetensors")


def test_a_truncated_keras_file_is_refused(tmp_path: Path) -> None:
    write_keras_file(tmp_path / "whole.h5", resnet152v2_shapes())
    (tmp_path / "short.h5").write_bytes((tmp_path / "whole.h5").read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"short\.h5: not a whole HDF5 file"):
        convert_keras(tmp_path / "short.h5", tmp_path / "out.safetensors")
