"""The phantom cohort: repeatable, in NIH's layout, and true to what it records."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from cardiomegaly import UserError
from cardiomegaly.data.phantom.cohort import MAGNIFICATION, generate_phantom

SIZE = 64
LIMIT = {"PA": 0.50, "AP": 0.50 * MAGNIFICATION}
Cohort = Callable[..., Path]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Generate a cohort in a fresh folder; parameters other than the small defaults by name."""

    def build(**parameters: Any) -> Path:
        root = tmp_path_factory.mktemp("phantom") / "root"
        generate_phantom(root, **{"images": 12, "size": SIZE, **parameters})
        return root

    return build


@pytest.fixture(scope="module")
def small(cohort: Cohort) -> Path:
    return cohort()


@pytest.fixture(scope="module")
def large(cohort: Cohort) -> Path:
    return cohort(images=400, size=32, label_noise=0.05)


def contents(root: Path) -> dict[str, bytes]:
    return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}


def labels(root: Path) -> pd.DataFrame:
    table = pd.read_csv(root / "Data_Entry_2017.csv")
    table["positive"] = table["Finding Labels"].str.contains("Cardiomegaly")
    return table


def truth(root: Path) -> pd.DataFrame:
    return pd.read_csv(root / "phantom.csv")


def pictures(root: Path) -> np.ndarray:
    return np.stack([cv2.imread(str(f), cv2.IMREAD_UNCHANGED) for f in sorted(root.rglob("*.png"))])


def test_same_seed_gives_same_bytes_whatever_the_number_of_workers(
    cohort: Cohort, small: Path
) -> None:
    assert contents(cohort(workers=1)) == contents(small) == contents(cohort(workers=3))


def test_another_seed_gives_other_patients_and_other_pictures(cohort: Cohort, small: Path) -> None:
    other = cohort(seed=1)
    assert not truth(other).equals(truth(small))
    assert not np.array_equal(pictures(other)[0], pictures(small)[0])


def test_images_are_8_bit_grey_squares_and_no_two_alike(small: Path) -> None:
    images = pictures(small)
    assert images.shape == (12, SIZE, SIZE)
    assert images.dtype == np.uint8
    assert len(np.unique(images.reshape(12, -1), axis=0)) == 12
    assert (images.std(axis=(1, 2)) > 25).all()  # not a blank among them


def test_headers_are_nihs_own(small: Path, nih_sample: Path) -> None:
    for ours, theirs in (
        ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv"),
        ("BBox_List_2017.csv", "BBox_List_2017.csv"),
    ):
        with (small / ours).open() as one, (nih_sample / theirs).open() as other:
            assert one.readline() == other.readline()


def test_label_file_looks_as_nihs_does(large: Path) -> None:
    table = labels(large)
    name = table["Patient ID"].map("{:08d}".format) + table["Follow-up #"].map("_{:03d}.png".format)
    assert (table["Image Index"] == name).all()
    assert set(table["Image Index"]) == {f.name for f in (large / "images").iterdir()}
    assert set(table["Patient Gender"]) == {"F", "M"}
    assert set(table["View Position"]) == {"AP", "PA"}
    assert table["Patient Age"].between(1, 100).all()
    assert (table["Finding Labels"] == "No Finding").any()
    assert table["Finding Labels"].str.contains("|", regex=False).any()
    assert (
        len(table[["Patient ID", "Patient Gender"]].drop_duplicates())
        == table["Patient ID"].nunique()
    )
    visits = table["Patient ID"].value_counts()
    assert visits.min() == 1
    assert visits.max() == 6


def test_label_follows_from_the_recorded_ratio_but_for_the_stated_noise(large: Path) -> None:
    table, true = labels(large), truth(large)
    assert (table["Image Index"] == true["image"]).all()
    assert (table["View Position"] == true["view_position"]).all()
    rule = true["cardiothoracic_ratio"] > true["view_position"].map(LIMIT)
    assert (true["enlarged"].astype(bool) == rule).all()
    wrong = table["positive"] != rule
    assert wrong.sum() == round(0.05 * 400)
    assert (wrong & rule).sum() == wrong.sum() // 2  # half in each class
    clean = labels(large).assign(positive=rule)
    assert clean.groupby("Patient ID")["positive"].nunique().max() == 2  # some patients change


def test_without_noise_every_label_is_true(cohort: Cohort) -> None:
    root = cohort(label_noise=0.0, images=60, size=32)
    assert (labels(root)["positive"] == truth(root)["enlarged"].astype(bool)).all()


@pytest.mark.parametrize("seed", range(4))
def test_prevalence_holds_for_any_seed_and_the_classes_lie_apart(cohort: Cohort, seed: int) -> None:
    true = truth(cohort(images=300, size=32, seed=seed))
    assert 0.18 <= true["enlarged"].mean() <= 0.30
    margin = true["cardiothoracic_ratio"] / true["view_position"].map(LIMIT) - 1
    assert (margin.abs() < 0.05).mean() < 0.15  # few borderline hearts: two humps


def test_an_ap_view_magnifies_the_heart(large: Path) -> None:
    true = truth(large)
    true["patient"] = true["image"].str[:8]
    widths = true.pivot_table(index="patient", columns="view_position", values="w").dropna()
    assert len(widths) > 20
    assert (widths["AP"] / widths["PA"]).mean() == pytest.approx(MAGNIFICATION, abs=0.04)


@pytest.mark.parametrize("size", [128, 200])
def test_boxes_enclose_the_heart_that_is_drawn(cohort: Cohort, size: int) -> None:
    with_heart = cohort(images=20, size=size)
    without = cohort(images=20, size=size, heart=False)
    true = truth(with_heart)
    assert true.equals(truth(without))
    assert labels(with_heart).equals(labels(without))
    change = np.abs(pictures(with_heart).astype(int) - pictures(without))
    scale = 1024 / size
    for box, picture in zip(true[["x", "y", "w", "h"]].to_numpy(), change, strict=True):
        rows, columns = np.nonzero(picture > 3)
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * scale
        claimed = np.array([box[0], box[1], box[0] + box[2], box[1] + box[3]])
        # Soft borders reach a little outside; the lower border may drown in the abdomen.
        assert np.abs(found - claimed)[:3] == pytest.approx(0, abs=28)
        assert claimed[3] - 110 < found[3] < claimed[3] + 28


def test_listed_boxes_are_those_of_the_truth_and_of_part_of_the_positives(large: Path) -> None:
    boxes = pd.read_csv(large / "BBox_List_2017.csv").iloc[:, :6]
    boxes.columns = pd.Index(["image", "finding", "x", "y", "w", "h"])
    found = labels(large).set_index("Image Index")["Finding Labels"]
    listed = zip(boxes["image"], boxes["finding"], strict=True)
    assert all(finding in found[image].split("|") for image, finding in listed)
    hearts = boxes[boxes["finding"] == "Cardiomegaly"]
    assert 0.3 < len(hearts) / labels(large)["positive"].sum() < 0.9
    assert len(boxes) > len(hearts)
    true = truth(large).set_index("image").loc[hearts["image"], ["x", "y", "w", "h"]]
    assert np.array_equal(hearts[["x", "y", "w", "h"]], true)
    corners = boxes[["x", "y"]].to_numpy()
    assert (corners >= 0).all()
    assert (corners + boxes[["w", "h"]].to_numpy() <= 1024.001).all()


def test_lists_part_the_images_by_patient(large: Path) -> None:
    train, test = (
        (large / name).read_text().split() for name in ("train_val_list.txt", "test_list.txt")
    )
    assert sorted(train + test) == sorted(truth(large)["image"])
    assert not {name[:8] for name in train} & {name[:8] for name in test}
    assert 0.15 < len(test) / 400 < 0.35


def test_view_bias_plants_a_shortcut_and_leaves_the_labels(cohort: Cohort) -> None:
    fair, biased = (truth(cohort(images=300, size=32, view_bias=bias)) for bias in (0.0, 0.9))
    assert (fair["enlarged"] == biased["enlarged"]).all()

    def agreement(table: pd.DataFrame) -> float:
        return float(((table["view_position"] == "AP") == table["enlarged"].astype(bool)).mean())

    assert agreement(fair) < 0.70
    assert agreement(biased) > 0.90


def test_brightness_alone_says_little(large: Path) -> None:
    brightness, enlarged = pictures(large).mean(axis=(1, 2)), truth(large)["enlarged"] == 1
    above = brightness[enlarged][:, None] > brightness[~enlarged][None, :]
    assert abs(above.mean() - 0.5) < 0.22  # AUROC by its definition


def test_a_complete_cohort_is_left_alone(cohort: Cohort) -> None:
    root = cohort()
    (root / "mine.txt").write_text("kept")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    generate_phantom(root, images=12, size=SIZE, workers=2)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.parametrize("lost", ["images/00000001_000.png", "phantom.csv", "test_list.txt"])
def test_an_incomplete_cohort_is_drawn_again(cohort: Cohort, small: Path, lost: str) -> None:
    root = cohort()
    (root / lost).unlink()
    generate_phantom(root, images=12, size=SIZE)
    assert contents(root) == contents(small)
    assert [path.name for path in root.parent.iterdir()] == ["root"]  # no draft left behind


def test_an_empty_folder_is_filled(tmp_path: Path, small: Path) -> None:
    generate_phantom(tmp_path, images=12, size=SIZE)
    assert contents(tmp_path) == contents(small)


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cardiomegaly.data.phantom.cohort._write_tables", fail)
    with pytest.raises(KeyboardInterrupt):
        generate_phantom(tmp_path / "root", images=2, size=32)
    assert not list(tmp_path.iterdir())


def test_a_faster_process_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Path
) -> None:
    from cardiomegaly.data.phantom import cohort as phantom

    write = phantom._write_tables

    def write_and_lose(*arguments: Any) -> None:
        write(*arguments)
        shutil.copytree(small, tmp_path / "root")
        (tmp_path / "root" / "theirs").touch()

    monkeypatch.setattr(phantom, "_write_tables", write_and_lose)
    generate_phantom(tmp_path / "root", images=12, size=SIZE)
    assert (tmp_path / "root" / "theirs").exists()


def test_other_parameters_in_the_same_folder_are_refused(cohort: Cohort) -> None:
    root = cohort()
    before = contents(root)
    with pytest.raises(UserError, match=r"with seed=0, but seed=7 is asked for: choose another"):
        generate_phantom(root, images=12, size=SIZE, seed=7)
    with pytest.raises(UserError, match=r"images=12, heart=True, but images=9, heart=False"):
        generate_phantom(root, images=9, size=SIZE, heart=False)
    assert contents(root) == before


@pytest.mark.parametrize("text", [None, "{", "5"])
def test_a_folder_of_something_else_is_refused_and_kept(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "Data_Entry_2017.csv").write_text("real")
    if text is not None:
        (tmp_path / "phantom.json").write_text(text)
    with pytest.raises(UserError, match="holds no phantom cohort .* choose another folder"):
        generate_phantom(tmp_path, images=2, size=32)
    assert (tmp_path / "Data_Entry_2017.csv").read_text() == "real"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("images", 0, r"\[1, "),
        ("size", 16, r"\[32, 4096\]"),
        ("seed", -1, r"\[0, "),
        ("label_noise", 0.5, r"\[0.0, 0.4\]"),
        ("label_noise", float("nan"), r"\[0.0, 0.4\]"),
        ("view_bias", 1.1, r"\[0.0, 1.0\]"),
        ("workers", 0, r"\[1, 1024\]"),
    ],
)
def test_values_out_of_range_are_refused(
    tmp_path: Path, name: str, value: float, allowed: str
) -> None:
    with pytest.raises(UserError, match=rf"phantom: {name} must lie in {allowed}.*got {value}"):
        generate_phantom(tmp_path / "root", **{name: value})
    assert not list(tmp_path.iterdir())


def test_parameters_are_recorded(small: Path) -> None:
    recorded = json.loads((small / "phantom.json").read_text())
    assert recorded["images"] == 12
    assert recorded["label_noise"] == 0.02


@pytest.mark.parametrize("images", [1, 2, 5])
def test_a_handful_of_images_is_a_cohort_too(cohort: Cohort, images: int) -> None:
    assert len(truth(cohort(images=images, size=32))) == images
