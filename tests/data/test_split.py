"""Cohort and split: what they promise of prevalence, patients and seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cardiomegaly import UserError
from cardiomegaly.config import read_data
from cardiomegaly.data import split
from cardiomegaly.data.tables import read_labels

FRACTIONS = (0.8, 0.08, 0.12)


@pytest.fixture(scope="module")
def labels() -> pd.DataFrame:
    """12,000 images of 4,000 patients whose positives cluster in some of them."""
    rng = np.random.default_rng(0)
    patient = np.sort(rng.integers(0, 4_000, 12_000))
    sick = rng.random(4_000) < 0.08
    sex = np.where(rng.random(4_000) < 0.56, "M", "F")
    return pd.DataFrame(
        {
            "image": [f"{i:08d}.png" for i in range(len(patient))],
            "patient_id": patient,
            "target": (sick[patient] & (rng.random(12_000) < 0.4)).astype("int8"),
            "sex": sex[patient],
            "view_position": np.where(rng.random(12_000) < 0.6, "PA", "AP"),
        }
    )


def test_study_cohort(labels: pd.DataFrame) -> None:
    cohort = split.draw_cohort(labels, "study", seed=3)
    positives = int(labels["target"].sum())
    assert cohort["target"].sum() == positives
    negatives = cohort[cohort["target"] == 0]["sex"].value_counts()
    assert negatives.to_dict() == {"M": 2 * positives, "F": 2 * positives}
    assert not cohort["image"].duplicated().any()


def test_study_cohort_takes_fewer_where_there_are_fewer(labels: pd.DataFrame) -> None:
    few = pd.concat([labels[labels["target"] == 1], labels[labels["target"] == 0].head(50)])
    assert len(split.draw_cohort(few, "study")) == len(few)


def test_study_cohort_of_the_full_file(nih_sample: Path) -> None:
    table = read_labels(nih_sample / "Data_Entry_2017_v2020.csv", read_data("nih"))
    cohort = split.draw_cohort(table, "study")
    assert len(cohort) == 13_880  # the study's own number
    assert cohort["target"].mean() == 0.2


def test_cohort_seed_and_views(labels: pd.DataFrame) -> None:
    first, again, other = (split.draw_cohort(labels, "study", seed=s) for s in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)
    assert set(split.draw_cohort(labels, "all", ("PA",))["view_position"]) == {"PA"}
    assert len(split.draw_cohort(labels, "all")) == len(labels)
    with pytest.raises(UserError, match="cohort: must be study or all"):
        split.draw_cohort(labels, "some")
    with pytest.raises(UserError, match="leaves no image"):
        split.draw_cohort(labels[labels["view_position"] == "PA"], "all", ("AP",))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_patient_split(labels: pd.DataFrame, seed: int) -> None:
    table = labels.assign(split=split.split_cohort(labels, "patient", FRACTIONS, seed))
    assert split.shared_patients(table) == 0
    for part, fraction in zip(split.PARTS, FRACTIONS, strict=True):
        rows = table[table["split"] == part]
        assert len(rows) / len(table) == pytest.approx(fraction, rel=0.03)
        assert rows["target"].mean() == pytest.approx(labels["target"].mean(), rel=0.1)
        assert (rows["sex"] == "M").mean() == pytest.approx((labels["sex"] == "M").mean(), abs=0.02)
        images_a_patient = len(rows) / rows["patient_id"].nunique()
        assert images_a_patient == pytest.approx(3.0, rel=0.15)


def test_split_follows_the_seed(labels: pd.DataFrame) -> None:
    first, again, other = (split.split_cohort(labels, "patient", FRACTIONS, s) for s in (1, 1, 2))
    assert first.equals(again)
    assert (first != other).mean() > 0.2


def test_image_split_is_exact_and_leaks(labels: pd.DataFrame) -> None:
    table = labels.assign(split=split.split_cohort(labels, "image", FRACTIONS, 0))
    counts = table.groupby(["target", "sex", "split"]).size().unstack()
    shares = counts.div(counts.sum(axis=1), axis=0)
    for part, fraction in zip(split.PARTS, FRACTIONS, strict=True):
        np.testing.assert_allclose(shares[part], fraction, atol=0.01)
    assert split.shared_patients(table) > 0
    with pytest.raises(UserError, match="patients stand in more than one part"):
        split.check_split(table, leaks_allowed=False)
    split.check_split(table, leaks_allowed=True)


def test_official_lists(labels: pd.DataFrame, tmp_path: Path) -> None:
    is_test = labels["patient_id"] % 4 == 0
    with pytest.raises(UserError, match=r"train_val_list\.txt does not exist"):
        split.split_cohort(labels, "official", FRACTIONS, 0, tmp_path)
    (tmp_path / "test_list.txt").write_text("\n".join(labels["image"][is_test]))
    (tmp_path / "train_val_list.txt").write_text("\n".join(labels["image"][~is_test][1:]))
    with pytest.raises(UserError, match="1 images are in neither list"):
        split.split_cohort(labels, "official", FRACTIONS, 0, tmp_path)
    (tmp_path / "train_val_list.txt").write_text("\n".join(labels["image"][~is_test]))
    table = labels.assign(split=split.split_cohort(labels, "official", FRACTIONS, 0, tmp_path))
    assert ((table["split"] == "test") == is_test).all()
    assert split.shared_patients(table) == 0
    rest = table[~is_test]["split"].value_counts(normalize=True)
    assert rest["val"] == pytest.approx(0.08 / 0.88, rel=0.05)


def test_bad_fractions_and_names(labels: pd.DataFrame) -> None:
    with pytest.raises(UserError, match=r"split\.fractions: must be three shares"):
        split.split_cohort(labels, "patient", (0.8, 0.1, 0.2), 0)
    with pytest.raises(UserError, match="split: must be patient, image or official"):
        split.split_cohort(labels, "random", FRACTIONS, 0)


def test_given_split(labels: pd.DataFrame, tmp_path: Path) -> None:
    table = labels.assign(split=split.split_cohort(labels, "patient", FRACTIONS, 0))
    path = tmp_path / "split.csv"
    table[["image", "split"]].sample(frac=1, random_state=0).iloc[10:].to_csv(path, index=False)
    parts = split.read_split(path, labels)
    assert parts.isna().sum() == 10
    assert (parts.dropna() == table["split"][parts.notna()]).all()
    with pytest.raises(UserError, match=r"split\.file: .* does not exist"):
        split.read_split(tmp_path / "absent.csv", labels)
    for text, message in [
        ("image,part\na,train\n", "lacks the column 'split'"),
        ("image,split\na,tune\n", "split must be one of train, val, test, got 'tune'"),
        ("image,split\na,train\n", "holds none of the 12,000 images"),
        ("image,split\na,train\na,test\n", "lists 1 images twice"),
    ]:
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            split.read_split(path, labels)


def test_a_part_needs_both_classes(labels: pd.DataFrame) -> None:
    table = labels.assign(split=split.split_cohort(labels, "patient", FRACTIONS, 0))
    table = table[(table["split"] != "val") | (table["target"] == 0)]
    with pytest.raises(UserError, match="the val part holds 0 images with"):
        split.check_split(table, leaks_allowed=False)


def test_hash_knows_the_split_not_the_order(labels: pd.DataFrame) -> None:
    table = labels.assign(split=split.split_cohort(labels, "patient", FRACTIONS, 0))
    assert split.split_hash(table) == split.split_hash(table.sample(frac=1, random_state=1))
    moved = table.copy()
    moved.loc[0, "split"] = "test" if moved.loc[0, "split"] != "test" else "val"
    assert split.split_hash(table) != split.split_hash(moved)


def test_another_publishers_table_of_parts(tmp_path: Path, labels: pd.DataFrame) -> None:
    words = np.array(["train", "validate", "test"])[labels["patient_id"] % 3]
    pd.DataFrame({"dicom_id": labels["image"], "split": words}).to_csv(tmp_path / "split.csv.gz")
    parts = split.read_split(tmp_path / "split.csv.gz", labels, "dicom_id")
    assert parts.tolist() == pd.Series(words).replace("validate", "val").tolist()


def test_a_table_without_sex_and_view(labels: pd.DataFrame) -> None:
    bare = labels.drop(columns=["sex", "view_position"])
    cohort = split.draw_cohort(bare, "study", negatives_per_positive=2)
    assert cohort["target"].sum() == labels["target"].sum()
    assert (cohort["target"] == 0).sum() == 2 * labels["target"].sum()
    table = bare.assign(split=split.split_cohort(bare, "patient", FRACTIONS, 0))
    assert split.shared_patients(table) == 0
    np.testing.assert_allclose(
        table["split"].value_counts(normalize=True)[list(split.PARTS)], FRACTIONS, atol=0.02
    )


def test_images_of_no_known_view_stay_and_of_no_known_sex_are_not_drawn(
    labels: pd.DataFrame,
) -> None:
    views = labels["view_position"].where(labels.index % 5 > 0, "lateral")
    table = labels.assign(view_position=views.where(labels.index % 7 > 0))
    cohort = split.draw_cohort(table, "all")
    assert len(cohort) == (table["view_position"] != "lateral").sum()
    table["sex"] = table["sex"].where(labels.index % 11 > 0)
    drawn = split.draw_cohort(table, "study")
    assert drawn.loc[drawn["target"] == 0, "sex"].notna().all()
    parts = split.split_cohort(table, "patient", FRACTIONS, 0)
    assert parts.notna().all()


def test_folds_test_every_image_once(labels: pd.DataFrame) -> None:
    tested = pd.Series(0, labels.index)
    for fold in range(5):
        parts = split.fold_cohort(labels, 5, fold, FRACTIONS, seed=3)
        table = labels.assign(split=parts)
        split.check_split(table, leaks_allowed=False)
        test = parts == "test"
        tested += test
        assert test.mean() == pytest.approx(0.2, abs=0.01)
        prevalence = labels["target"][test].mean()
        assert prevalence == pytest.approx(labels["target"].mean(), rel=0.1)
        ratio = (parts == "val").sum() / (parts == "train").sum()
        assert ratio == pytest.approx(0.1, abs=0.01)
    assert (tested == 1).all()


def test_lists_of_another_repository(tmp_path: Path, labels: pd.DataFrame) -> None:
    image = labels["image"]
    (tmp_path / "train.txt").write_text(
        "\n".join(f"images_001/{name} 0 1 0" for name in image[:90])
    )
    (tmp_path / "val.csv").write_text(
        "Image,label\n" + "\n".join(f"{name},1" for name in image[90:99])
    )
    (tmp_path / "test.txt").write_text("\n".join(image[99:120]))
    files = {part.stem: str(part) for part in tmp_path.iterdir()}
    parts = split.read_lists(files, labels)
    assert parts.value_counts().to_dict() == {"train": 90, "test": 21, "val": 9}
    assert parts.isna().sum() == len(labels) - 120
    for text, message in (
        ("else.png", "lists none of the 12,000 images"),
        (image[0], "'00000000.png' is in another list as well"),
    ):
        (tmp_path / "test.txt").write_text(text)
        with pytest.raises(UserError, match=rf"split\.files\.test: .*{message}"):
            split.read_lists({"train": files["train"], "test": files["test"]}, labels)
    with pytest.raises(UserError, match=r"split\.files\.val: none.txt does not exist"):
        split.read_lists({"val": "none.txt"}, labels)
