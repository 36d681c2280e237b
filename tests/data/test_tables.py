"""The reader of label tables: NIH's own layouts, other publishers' tables, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cardiomegaly import UserError
from cardiomegaly.config import read_data
from cardiomegaly.data.tables import parse_age, patient_ids, read_labels
from tests.other_tables import CHEXPERT, rewritten

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


def nih(folder: Path, rows: list[str] = ROWS, header: str = HEADER) -> pd.DataFrame:
    path = folder / "Data_Entry_2017.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return read_labels(path, read_data("nih"))


def read(folder: Path, text: str, name: str, **values: Any) -> pd.DataFrame:
    path = folder / "labels.csv"
    path.write_text(text)
    return read_labels(path, read_data(name, values))


@pytest.mark.parametrize("header", [HEADER, HEADER.replace("Gender", "Sex")])
def test_reads_2017_layout_and_its_later_name_of_the_sex(tmp_path: Path, header: str) -> None:
    table = nih(tmp_path, header=header)
    assert table["target"].tolist() == [1, 1, 0, 0]
    assert table["patient_id"].tolist() == [1, 1, 2, 3]
    assert table["age"].tolist()[:2] == [58.0, 58.0]
    assert np.isnan(table["age"][2])  # 411 years
    assert table["age"][3] == pytest.approx(0.5)
    assert table["width"].tolist() == [2682, 2894, 2500, 2500]
    assert table["sex"].tolist() == ["M", "M", "F", "F"]
    assert table["findings"].tolist()[:3] == [
        "Cardiomegaly",
        "Emphysema|Cardiomegaly",
        "No Finding",
    ]


def test_reads_2020_revision(nih_sample: Path) -> None:
    table = read_labels(nih_sample / "Data_Entry_2017_v2020.csv", read_data("nih"))
    assert (len(table), table["target"].sum()) == (112_120, 2_776)
    assert table["patient_id"].nunique() == 30_805
    assert table["age"].max() <= 100


def test_the_finding_must_be_a_whole_item(tmp_path: Path) -> None:
    rows = [ROWS[2].replace("No Finding", "Mass|Edema"), ROWS[1].replace("|", " | ")]
    assert nih(tmp_path, rows)["target"].tolist() == [0, 1]


def test_another_finding(tmp_path: Path) -> None:
    nih(tmp_path)
    data = read_data("nih", {"finding": "Mass"})
    table = read_labels(tmp_path / "Data_Entry_2017.csv", data)
    assert table["target"].tolist() == [0, 0, 0, 1]
    with pytest.raises(UserError, match=r"no image can have 'Lump' in the column 'Finding Labels'"):
        read_labels(tmp_path / "Data_Entry_2017.csv", read_data("nih", {"finding": "Lump"}))


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
        nih(tmp_path, rows)


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (HEADER.replace("Patient ID", "Patient"), ROWS, "lacks the column 'Patient ID'"),
        (HEADER, [], "has a header but no rows"),
        (HEADER, [ROWS[0], ROWS[0]], "lists 1 images more than once, first '00000001_000.png'"),
        (
            HEADER,
            [ROWS[0].replace(",0,1,", ",x,1,")],
            "line 2: follow_up must be a number or blank",
        ),
        (HEADER, [ROWS[0].replace("00000001_000.png", "")], "line 2: image must not be blank"),
        (HEADER, [ROWS[0].replace(",0,1,", ",0,1.7,")], "line 2: patient_id must be a whole .*1.7"),
        (HEADER, [ROWS[0].replace(",0,1,", ",0,1e20,")], "line 2: patient_id .*, got '1e20'"),
        (HEADER, [ROWS[0].replace(",0,1,", ",0,-3,")], "line 2: patient_id .*, got '-3'"),
        ("a,b", ["1,2,3", "1,2,3,4"], "is not a readable CSV"),
        ("", [], "is not a readable CSV"),
    ],
)
def test_bad_label_files(tmp_path: Path, header: str, rows: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        nih(tmp_path, rows, header)


def test_views_and_sexes_that_are_not_listed(tmp_path: Path) -> None:
    rows = [ROWS[0].replace(",PA,", ",LL,"), ROWS[2].replace(",F,", ",X,").replace(",AP,", ",YY,")]
    table = nih(tmp_path, rows)
    assert table["view_position"].tolist() == ["lateral", "other"]
    assert table["sex"].isna().tolist() == [False, True]


CODED = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Cardiomegaly,Pleural Effusion\n"
    "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,,1.0,1.0\n"
    "CheXpert-v1.0/train/patient00001/study1/view2_lateral.jpg,Female,68,Lateral,,,1.0,1.0\n"
    "CheXpert-v1.0/train/patient00002/study2/view1_frontal.jpg,Male,9,Frontal,PA,,-1.0,\n"
    "CheXpert-v1.0/train/patient00002/study3/view1_frontal.jpg,Male,9,Frontal,LL,1.0,,0.0\n"
    "CheXpert-v1.0/valid/patient00003/study1/view1_frontal.jpg,Unknown,0,Frontal,PA,,0.0,\n"
)


def test_chexpert(tmp_path: Path) -> None:
    table = read(tmp_path, CODED, "chexpert")
    assert table["image"][0] == "patient00001/study1/view1_frontal.jpg"
    assert table["patient_id"].tolist() == [1, 1, 2, 2, 3]
    assert table["label"].tolist() == ["positive", "positive", "uncertain", "blank", "negative"]
    assert table["target"].fillna(9).tolist() == [1, 1, 9, 0, 0]
    assert table["view_position"].fillna("").tolist() == ["AP", "lateral", "PA", "", "PA"]
    assert table["sex"].fillna("").tolist() == ["F", "F", "M", "M", ""]
    assert table["findings"].tolist()[:4] == [
        "Cardiomegaly|Pleural Effusion", "Cardiomegaly|Pleural Effusion", "", "No Finding"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("uncertain", "blank", "expected"),
    [("positive", "ignore", [1, 1, 1, 9, 0]), ("negative", "negative", [1, 1, 0, 0, 0])],
)
def test_what_uncertain_and_blank_count_as(
    tmp_path: Path, uncertain: str, blank: str, expected: list[int]
) -> None:
    table = read(tmp_path, CODED, "chexpert", uncertain=uncertain, blank=blank)
    assert table["target"].fillna(9).tolist() == expected


def test_the_test_table_of_chexpert_lacks_columns(tmp_path: Path) -> None:
    text = "Path,Cardiomegaly\ntest/patient64741/study1/view1_frontal.jpg,1.0\n"
    table = read(tmp_path, text, "chexpert")
    assert table["patient_id"].tolist() == [64741]
    assert table[["sex", "age", "view_position"]].isna().all(axis=None)
    with pytest.raises(UserError, match=r"Path must contain .*patient"):
        read(tmp_path, text.replace("patient64741/study1/", ""), "chexpert")
    with pytest.raises(UserError, match=r"findings must be some of 1, 0, -1, blank, got '2'"):
        read(tmp_path, text.replace("1.0", "2"), "chexpert")
    with pytest.raises(UserError, match=r"lacks the column 'Edema' of data\.columns\.target"):
        read(tmp_path, text, "chexpert", finding="Edema")


def test_readers_vote(tmp_path: Path) -> None:
    votes = {"a": ["Cardiomegaly"] * 3, "b": ["Cardiomegaly", "Cardiomegaly", "No finding"]}
    votes |= {"c": ["Cardiomegaly", "ILD", "No finding"], "d": ["No finding"] * 3}
    rows = [
        f"{i},{name},1,R{r},1,2,3,4" for i, names in votes.items() for r, name in enumerate(names)
    ]
    rows += ["c,Cardiomegaly,1,R0,5,6,7,8"]  # a second box of the same reader is no second vote
    text = "\n".join(["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max", *rows])
    for needed, expected in ((1, [1, 1, 1, 0]), (2, [1, 1, 0, 0]), (3, [1, 0, 0, 0])):
        table = read(tmp_path, text, "vindr", votes=needed)
        assert table["image"].tolist() == list("abcd")
        assert table["target"].tolist() == expected
    assert read(tmp_path, text, "vindr", votes=1)["findings"].tolist() == [
        "Cardiomegaly", "Cardiomegaly", "Cardiomegaly|ILD", "No Finding"
    ]  # fmt: skip
    assert table["patient_id"].isna().all()


def test_any_table(tmp_path: Path) -> None:
    text = "file,heart,who\na,big,007\nb,normal,x\nc,BIG,x\n"
    columns = {"image": "file", "target": "heart", "patient_id": "who"}
    table = read(tmp_path, text, "table", columns=columns, positive="big")
    assert table["target"].tolist() == [1, 0, 1]
    assert table["patient_id"].tolist() == ["007", "x", "x"]
    with pytest.raises(UserError, match=r"no image can have 'huge' in the column 'heart'; it has "):
        read(tmp_path, text, "table", columns=columns, positive="huge")
    with pytest.raises(UserError, match=r"lacks the column 'hearts' \(did you mean 'heart'\?\)"):
        read(tmp_path, text, "table", columns=columns | {"target": "hearts"}, positive="big")
    with pytest.raises(UserError, match=r"data\.columns\.target: names the column of the target"):
        read(tmp_path, text, "table", columns=columns | {"target": None}, positive="big")


@pytest.mark.parametrize("name", ["chexpert", "mimic", "padchest", "brax"])
def test_the_phantom_in_others_tables_reads_as_in_nihs(
    tmp_path: Path, phantom_root: Path, name: str
) -> None:
    ours = read_labels(phantom_root / "Data_Entry_2017.csv", read_data("nih"))
    data = read_data(name, {"root": str(rewritten(phantom_root, tmp_path / name, name))})
    (path,) = Path(data.root).glob(data.labels)
    theirs = read_labels(path, data)
    theirs = theirs[theirs["view_position"].isin(["PA", "AP"]) & theirs["target"].notna()]
    for column in ("target", "view_position"):
        assert theirs[column].tolist() == ours[column].tolist()
    for column in ("sex", "age") if name != "mimic" else ():
        expected = ours[column]
        if (name, column) == ("brax", "age"):
            expected = expected.clip(upper=85)  # "85 or more"
        assert theirs[column].tolist() == expected.tolist()
    groups = theirs.groupby("patient_id", sort=False).size().tolist()
    assert groups == ours.groupby("patient_id", sort=False).size().tolist()
    if data.columns["date"] is not None and name != "brax":
        assert theirs["follow_up"].tolist() == ours["follow_up"].tolist()


def test_columns_of_chexpert_are_those_of_its_publisher() -> None:
    for name in ("chexpert", "mimic", "brax"):
        assert tuple(read_data(name).columns["findings"]) == CHEXPERT


def test_ages() -> None:
    ages = parse_age(pd.Series(["58", "058Y", " 6m", "10W", "101", "abc", "", "85 or more"]))
    np.testing.assert_allclose(ages, [58, 58, 0.5, 10 / 52, np.nan, np.nan, np.nan, 85])


def test_patient_identifiers_survive_a_file(tmp_path: Path) -> None:
    for values in (["1", "20"], ["007x", "1e5"], ["839860488694292331637988235681460987", "1"]):
        ids = patient_ids(pd.Series(values))
        ids.to_csv(tmp_path / "ids.csv", index=False, header=["patient_id"])
        again = pd.read_csv(tmp_path / "ids.csv", dtype={"patient_id": str})["patient_id"]
        assert patient_ids(again).tolist() == ids.tolist()
    assert patient_ids(pd.Series(["1", "20"])).dtype == "int64"
    assert patient_ids(pd.Series(["1", ""])).isna().tolist() == [False, True]
