"""The label table of a folder, and which of its images are there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cardiomegaly import UserError
from cardiomegaly.config import DataConfig, read_data
from cardiomegaly.data.labels import LabelledImages, find_label_file, load_labelled_images
from tests.data.test_tables import HEADER, ROWS
from tests.other_tables import rewritten


def write(folder: Path, rows: list[str] = ROWS) -> Path:
    path = folder / "Data_Entry_2017.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")


def data_in(root: Path, name: str = "nih", **values: Any) -> DataConfig:
    return read_data(name, {"root": str(root), **values})


def load(root: Path, name: str = "nih", **values: Any) -> LabelledImages:
    return load_labelled_images(data_in(root, name, **values))


def test_rows_whose_image_is_there(tmp_path: Path) -> None:
    write(tmp_path)
    touch(tmp_path / "images_001" / "images", "00000001_000.png")
    touch(tmp_path / "images_002" / "images", "00000003_000.jpg", "99999999_000.png")
    found = load(tmp_path)
    assert found.table["image"].tolist() == ["00000001_000.png", "00000003_000.png"]
    assert [Path(path).name for path in found.table["path"]] == [
        "00000001_000.png", "00000003_000.jpg"
    ]  # fmt: skip
    assert found.n_missing == 2
    assert found.table["key"].dtype == np.uint64
    assert found.table["key"].nunique() == 2


def test_a_changed_image_is_another_one(tmp_path: Path) -> None:
    write(tmp_path)
    touch(tmp_path, "00000001_000.png", "00000002_000.png")
    before = load(tmp_path).table["key"]
    touch(tmp_path, "00000001_001.png")
    os.utime(tmp_path / "00000002_000.png", ns=(1, 1))
    after = load(tmp_path).table["key"]
    assert after[0] == before[0]
    assert len({*before, *after}) == 4


def test_one_file_for_two_rows_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [ROWS[0], ROWS[2].replace("00000002_000.png", "00000001_000.jpg")])
    touch(tmp_path, "00000001_000.png")
    with pytest.raises(
        UserError, match=r"'00000001_000\.png' and '00000001_000\.jpg', and .*1_000"
    ):
        load(tmp_path)
    touch(tmp_path, "00000001_000.jpg")
    assert len(load(tmp_path).table) == 2


def test_only_names_that_the_label_file_lists_matter(tmp_path: Path) -> None:
    write(tmp_path)
    touch(tmp_path / "plots1", "roc.png")
    touch(tmp_path / "plots2", "roc.png", "00000002_000.png")
    assert len(load(tmp_path).table) == 1
    touch(tmp_path / "plots1", "00000002_000.png")
    with pytest.raises(UserError, match=r"00000002_000\.png lies more than once below"):
        load(tmp_path)


def test_no_folder_no_file_no_image(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root: no folder"):
        load(tmp_path / "absent")
    with pytest.raises(UserError, match="holds no Data_Entry_2017"):
        load(tmp_path)
    write(tmp_path)
    with pytest.raises(UserError, match="none of the 4 images of Data_Entry_2017.csv"):
        load(tmp_path)


def test_two_label_files_need_a_name(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text("")
    with pytest.raises(
        UserError, match=r"holds Data_Entry_2017.csv, Data.*; say data\.labels=NAME"
    ):
        find_label_file(data_in(tmp_path))
    assert find_label_file(data_in(tmp_path, labels="Data_Entry_2017.csv")).is_file()


def test_real_sample(nih_sample: Path) -> None:
    found = load(nih_sample)
    assert (len(found.table), found.table["target"].sum()) == (1_349, 135)
    assert found.n_missing == 112_120 - 1_349
    assert all(Path(path).parent.name == "images" for path in found.table["path"])


def test_what_is_left_out_and_not_known_is_counted(tmp_path: Path, phantom_root: Path) -> None:
    root = rewritten(phantom_root, tmp_path / "chexpert", "chexpert")
    ours = load(phantom_root)
    found = load(root, "chexpert")
    assert found.n_rows == len(ours.table) + 3
    assert found.n_ignored == found.label_counts["uncertain"] == 1
    assert found.n_missing == 2  # the laterals, of which there are no images
    assert found.table["target"].tolist() == ours.table["target"].tolist()
    assert found.unknown == ["follow_up"]
    assert load(root, "chexpert", blank="ignore").label_counts == found.label_counts
    assert load(root, "chexpert", uncertain="positive").n_ignored == 0


def test_patients_that_no_column_names(tmp_path: Path, phantom_root: Path) -> None:
    root = rewritten(phantom_root, tmp_path / "vindr", "vindr")
    found = load(root, "vindr")
    assert not found.patients_known
    assert found.unknown == ["view_position", "sex", "age", "follow_up"]
    assert found.table["patient_id"].tolist() == found.table["image"].tolist()
    assert load(root, "vindr", patient="image").patients_known
    assert not load(phantom_root, patient="image").table["patient_id"].duplicated().any()
