"""InceptionV3 computes what Keras computes, under the names of timm's own."""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.layers import ConvNormAct
from torch import nn

from cardiomegaly.config import BackboneConfig
from cardiomegaly.model.classifier import CardiomegalyClassifier
from cardiomegaly.model.inceptionv3 import PooledConv
from cardiomegaly.model.predictor import Predictor
from cardiomegaly.model.weights import load_weights
from tests.conftest import SHARED


@pytest.fixture(scope="module")
def keras_model() -> Any:
    """Keras' own network with random weights and random statistics."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    os.environ.setdefault("KERAS_TORCH_DEVICE", "cpu")
    keras = pytest.importorskip("keras", reason="Keras, the reference, is not installed")
    model = keras.applications.InceptionV3(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    rng = np.random.default_rng(0)
    for layer in model.layers:
        for variable in layer.weights:
            if variable.name == "moving_variance":
                variable.assign(rng.uniform(0.5, 1.5, variable.shape).astype(np.float32))
            elif variable.name in ("beta", "moving_mean"):
                variable.assign(rng.normal(0, 0.2, variable.shape).astype(np.float32))
    return model


@pytest.fixture(scope="module")
def converted(keras_model: Any) -> nn.Module:
    """Ours with Keras' weights: both number their layers in the order of the paper's figures."""
    model = timm.create_model("inceptionv3", num_classes=0, global_pool="").eval()

    def of_keras(kind: str) -> list[Any]:
        layers = [layer for layer in keras_model.layers if type(layer).__name__ == kind]
        return sorted(layers, key=lambda layer: int((re.findall(r"_(\d+)$", layer.name) or [0])[0]))

    ours = [module for module in model.modules() if isinstance(module, ConvNormAct | PooledConv)]
    for layer, conv, norm in zip(
        ours, of_keras("Conv2D"), of_keras("BatchNormalization"), strict=True
    ):
        kernel = conv.kernel.value.detach().permute(3, 2, 0, 1)
        assert layer.conv.weight.shape == kernel.shape
        state = {"weight": torch.ones_like(layer.bn.weight), "bias": norm.beta.value.detach()}
        state["running_mean"] = norm.moving_mean.value.detach()
        state["running_var"] = norm.moving_variance.value.detach()
        state["num_batches_tracked"] = torch.tensor(0)
        layer.conv.load_state_dict({"weight": kernel})
        layer.bn.load_state_dict(state)
    return model


@pytest.mark.parametrize("size", [(299, 299), (123, 200)])
def test_features_are_those_of_keras(
    size: tuple[int, int], keras_model: Any, converted: nn.Module
) -> None:
    image = np.random.default_rng(1).uniform(-1, 1, (1, *size, 3)).astype(np.float32)
    with torch.inference_mode():
        expected = keras_model(image, training=False).numpy().transpose(0, 3, 1, 2)
        features = converted.forward_features(torch.from_numpy(image).permute(0, 3, 1, 2)).numpy()
    assert features.shape == expected.shape
    assert expected.max() > 0.1
    assert np.abs(features - expected).max() < 1e-4 * np.abs(expected).max()


def test_parameters_are_named_as_timm_names_them() -> None:
    with torch.device("meta"):
        ours, of_timm = (timm.create_model(name) for name in ("inceptionv3", "inception_v3"))
    shapes = [{k: t.shape for k, t in model.state_dict().items()} for model in (ours, of_timm)]
    assert shapes[0] == shapes[1]


def test_the_pretrained_configuration_is_that_of_timms_weights() -> None:
    cfg, of_timm = map(timm.models.get_pretrained_cfg, ("inceptionv3", "inception_v3.tf_in1k"))
    assert cfg.hf_hub_id == of_timm.hf_hub_id == "timm/inception_v3.tf_in1k"
    for field in ("input_size", "mean", "std", "crop_pct", "interpolation", "classifier"):
        assert getattr(cfg, field) == getattr(of_timm, field), field


def test_the_shared_weights_load_and_predict() -> None:
    path = SHARED / "weights" / "inceptionv3_nsfwjs.safetensors"
    if not path.is_file():
        pytest.skip(f"the weights are not at {path}")
    zero_to_one = {"mean": [0.0] * 3, "std": [1.0] * 3}
    config = BackboneConfig(
        name="inceptionv3", model="inceptionv3", image_size=299, weights=str(path),
        options={"pretrained_cfg_overlay": zero_to_one}, trainable="none", learning_rate=1e-4,
        last_stage=[],
    )  # fmt: skip
    head = {"_target_": "cardiomegaly.model.heads.GAPHead", "hidden": 8, "dropout": 0.0}
    classifier = CardiomegalyClassifier(config, head)
    network = classifier.backbone.model
    network.load_state_dict(load_file(path), strict=True)
    load_weights(network, path)
    image = torch.randint(0, 256, (2, 1, 299, 299), dtype=torch.uint8)
    torch.testing.assert_close(classifier.backbone.normalise(image)[:, :1], image.float() / 255)
    prediction = Predictor(classifier).predict(image)
    assert prediction.probability.shape == (2,)
    assert np.isfinite(prediction.logits).all() and prediction.logits[0] != prediction.logits[1]
