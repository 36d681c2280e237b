"""The five lines: what `cardiomegaly.load` takes, gives and says, as documented in docs/use.md."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

import cardiomegaly
from cardiomegaly import UserError, explain, export
from cardiomegaly.inference.explanation import Row
from cardiomegaly.training.record import CHECKPOINT, read_run


def raw_of(table: pd.DataFrame) -> pd.Series:
    return table.assign(name=table["image"].map(lambda path: Path(path).name)).set_index("name")[
        "probability_raw"
    ]


def test_the_contract() -> None:
    options = ["source", "device", "trust", "flips", "threshold", "refuse"]
    assert list(inspect.signature(cardiomegaly.load).parameters) == options
    assert Row._fields == (
        "image", "probability", "probability_raw", "threshold", "decision", "refused", "reason",
    )  # fmt: skip
    with pytest.raises(AttributeError, match="has no attribute 'unload'"):
        cardiomegaly.unload  # noqa: B018


@pytest.mark.parametrize("kind", ["run", "onnx"])
def test_an_image_has_the_probability_of_the_run(
    trained_run: Path, onnx_file: Path, phantom_root: Path, kind: str
) -> None:
    detector = cardiomegaly.load(trained_run if kind == "run" else onnx_file)
    table = detector.predict(phantom_root / "images")
    assert table["image"].tolist() == sorted(map(str, (phantom_root / "images").iterdir()))
    expected = read_run(trained_run).predictions.set_index("image")["probability"]
    np.testing.assert_allclose(raw_of(table)[expected.index], expected, atol=1e-4)


def test_calibration_and_threshold_make_the_runs_decisions(
    trained_run: Path, phantom_root: Path
) -> None:
    run = read_run(trained_run)
    table = cardiomegaly.load(trained_run).predict(phantom_root / "images")
    logits = np.log(table["probability_raw"] / (1 - table["probability_raw"]))
    line = run.meta["calibration"]
    if line["slope"] > 0:
        calibrated = 1 / (1 + np.exp(-(line["slope"] * logits + line["intercept"])))
        np.testing.assert_allclose(table["probability"], calibrated, atol=1e-6)
    positive = table["decision"] == "cardiomegaly"
    assert (positive == (table["probability_raw"] >= run.meta["threshold"])).all()
    other = cardiomegaly.load(trained_run, threshold=0.999).predict(phantom_root / "images")
    assert set(other["threshold"]) == {0.999}
    assert set(other["decision"]) == {"no cardiomegaly"}


def test_another_finding_is_called_by_its_name(
    trained_run: Path, phantom_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "effusion"
    shutil.copytree(trained_run, run)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["meta"]["finding"] = "Pleural Effusion"
    (run / "metrics.json").write_text(json.dumps(metrics))
    table = cardiomegaly.load(run, refuse=False).predict(phantom_root / "images")
    assert set(table["decision"]) <= {"pleural effusion", "no pleural effusion"}
    with pytest.raises(UserError, match="all must find the same, got cardiomegaly and pleural eff"):
        cardiomegaly.load([run, trained_run])
    words = [f"model={run}", f"input={phantom_root}/images", f"output={tmp_path / 'out'}"]
    boxes = f"boxes={phantom_root / 'BBox_List_2017.csv'}"
    assert explain.main([*words, boxes]) == 2
    assert "boxes: they are of hearts, the model finds pleural effusion" in capsys.readouterr().err


def test_flips_and_models_are_averaged(trained_run: Path, phantom_root: Path) -> None:
    path = next((phantom_root / "images").iterdir())
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    plain = cardiomegaly.load(trained_run).predict([pixels, pixels[:, ::-1].copy()])
    both = cardiomegaly.load([trained_run, trained_run], flips=True).predict(path)
    assert both["probability_raw"][0] == pytest.approx(plain["probability_raw"].mean(), abs=1e-6)
    assert plain["image"].tolist() == ["array 0", "array 1"]


@pytest.mark.slow
def test_a_run_that_was_tested_with_flips_is_used_with_them(
    trained: Callable[..., Path], phantom_root: Path, tmp_path: Path
) -> None:
    """The same probability as in predictions.csv, from the run and from its ONNX file."""
    run = trained(tmp_path / "run", "flips=true", "trainer.limit_train_batches=1")
    row = read_run(run).part("test").iloc[0]
    pixels = cv2.imread(str(phantom_root / "images" / row["image"]), cv2.IMREAD_GRAYSCALE)
    assert export.main([f"run={run}", "format=onnx", f"output={tmp_path / 'exported'}"]) == 0
    for model in (run, tmp_path / "exported" / "model.onnx"):
        used = cardiomegaly.load(model, refuse=False).predict(pixels)["probability_raw"][0]
        assert used == pytest.approx(row["probability"], abs=1e-5)
    views = [pixels, pixels[:, ::-1].copy()]
    plain = cardiomegaly.load(run, flips=False, refuse=False).predict(views)["probability_raw"]
    assert plain[0] != plain[1]
    assert plain.mean() == pytest.approx(row["probability"], abs=1e-6)


def test_a_checkpoint_alone_is_enough(
    trained_run: Path, phantom_root: Path, tmp_path: Path
) -> None:
    moved = shutil.copy(trained_run / CHECKPOINT, tmp_path / "best.ckpt")
    path = next((phantom_root / "images").iterdir())
    table, expected = (cardiomegaly.load(one).predict(path) for one in (moved, trained_run))
    assert table["probability"][0] == pytest.approx(expected["probability_raw"][0])
    assert table["threshold"][0] == 0.5


def test_an_explanation_has_its_maps(
    trained_run: Path, onnx_file: Path, phantom_root: Path
) -> None:
    path = next((phantom_root / "images").iterdir())
    own, theirs = (cardiomegaly.load(one).explain(path) for one in (trained_run, onnx_file))
    for name, saliency in own.maps.items():
        np.testing.assert_allclose(theirs.maps[name], saliency, atol=1e-4)
    assert list(own.maps) == ["attention", "contribution"]
    assert len(own.figure().axes) == 5  # three panels, two scales


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent.onnx", "model: absent.onnx does not exist; give a run, a checkpoint or an .onnx"),
        ("absent.ckpt", "checkpoint absent.ckpt does not exist"),
        ("model.h5", "model: give a run folder, a .ckpt or an .onnx file, got model.h5"),
        ([], "model: at least one is needed, got an empty list"),
    ],
)
def test_what_is_no_model_is_named(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cardiomegaly.load(source)


def test_what_is_no_image_is_named(onnx_file: Path, tmp_path: Path) -> None:
    detector = cardiomegaly.load(onnx_file)
    with pytest.raises(UserError, match=r"array must be grey, .* got float64 \(8, 8\)"):
        detector.predict(np.zeros((8, 8)))
    with pytest.raises(UserError, match=r"input: .*absent.png is no file, no folder, and no file"):
        detector.predict(tmp_path / "absent.png")
    with pytest.raises(UserError, match="threshold: must lie between 0 and 1, got 2"):
        cardiomegaly.load(onnx_file, threshold=2)


WITHOUT_TORCH = """
import sys
from importlib.util import find_spec
from pathlib import Path
import cardiomegaly
detector = cardiomegaly.load(sys.argv[1])
print(len(detector.predict(sys.argv[2])), detector.explain(sys.argv[2]).maps.keys())
if find_spec("gradio"):
    from cardiomegaly.inference import web
    web.build(detector, [])
from cardiomegaly.inference.gallery import write_gallery
write_gallery(detector, [sys.argv[2]], None, Path(sys.argv[3]))
print(*{"torch", "timm", "pytorch_lightning"} & set(sys.modules), "none else")
"""


def test_an_onnx_file_needs_no_torch(onnx_file: Path, phantom_root: Path, tmp_path: Path) -> None:
    path = next((phantom_root / "images").iterdir())
    words = [sys.executable, "-c", WITHOUT_TORCH, onnx_file, path, tmp_path]
    done = subprocess.run(words, capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.splitlines()[-1].strip() == "none else"
