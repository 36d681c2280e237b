"""The seam: a checkpoint from anybody is read as data, and what is wrong with it is one line."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cardiomegaly import UserError
from cardiomegaly.model.predictor import Predictor, load_classifier
from tests.model.test_building import OWN_HEAD
from tests.model.test_saliency import BACKBONE, IMAGES, classifier

GAP = {"_target_": "cardiomegaly.model.heads.GAPHead", "hidden": 8, "dropout": 0.5}
Change = Callable[[dict[str, Any]], Any]


def save(path: Path, change: Change = lambda checkpoint: checkpoint) -> Path:
    """A checkpoint as a training leaves it, after `change`."""
    tensors = {f"classifier.{key}": t for key, t in classifier().state_dict().items()}
    settings = {"backbone": dict(BACKBONE), "head": dict(GAP), "learning_rate": 1e-3}
    torch.save(change({"hyper_parameters": settings, "state_dict": tensors}), path)
    return path


def with_head(**options: Any) -> Change:
    def change(checkpoint: dict[str, Any]) -> dict[str, Any]:
        checkpoint["hyper_parameters"]["head"] |= options
        return checkpoint

    return change


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    expected = Predictor(classifier()).predict(IMAGES)
    loaded = Predictor.from_checkpoint(str(save(tmp_path / "best.ckpt"))).predict(IMAGES)
    np.testing.assert_array_equal(loaded.logits, expected.logits)


def test_batches_give_what_their_images_give() -> None:
    predictor = Predictor(classifier("GWAPHead"))
    together = predictor.predict(IMAGES)
    parts = predictor.predict_batches([{"image": IMAGES[:2]}, {"image": IMAGES[2:]}])
    np.testing.assert_allclose(parts.logits, together.logits, rtol=1e-5)
    np.testing.assert_allclose(parts.probability, 1 / (1 + np.exp(-parts.logits)))
    np.testing.assert_allclose(parts.attention, together.attention, rtol=1e-4)


class Executed:
    """What runs a command where a pickle is believed."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("target", ["os.system", "subprocess.getoutput", "pathlib.Path.touch"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_target_of_a_checkpoint_is_not_called(tmp_path: Path, target: str, nested: bool) -> None:
    marker = tmp_path / "marker"
    call = {"_target_": target, "_args_": [str(marker) if "touch" in target else f"touch {marker}"]}
    change = with_head(hidden=call) if nested else with_head(**call)
    path = save(tmp_path / "best.ckpt", change)
    where = r"head\.hidden\._target_" if nested else r"head\._target_"
    with pytest.raises(UserError, match=rf"^{path}: {where}: .*[^\n]*$"):
        load_classifier(path)
    assert not marker.exists()


@pytest.mark.parametrize("target", ["pandas.read_pickle", "torch.load"])
def test_a_pickle_that_a_target_would_read_is_not_read(tmp_path: Path, target: str) -> None:
    marker, trap = tmp_path / "marker", tmp_path / "trap.pkl"
    trap.write_bytes(pickle.dumps(Executed(marker)))
    call = {"_target_": target, "_args_": [str(trap)]}
    for change in (with_head(dropout=call), with_head(hidden=[{"a": call}]), with_head(**call)):
        with pytest.raises(UserError, match="is refused|none of this program's classes"):
            load_classifier(save(tmp_path / "best.ckpt", change))
    assert not marker.exists()


def test_a_file_that_a_target_would_open_is_left(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    call = {"_target_": "builtins.open", "_args_": [str(precious), "w"]}
    for trust in ((), ["builtins"]):
        with pytest.raises(UserError, match=r"head\.dropout\._target_: is refused"):
            load_classifier(save(tmp_path / "best.ckpt", with_head(dropout=call)), trust)
    with pytest.raises(UserError, match="must be a class of torch.nn.Module, got <built-in"):
        whole = with_head(_target_="builtins.open")
        load_classifier(save(tmp_path / "best.ckpt", whole), ["builtins"])
    assert precious.read_text() == "kept"


def test_a_pickle_is_not_believed(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    inside = save(tmp_path / "inside.ckpt", lambda c: c | {"callbacks": Executed(marker)})
    plain = tmp_path / "plain.ckpt"
    plain.write_bytes(pickle.dumps(Executed(marker)))
    for path in (inside, plain):
        with pytest.raises(UserError, match=r"is not a readable checkpoint of this program \("):
            load_classifier(path)
    assert not marker.exists()


def replaced(part: str, value: Any) -> Change:
    return lambda checkpoint: checkpoint | {part: value}


def misshapen(checkpoint: dict[str, Any]) -> dict[str, Any]:
    checkpoint["state_dict"]["classifier.head.classify.1.weight"] = torch.zeros(3, 3)
    return checkpoint


def of_backbone(**fields: Any) -> Change:
    def change(checkpoint: dict[str, Any]) -> dict[str, Any]:
        checkpoint["hyper_parameters"]["backbone"] |= fields
        return checkpoint

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (misshapen, r"another network: 1 of another shape \(head.classify.1.weight is \(3, 3\), "),
        (replaced("state_dict", {}), r"another network: \d+ missing"),
        (replaced("state_dict", {"a": 3}), "its state_dict holds more than tensors"),
        (replaced("state_dict", [1]), "is not a readable checkpoint"),
        (replaced("hyper_parameters", [1, 2]), "is not a readable checkpoint"),
        (replaced("hyper_parameters", {}), r"is not a readable checkpoint .*\('backbone'|'head'\)"),
        (replaced("hyper_parameters", {"head": GAP, "backbone": 3}), "is not a readable checkpo"),
        (replaced("hyper_parameters", {"head": 3, "backbone": {}}), "head: must be a mapping"),
        (lambda checkpoint: [checkpoint], "is not a readable checkpoint"),
        (with_head(hidden="many"), "is not a readable checkpoint"),
        (with_head(hidden=-1), "is not a readable checkpoint"),
        (with_head(dropout=7), "head: .*GAPHead: dropout probability has to be between 0 and 1"),
        (of_backbone(model="resnet_of_nobody"), "backbone.model: timm does not know"),
        (of_backbone(image_size="64"), "is not a readable checkpoint"),
        (of_backbone(surprise=1), "is not a readable checkpoint"),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_one_line(
    tmp_path: Path, change: Change, message: str
) -> None:
    path = save(tmp_path / "best.ckpt", change)
    with pytest.raises(UserError, match=message) as caught:
        load_classifier(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    whole = save(tmp_path / "best.ckpt").read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("empty", b""), ("text", b"hello")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name} is not a readable checkpoint"):
            load_classifier(tmp_path / name)
    with pytest.raises(UserError, match=r"checkpoint .*absent does not exist"):
        load_classifier(tmp_path / "absent")


def test_a_head_of_ones_own_is_loaded_where_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_checkpoint_head.py").write_text(OWN_HEAD)
    monkeypatch.chdir(tmp_path)

    def change(checkpoint: dict[str, Any]) -> dict[str, Any]:
        checkpoint["hyper_parameters"]["head"] = {"_target_": "my_checkpoint_head.MyHead"}
        for key in [key for key in checkpoint["state_dict"] if key.startswith("classifier.head")]:
            del checkpoint["state_dict"][key]
        return checkpoint

    path = save(tmp_path / "best.ckpt", change)
    with pytest.raises(UserError, match="say trust=my_checkpoint_head$"):
        load_classifier(path)
    assert "my_checkpoint_head" not in sys.modules
    prediction = Predictor.from_checkpoint(path, trust=["my_checkpoint_head"]).predict(IMAGES)
    assert prediction.logits.shape == (3,)
