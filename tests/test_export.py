"""The command: files with what belongs to them, and a check of any installation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import onnx
import pandas as pd
import pytest

from cardiomegaly import export
from cardiomegaly.training.record import read_run


def test_what_travels_with_an_onnx_file(onnx_file: Path, trained_run: Path) -> None:
    given = {p.key: p.value for p in onnx.load(onnx_file).metadata_props}
    about, run = json.loads(given["cardiomegaly"]), read_run(trained_run)
    assert about["classes"] == ["no cardiomegaly", "cardiomegaly"]
    assert (about["threshold"], about["image_size"], about["licence"]) == (0.5, 64, "MIT")
    assert about["split_hash"] == run.split_hash and about["name"] == run.name
    line = run.meta["calibration"]
    expected = {key: line[key] for key in ("slope", "intercept")} if line["slope"] > 0 else None
    assert about["calibration"] == expected
    (image,) = onnx.load(onnx_file).graph.input
    dimensions = image.type.tensor_type.shape.dim
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value for d in dimensions] == [0, 1, 64, 64] and dimensions[0].dim_param


def test_an_installation_is_checked(
    onnx_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = pd.read_csv(onnx_file.with_name("reference_outputs.csv"))
    assert len(table) == 10 and table["probability"].between(0, 1).all()
    assert export.main([f"run={onnx_file}", "check=true"]) == 0
    assert re.search(r"model.onnx: within \S+ of .*reference_outputs.csv", capsys.readouterr().out)


def test_another_model_is_noticed(
    onnx_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "model.onnx").write_bytes(onnx_file.read_bytes())
    words = [f"run={tmp_path / 'model.onnx'}", "check=true"]
    assert export.main(words) == 2
    assert "reference_outputs.csv does not exist; it travels" in capsys.readouterr().err
    table = pd.read_csv(onnx_file.with_name("reference_outputs.csv"))
    table["probability"] = (table["probability"] + 0.2) % 1
    table.to_csv(tmp_path / "reference_outputs.csv", index=False)
    assert export.main(words) == 2
    assert "this installation computes another model" in capsys.readouterr().err


def test_mistakes_are_one_line(
    onnx_file: Path,
    trained_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert export.main([f"run={trained_run}", "format=keras", f"output={tmp_path}"]) == 2
    assert "format: must be some of onnx, torchscript, openvino" in capsys.readouterr().err
    assert export.main([f"run={onnx_file}", f"output={tmp_path}"]) == 2
    assert "an exported file cannot be exported again" in capsys.readouterr().err
