"""The NIH label file and the walk over the images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cardiomegaly import UserError
from cardiomegaly.data import labels

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
ROWS = [
    "00000001_000.png,Cardiomegaly,0,1,058Y,M,PA,2682,2749,0.143,0.143,",
    "00000001_001.png,Emphysema|Cardiomegaly,1,1,58,M,PA,2894,2729,0.143,0.143,",
    "00000002_000.png,No Finding,0,2,411,F,AP,2500,2048,0.168,0.168,",
    "00000003_000.png,Mass,0,3,006M,F,PA,2500,2048,0.168,0.168,",
]


def write(folder: Path, rows: list[str] = ROWS, header: str = HEADER) -> Path:
    path = folder / "Data_Entry_2017.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")


@pytest.mark.parametrize("header", [HEADER, HEADER.replace("Gender", "Sex")])
def test_reads_2017_layout_and_its_later_name_of_the_sex(tmp_path: Path, header: str) -> None:
    table = labels.read_labels(write(tmp_path, header=header))
    assert table["target"].tolist() == [1, 1, 0, 0]
    assert table["patient_id"].tolist() == [1, 1, 2, 3]
    assert table["age"].tolist()[:2] == [58.0, 58.0]
    assert np.isnan(table["age"][2])  # 411 years
    assert table["age"][3] == pytest.approx(0.5)
    assert table["width"].tolist() == [2682, 2894, 2500, 2500]
    assert table["sex"].tolist() == ["M", "M", "F", "F"]


def test_reads_2020_revision(nih_sample: Path) -> None:
    table = labels.read_labels(nih_sample / "Data_Entry_2017_v2020.csv")
    assert (len(table), table["target"].sum()) == (112_120, 2_776)
    assert table["patient_id"].nunique() == 30_805
    assert table["age"].max() <= 100


def test_cardiomegaly_must_be_a_whole_finding(tmp_path: Path) -> None:
    rows = [ROWS[2].replace("No Finding", "Mass|Edema"), ROWS[1].replace("|", " | ")]
    assert labels.read_labels(write(tmp_path, rows))["target"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("findings", "hint"),
    [
        ("cardiomegaly", r"got 'cardiomegaly' \(did you mean 'Cardiomegaly'\?\)"),
        ("Mass|Cardiomegalie", r"got 'Mass\|Cardiomegalie' \(did you mean 'Cardiomegaly'\?\)"),
        ("Not Cardiomegaly", r"got 'Not Cardiomegaly' \(did you mean 'Cardiomegaly'\?\)"),
        ("Cardiomegaly|", r"got 'Cardiomegaly\|'"),
        ("", "never blank, got ''"),
        ("nan", "got 'nan'"),
        ("0", "got '0'"),
    ],
)
def test_unknown_and_blank_findings_are_refused(tmp_path: Path, findings: str, hint: str) -> None:
    row = ROWS[2].replace("No Finding", findings)
    rows = [ROWS[0], row, row.replace("2_000", "2_001"), ROWS[3].replace("Mass", "Lump")]
    message = f"line 3: findings must be some of No Finding, Atelec.* {hint}; 3 rows are like it"
    with pytest.raises(UserError, match=message):
        labels.read_labels(write(tmp_path, rows))


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (HEADER.replace("Patient ID", "Patient"), ROWS, "lacks the column 'Patient ID'"),
        (HEADER, [], "has a header but no rows"),
        (HEADER, [ROWS[0], ROWS[0]], "lists 1 images more than once, first '00000001_000.png'"),
        (HEADER, [ROWS[0].replace(",1,058Y", ",one,058Y")], "line 2: patient_id must be a number"),
        (HEADER, [ROWS[0].replace(",1,058Y", ",1.7,058Y")], r"patient_id must be a whole.*'1\.7'"),
        (HEADER, [ROWS[0].replace(",1,058Y", ",1e20,058Y")], "patient_id must be a whole.* '1e20'"),
        (HEADER, [ROWS[0].replace(",1,058Y", ",-3,058Y")], "patient_id must be a whole.* got '-3'"),
        (HEADER, [ROWS[0].replace(",1,058Y", ",inf,058Y")], "patient_id must be a whole.* 'inf'"),
        (HEADER, [ROWS[0].replace(",0,1,", ",0.5,1,")], "line 2: follow_up must be a whole number"),
        (HEADER, [ROWS[0].replace(",M,", ",X,")], "sex must be one of M, F, got 'X'"),
        (HEADER, [ROWS[0].replace(",PA,", ",LL,")], "view_position must be one of PA, AP"),
        ("a,b", ["1,2,3", "1,2,3,4"], "is not a readable CSV"),
        ("", [], "is not a readable CSV"),
    ],
)
def test_bad_label_files(tmp_path: Path, header: str, rows: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        labels.read_labels(write(tmp_path, rows, header))


def test_rows_whose_image_is_there(tmp_path: Path) -> None:
    write(tmp_path)
    touch(tmp_path / "images_001" / "images", "00000001_000.png")
    touch(tmp_path / "images_002" / "images", "00000003_000.jpg", "99999999_000.png")
    found = labels.load_labelled_images(tmp_path)
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
    before = labels.load_labelled_images(tmp_path).table["key"]
    touch(tmp_path, "00000001_001.png")
    os.utime(tmp_path / "00000002_000.png", ns=(1, 1))
    after = labels.load_labelled_images(tmp_path).table["key"]
    assert after[0] == before[0]
    assert len({*before, *after}) == 4


def test_one_file_for_two_rows_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [ROWS[0], ROWS[2].replace("00000002_000.png", "00000001_000.jpg")])
    touch(tmp_path, "00000001_000.png")
    with pytest.raises(
        UserError, match=r"'00000001_000\.png' and '00000001_000\.jpg', and .*1_000"
    ):
        labels.load_labelled_images(tmp_path)
    touch(tmp_path, "00000001_000.jpg")
    assert len(labels.load_labelled_images(tmp_path).table) == 2


def test_only_names_that_the_label_file_lists_matter(tmp_path: Path) -> None:
    write(tmp_path)
    touch(tmp_path / "plots1", "roc.png")
    touch(tmp_path / "plots2", "roc.png", "00000002_000.png")
    assert len(labels.load_labelled_images(tmp_path).table) == 1
    touch(tmp_path / "plots1", "00000002_000.png")
    with pytest.raises(UserError, match=r"00000002_000\.png lies more than once below"):
        labels.load_labelled_images(tmp_path)


def test_no_folder_no_file_no_image(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root: no folder"):
        labels.load_labelled_images(tmp_path / "absent")
    with pytest.raises(UserError, match="holds no Data_Entry_2017"):
        labels.load_labelled_images(tmp_path)
    write(tmp_path)
    with pytest.raises(UserError, match="none of the 4 images of Data_Entry_2017.csv"):
        labels.load_labelled_images(tmp_path)


def test_two_label_files_need_a_name(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text("")
    with pytest.raises(UserError, match=r"choose one by data\.labels=NAME"):
        labels.find_label_file(tmp_path)
    assert labels.find_label_file(tmp_path, "Data_Entry_2017.csv").is_file()


def test_real_sample(nih_sample: Path) -> None:
    found = labels.load_labelled_images(nih_sample)
    assert (len(found.table), found.table["target"].sum()) == (1_349, 135)
    assert found.n_missing == 112_120 - 1_349
    assert all(Path(path).parent.name == "images" for path in found.table["path"])


def test_ages() -> None:
    ages = labels.parse_age(pd.Series(["58", "058Y", " 6m", "10W", "101", "abc", ""]))
    np.testing.assert_allclose(ages, [58, 58, 0.5, 10 / 52, np.nan, np.nan, np.nan])
