"""A run goes on with the split, the images and the labels that it was begun with, or not at all."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cardiomegaly import UserError
from cardiomegaly.training.begun import alone, check_same_data, read_begun, write_begun
from cardiomegaly.training.files import write_csv
from tests.made_runs import HASH


def begun(folder: Path) -> pd.DataFrame:
    """A run of six images that has just begun."""
    names = [f"{i:08d}_000.png" for i in range(6)]
    parts = ["train", "train", "val", "val", "test", "test"]
    split = pd.DataFrame({"image": names, "patient_id": range(6), "split": parts, "target": 0})
    write_begun(folder, split, HASH, "live", "none")
    return split


def test_a_run_goes_on_with_the_split_that_it_was_begun_with(tmp_path: Path) -> None:
    split = begun(tmp_path)
    read_begun(tmp_path)
    check_same_data(tmp_path, split, HASH)


@pytest.mark.parametrize("change", ["cut", "swapped", "gone"])
def test_a_run_does_not_go_on_with_another_split(tmp_path: Path, change: str) -> None:
    split = begun(tmp_path)
    if change == "cut":
        write_csv(tmp_path / "split.csv", split[:3])
    elif change == "swapped":
        other = split.assign(split=split["split"].replace({"train": "test", "test": "train"}))
        write_csv(tmp_path / "split.csv", other)
    else:
        (tmp_path / "split.csv").unlink()
    with pytest.raises(UserError, match="split.csv is missing or not the file .*: restore"):
        read_begun(tmp_path)


@pytest.mark.parametrize("content", [None, "", "[]", "{}"])
def test_without_its_hashes_a_run_does_not_go_on(tmp_path: Path, content: str | None) -> None:
    begun(tmp_path)
    if content is None:
        (tmp_path / "run.json").unlink()
    else:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run.json is missing or damaged, .* start the run anew"):
        read_begun(tmp_path)


def test_a_run_does_not_go_on_with_other_images_or_labels(tmp_path: Path) -> None:
    split = begun(tmp_path)
    with pytest.raises(UserError, match="begun with the 6 images .*, of which 4 can be had now"):
        check_same_data(tmp_path, split[:4], HASH)
    with pytest.raises(UserError, match="the label file is not the one"):
        check_same_data(tmp_path, split, HASH[::-1])


def test_one_process_trains_into_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for _ in range(2):  # it is free again
        with (
            pytest.raises(UserError, match=r"another process trains into .*run: wait for its end"),
            alone(folder),
            alone(folder),
        ):
            pass
