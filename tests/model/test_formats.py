"""Exported files compute what PyTorch does, whatever the batch, and carry their metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from cardiomegaly import UserError
from cardiomegaly.config import CONF_DIR, BackboneConfig
from cardiomegaly.model.classifier import CardiomegalyClassifier
from cardiomegaly.model.formats import FORMATS, OUTPUTS, TOLERANCE, Exported, largest_difference
from cardiomegaly.model.onnx import OnnxPredictor
from cardiomegaly.model.predictor import Predictor
from tests.model.test_saliency import classifier

METADATA = {"about": "of a test"}


def images(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 1, size, size)).astype(np.uint8)


@pytest.fixture(scope="module")
def exported() -> Exported:
    return Exported(classifier("GWAPHead"))


@pytest.fixture(scope="module")
def onnx_file(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    FORMATS["onnx"].write(exported, path, METADATA)
    return path


def test_an_onnx_file_is_the_model(exported: Exported, onnx_file: Path) -> None:
    assert largest_difference(exported, FORMATS["onnx"].run(onnx_file), images(64)) < TOLERANCE
    theirs, own = OnnxPredictor(onnx_file), Predictor(classifier("GWAPHead"))
    expected, found = own.predict(images(64)), theirs.predict(images(64))
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)
    np.testing.assert_allclose(found.attention, expected.attention, atol=1e-4)
    np.testing.assert_allclose(found.pooled, expected.pooled, atol=1e-3)
    contribution = theirs.contribution(images(64))
    np.testing.assert_allclose(contribution, own.contribution(images(64)), atol=1e-4)
    assert (theirs.image_size, theirs.metadata["about"]) == (64, "of a test")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchscript", "openvino"])
def test_other_formats_are_the_model(exported: Exported, tmp_path: Path, name: str) -> None:
    path = tmp_path / FORMATS[name].file
    FORMATS[name].write(exported, path, METADATA)
    assert largest_difference(exported, FORMATS[name].run(path), images(64)) < TOLERANCE
    assert b"of a test" in path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet152v2", "inceptionv3", "efficientnetb4"])
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_backbone_is_exported(tmp_path: Path, backbone: str, name: str) -> None:
    from omegaconf import OmegaConf

    chosen: Any = OmegaConf.load(CONF_DIR / "backbone" / f"{backbone}.yaml")
    settings = BackboneConfig(
        name=backbone, model=chosen.model, image_size=96, weights="none", options=None,
        trainable="none", learning_rate=1e-5, last_stage=[],
    )  # fmt: skip
    torch.manual_seed(0)
    head = {"_target_": "cardiomegaly.model.heads.GWAPHead", "attention_channels": [8]}
    model = Exported(CardiomegalyClassifier(settings, {**head, "hidden": 8, "dropout": 0.5}))
    path = tmp_path / FORMATS[name].file
    FORMATS[name].write(model, path, METADATA)
    assert largest_difference(model, FORMATS[name].run(path), images(96)) < TOLERANCE


def test_a_head_without_maps_has_fewer_outputs() -> None:
    assert Exported(classifier("GWAPHead")).outputs == list(OUTPUTS)
    assert Exported(classifier("GAPHead")).outputs == [*OUTPUTS[:3], "contribution"]
    assert Exported(classifier("DenseHead")).outputs == list(OUTPUTS[:3])


def test_what_is_not_the_model_is_refused(exported: Exported) -> None:
    def wrong(pixels: np.ndarray) -> list[np.ndarray]:
        return [output + 0.01 for output in exported.run(pixels)]

    with pytest.raises(UserError, match=r"the exported probability differs .* by 0.01, at most"):
        largest_difference(exported, wrong, images(64))


def test_files_that_are_no_export_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent.onnx does not exist; give a run"):
        OnnxPredictor(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(UserError, match=r"text.onnx is not a readable ONNX file \("):
        OnnxPredictor(tmp_path / "text.onnx")
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])
    node = helper.make_node("Identity", ["x"], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph([node], "other", [value], [output])
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "other.onnx")
    with pytest.raises(UserError, match=r"other.onnx is no export of this program: .* got y$"):
        OnnxPredictor(tmp_path / "other.onnx")
