"""The command: a row an image whatever the files are, and an interrupted table goes on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cardiomegaly import predict
from cardiomegaly.inference.detector import Detector
from tests.inference.test_inputs import chest, write_world


def test_a_folder_becomes_a_table(
    onnx_file: Path,
    phantom_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = write_world(tmp_path / "images", chest(phantom_root))
    output = tmp_path / "new" / "table.csv"
    words = [f"model={onnx_file}", f"input={tmp_path / 'images'}", f"output={output}"]
    assert predict.main([*words, "batch_size=3", "workers=0"]) == 0
    table = pd.read_csv(output, keep_default_na=False)
    assert [Path(image).name for image in table["image"]] == sorted(said)
    for row, reason in zip(table.itertuples(), said.values(), strict=True):
        assert row.refused == bool(reason) and reason in row.reason
        assert (row.probability == "") == (row.decision == "") == bool(reason)
    assert "8 images, 5 of them refused" in capsys.readouterr().out


def test_an_interrupted_table_goes_on(
    onnx_file: Path,
    phantom_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [f"model={onnx_file}", f"input={phantom_root / 'images'}", "batch_size=8", "workers=0"]
    whole, output = tmp_path / "whole.csv", tmp_path / "table.csv"
    assert predict.main([*words, f"output={whole}"]) == 0
    batches, predicted = Detector.rows, []

    def interrupted(self: Detector, batch: list) -> list:
        if len(predicted) == 3:
            raise KeyboardInterrupt
        predicted.append(batch)
        return batches(self, batch)

    monkeypatch.setattr(Detector, "rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict.main([*words, f"output={output}"])
    assert not output.exists()
    (unfinished,) = tmp_path.glob(".table.csv.*.part")
    with unfinished.open("a") as file:
        file.write("half of a ro")
    predicted.clear()
    monkeypatch.setattr(
        Detector, "rows", lambda self, batch: predicted.extend(batch) or batches(self, batch)
    )
    assert predict.main([*words, f"output={output}", "flips=true"]) == 0  # asks for something else
    assert len(predicted) == 90
    predicted.clear()
    assert predict.main([*words, f"output={output}"]) == 0
    assert len(predicted) == 90 - 3 * 8
    assert output.read_text() == whole.read_text()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("batch_size=0", "batch_size: must be at least 1, got 0"),
        ("workers=-1", "workers: must be at least 0, got -1"),
        ("threshold=1.5", "threshold: must lie between 0 and 1, got 1.5"),
        ("input=absent", "input: absent is no file, no folder, and no file fits it"),
    ],
)
def test_mistakes_are_one_line(
    onnx_file: Path,
    phantom_root: Path,
    capsys: pytest.CaptureFixture[str],
    word: str,
    message: str,
) -> None:
    words = [f"model={onnx_file}", f"input={phantom_root / 'images'}", word]
    key = word.partition("=")[0]
    words = [one for one in words[:-1] if not one.startswith(f"{key}=")] + [word]
    assert predict.main(words) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
