"""The phantom in other publishers' tables, trained and tested end to end by the command."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cardiomegaly import UserError, evaluate
from cardiomegaly.config import read_data
from cardiomegaly.data.labels import load_labelled_images
from tests.other_tables import WORDS, WRITERS, rewritten


@pytest.mark.slow
@pytest.mark.parametrize("name", list(WRITERS))
def test_trained_and_tested_as_nih_is(
    trained: Callable[..., Path], phantom_root: Path, tmp_path: Path, name: str
) -> None:
    """The same images, labels and patients give the same figures, whatever the table."""
    root = rewritten(phantom_root, tmp_path / name, name)
    known = read_data(name).columns
    # Kept features are augmented by the name of the image, which each set writes in its own way.
    words = ["cohort=all", "split.fractions=[0.4,0.3,0.3]", "features=live"]
    words += WORDS["vindr"] if name == "vindr" else []
    own = [] if known["sex"] is not None else ["data.columns.sex=null"]  # of which parts depend
    ours = metrics(trained(tmp_path / "own", *words, *own))
    given = [f"data={name}", f"data.root={root}", *WORDS.get(name, [])]
    folder = trained(tmp_path / "run", *words, *given)
    theirs = metrics(folder)
    assert theirs["test"] == ours["test"]
    assert theirs["meta"]["data"] == name
    assert theirs["meta"]["n_train"] == ours["meta"]["n_train"]
    predictions = pd.read_csv(folder / "predictions.csv")
    for column in ("sex", "age", "view_position"):
        assert predictions[column].isna().all() == (column in theirs["meta"]["not_in_label_file"])
    if name == "vindr":  # whose table holds boxes
        assert evaluate.main([f"run={folder}", "minimum=2", "gradcam=false"]) == 0
        judged = pd.read_csv(folder / "evaluation" / "localisation_images.csv")
        positive = predictions.loc[predictions["target"] == 1, "image"]
        assert set(positive) <= set(judged["image"])


def metrics(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "metrics.json").read_text()))


def test_a_split_by_patient_needs_patients(
    trained: Callable[..., Path], phantom_root: Path, tmp_path: Path
) -> None:
    root = rewritten(phantom_root, tmp_path / "vindr", "vindr")
    with pytest.raises(UserError, match=r"split=patient: .*train\.csv names no patients .*image"):
        trained(tmp_path / "run", "data=vindr", f"data.root={root}")


@pytest.mark.slow
def test_the_publishers_own_split(
    trained: Callable[..., Path], phantom_root: Path, tmp_path: Path
) -> None:
    root = rewritten(phantom_root, tmp_path / "mimic", "mimic")
    folder = trained(tmp_path / "run", "data=mimic", f"data.root={root}", "split=official")
    given = pd.read_csv(root / "mimic-cxr-2.0.0-split.csv.gz").set_index("dicom_id")["split"]
    used = pd.read_csv(folder / "split.csv").set_index("image")["split"]
    assert len(used)
    assert used.tolist() == given[used.index].replace("validate", "val").tolist()


@pytest.mark.slow
def test_another_finding_is_trained_evaluated_and_named(
    trained: Callable[..., Path],
    phantom_root: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    folder = trained(tmp_path / "run", "data.finding=Effusion", "cohort=all")
    assert re.search(r"test +\d+ images of +\d+ patients, +\d+\.\d% with effusion", caplog.text)
    table = load_labelled_images(read_data("nih", {"root": str(phantom_root)})).table
    effusion = table.set_index("image")["findings"].str.contains("Effusion")
    split = pd.read_csv(folder / "split.csv").set_index("image")["target"]
    assert split.tolist() == effusion[split.index].astype(int).tolist()
    assert evaluate.main([f"run={folder}", "minimum=2", "gradcam=false"]) == 0
    page = (folder / "evaluation" / "evaluation.md").read_text()
    assert "labelled effusion" in page
    assert "labelled cardiomegaly" not in page
    assert "heart boxes say nothing of Effusion" in page
