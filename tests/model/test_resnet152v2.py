"""ResNet152V2 computes what Keras computes, and behaves as timm's networks do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

import cardiomegaly.model.resnet152v2  # noqa: F401  (registers the network with timm)
from cardiomegaly.model.weights import convert_keras, load_weights
from tests.keras_files import resnet152v2_shapes, write_keras_file

PARAMETERS = 58_331_648  # as Keras counts them, moving statistics included


@pytest.fixture(scope="module")
def keras_model() -> Any:
    """Keras' own network with random weights and random statistics."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    os.environ.setdefault("KERAS_TORCH_DEVICE", "cpu")
    keras = pytest.importorskip("keras", reason="Keras, the reference, is not installed")
    model = keras.applications.ResNet152V2(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    # Kernels stay as Keras draws them (Glorot), which keeps 50 blocks from exploding.
    rng = np.random.default_rng(0)
    for layer in model.layers:
        for variable in layer.weights:
            if variable.name in ("gamma", "moving_variance"):
                variable.assign(rng.uniform(0.5, 1.5, variable.shape).astype(np.float32))
            elif variable.name in ("beta", "moving_mean", "bias"):
                variable.assign(rng.normal(0, 0.2, variable.shape).astype(np.float32))
    return model


def _array(variable: Any) -> np.ndarray:
    return variable.value.detach().numpy().copy()


@pytest.fixture(scope="module")
def keras_file(keras_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Its weights, as the official file lies in Keras' storage."""
    path = tmp_path_factory.mktemp("keras") / "notop.h5"
    write_keras_file(
        path,
        ((layer.name, {v.name: _array(v) for v in layer.weights}) for layer in keras_model.layers),
    )
    yield path
    path.unlink()  # 233 MB


@pytest.fixture(scope="module")
def converted(keras_file: Path) -> Iterator[nn.Module]:
    target = keras_file.with_suffix(".safetensors")
    convert_keras(keras_file, target)
    model = timm.create_model("resnet152v2", num_classes=0, global_pool="")
    load_weights(model, target)
    target.unlink()
    yield model.eval()


@pytest.fixture(scope="module")
def fresh() -> nn.Module:
    return timm.create_model("resnet152v2", num_classes=0, global_pool="").eval()


@pytest.mark.parametrize("size", [(224, 224), (97, 97), (33, 64)])
def test_features_are_those_of_keras(
    size: tuple[int, int], keras_model: Any, converted: nn.Module
) -> None:
    image = np.random.default_rng(1).uniform(-1, 1, (1, *size, 3)).astype(np.float32)
    with torch.inference_mode():
        expected = keras_model(image, training=False).numpy().transpose(0, 3, 1, 2)
        features = converted.forward_features(torch.from_numpy(image).permute(0, 3, 1, 2)).numpy()
    assert features.shape == expected.shape
    assert expected.max() > 0.5
    assert np.abs(features - expected).max() < 1e-4 * np.abs(expected).max()


def test_intermediate_features_are_those_of_keras(keras_model: Any, converted: nn.Module) -> None:
    """The taps lie where a resolution ends: before the strided block of each stage."""
    layers = ["conv1_conv", "conv2_block2_out", "conv3_block7_out", "conv4_block35_out"]
    inner = type(keras_model)(
        keras_model.inputs, [keras_model.get_layer(name).output for name in layers]
    )
    image = torch.rand(1, 3, 64, 33, generator=torch.Generator().manual_seed(0))
    maps: list[torch.Tensor] = []
    for tap in converted.feature_info[:-1]:
        module = converted.get_submodule(tap["module"])
        module.register_forward_hook(lambda _, __, output: maps.append(output))
    with torch.inference_mode():
        expected = [output.permute(0, 3, 1, 2) for output in inner(image.permute(0, 2, 3, 1))]
        converted(image)
    for ours, theirs, tap in zip(maps, expected, converted.feature_info, strict=False):
        assert ours.shape[1] == tap["num_chs"]
        assert ours.shape[2] == 64 // tap["reduction"]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()))


def test_the_file_that_the_tests_write_is_one_that_keras_reads(
    keras_model: Any, keras_file: Path
) -> None:
    layer = keras_model.get_layer("conv4_block36_3_conv")
    before = _array(layer.bias)
    layer.bias.assign(np.zeros_like(before))
    keras_model.load_weights(keras_file)
    np.testing.assert_array_equal(_array(layer.bias), before)


def test_layers_written_down_by_hand_are_those_of_keras(keras_model: Any) -> None:
    of_keras = {
        layer.name: {v.name: tuple(v.shape) for v in layer.weights}
        for layer in keras_model.layers
        if layer.weights
    }
    assert dict(resnet152v2_shapes()) == of_keras


def test_timm_itself_loads_the_keras_file(keras_file: Path, converted: nn.Module) -> None:
    overlay = {"file": str(keras_file), "custom_load": True}
    model = timm.create_model("resnet152v2", pretrained=True, pretrained_cfg_overlay=overlay)
    assert model.num_classes == 0
    for ours, expected in zip(model.parameters(), converted.parameters(), strict=True):
        assert torch.equal(ours, expected)


def test_it_has_as_many_parameters_as_keras_counts(fresh: nn.Module) -> None:
    state = fresh.state_dict()
    counted = sum(t.numel() for name, t in state.items() if "num_batches" not in name)
    assert counted == PARAMETERS


def test_the_pretrained_configuration_is_keras_own() -> None:
    cfg = timm.models.get_pretrained_cfg("resnet152v2")
    assert (cfg.tag, cfg.input_size, cfg.num_classes) == ("keras_in1k", (3, 224, 224), 0)
    assert cfg.mean == cfg.std == (0.5, 0.5, 0.5)
    assert "resnet152v2.keras_in1k" in timm.list_models(pretrained=True)


def test_head_and_classifier_behave_as_timm_networks_do() -> None:
    with torch.device("meta"):  # shapes only
        model = timm.create_model("resnet152v2", num_classes=5, in_chans=1, drop_rate=0.5).eval()
        image = torch.zeros(2, 1, 64, 64)
        features = model.forward_features(image)
        assert features.shape == (2, model.num_features, 2, 2) == (2, 2048, 2, 2)
        assert model.forward_head(features).shape == model(image).shape == (2, 5)
        assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
        assert model.get_classifier().out_features == 5
        assert model.head.drop.p == 0.5
        model.reset_classifier(3, "max")
        assert model(image).shape == (2, 3)
        model.reset_classifier(0, "")
        assert model(image).shape == (2, 2048, 2, 2)
    assert model.num_classes == 0


def test_features_only_gives_a_map_for_each_resolution() -> None:
    with torch.device("meta"):
        model = timm.create_model("resnet152v2", features_only=True, out_indices=(0, 1, 2, 3, 4))
        maps = model(torch.zeros(1, 3, 96, 96))
    assert model.feature_info.reduction() == [2, 4, 8, 16, 32]
    assert [tuple(m.shape[1:]) for m in maps] == [
        (64, 48, 48), (256, 24, 24), (512, 12, 12), (1024, 6, 6), (2048, 3, 3)
    ]  # fmt: skip


def test_gradients_flow_and_checkpointing_does_not_change_them(fresh: nn.Module) -> None:
    image = torch.randn(1, 3, 33, 33, generator=torch.Generator().manual_seed(0))
    watched = [fresh.stem.conv.weight, fresh.stages[1][7].conv2.weight, fresh.norm.weight]
    gradients = []
    for enable in (False, True):
        fresh.set_grad_checkpointing(enable)
        fresh.zero_grad()
        fresh(image).square().mean().backward()
        gradients.append([weight.grad.clone() for weight in watched])
    fresh.set_grad_checkpointing(False)
    for plain, recomputed in zip(*gradients, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(plain, recomputed)


def test_random_weights_do_not_explode(fresh: nn.Module) -> None:
    with torch.inference_mode():
        features = fresh(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert 0 < features.max() < 100
