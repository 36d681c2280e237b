"""What a data set holds, counted: against hand counts, scikit-learn and planted faults."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from cardiomegaly.data import exploration
from cardiomegaly.data.images import Pixels, read_image


@pytest.fixture(scope="module")
def images(phantom_root: Path) -> list[Pixels]:
    return [read_image(path) for path in sorted((phantom_root / "images").iterdir())[:40]]


def rows() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image": list("abcdef"),
            "patient_id": [1, 1, 2, 3, 3, 3],
            "target": [1, 0, 1, 0, 0, 0],
            "sex": ["M", "M", "F", None, "F", "F"],
            "age": [19.0, 20.0, 80.0, np.nan, 100.0, 59.0],
            "findings": ["Cardiomegaly|Mass", "Mass", "Cardiomegaly", "No Finding", "Mass", ""],
        }
    )


def test_prevalence_by_group_and_what_is_unknown() -> None:
    table = exploration.prevalence(rows())
    counts = {
        (group, value): (images, patients, positive)
        for group, value, images, patients, positive, _ in table.itertuples(index=False)
    }
    assert counts["all", "all"] == (6, 3, 2)
    assert counts["sex", "M"] == (2, 1, 1)
    assert counts["sex", "unknown"] == (1, 1, 0)
    assert counts["age", "0 to 19"] == (1, 1, 1)
    assert counts["age", "20 to 39"] == (1, 1, 0)
    assert counts["age", "80 or more"] == (2, 2, 1)
    assert counts["age", "unknown"] == (1, 1, 0)
    assert not table["group"].isin(["view", "follow-up", "year"]).any()
    assert "2015" in exploration.prevalence(rows().assign(year=2015))["value"].astype(str).tolist()
    for _, group in table.groupby("group"):
        assert group["images"].sum() == 6
    np.testing.assert_allclose(table["prevalence"], table["positive"] / table["images"])


def test_without_patients_none_are_counted() -> None:
    table = exploration.prevalence(rows().drop(columns="patient_id"))
    assert list(table) == ["group", "value", "images", "positive", "prevalence"]


def test_findings_that_stand_together() -> None:
    table = exploration.co_occurrence(rows()).set_index("finding")
    assert list(table.index) == ["Mass", "Cardiomegaly", "No Finding"]
    assert table.loc["Mass", "images"] == 3
    assert table.loc["Mass", "among_positive"] == 1 / 2
    assert table.loc["Mass", "among_negative"] == 2 / 4
    assert table.loc["Mass", "ratio"] == 1
    assert np.isnan(table.loc["Cardiomegaly", "ratio"])


def test_images_a_patient() -> None:
    table = exploration.images_a_patient(rows())
    assert table["images"].tolist() == ["1", "2", "3 to 4"]
    assert table["patients"].tolist() == [1, 1, 1]
    assert table["share"].tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    assert table["mixed"].tolist() == [0, 1, 0]


def test_missing_values() -> None:
    missing = exploration.missing_values(rows()).set_index("column")["missing"]
    assert missing.to_dict() == {
        "image": 0, "patient_id": 0, "target": 0, "sex": 1, "age": 1, "findings": 1
    }  # fmt: skip


def test_an_oversampled_epoch_is_about_half_positive() -> None:
    train = pd.DataFrame({"target": [1] * 100 + [0] * 900})
    table = exploration.balance({"train": train}, seed=0)
    assert table["prevalence"].iloc[0] == 0.1
    # 1,000 draws: 5 standard errors of a half
    assert table["prevalence"].iloc[1] == pytest.approx(0.5, abs=0.08)


def test_measures_and_what_cannot_be_read(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((100, 200), 70, np.uint8))
    (tmp_path / "broken.png").write_bytes(b"text")
    paths = [str(tmp_path / name) for name in ("grey.png", "broken.png")]
    table, thumbnails = exploration.measure_images(paths, progress=False)
    assert table.iloc[0].tolist() == [200, 100, 70, 0, ""]
    assert table["wrong"][1] == f"{paths[1]} is not a PNG, JPEG or DICOM file"
    assert thumbnails[0].min() == thumbnails[0].max() == 70
    assert not thumbnails[1].any()


def test_outliers_are_those_that_were_planted() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(100, 5, (500, 4)), columns=list(exploration.MEASURES))
    table["width"] = 256
    table.loc[7, "brightness"], table.loc[9, "contrast"] = 250, 20
    found = exploration.outliers(table)
    pairs = list(zip(found["place"], found["measure"], strict=True))
    assert pairs[:2] == [(7, "brightness"), (9, "contrast")]
    assert len(pairs) < 5  # 0.05% of normal values lie so far
    assert found["deviations"].iloc[0] == pytest.approx(30, rel=0.2)
    assert found["deviations"].iloc[1] < 0


def test_copies_are_near_and_other_patients_are_not(images: list[Pixels]) -> None:
    def saved(image: Pixels) -> Pixels:
        coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
        return cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)

    copies = [saved(images[3]), np.clip(images[5] * 1.2 + 8, 0, 255).astype(np.uint8), images[8]]
    thumbnails = np.stack([cv2.resize(image, (64, 64)) for image in [*images, *copies]])
    group = np.arange(len(thumbnails))
    group[-1] = 8  # the same patient: no leak
    found = exploration.near_duplicates(thumbnails, group)
    pairs = set(zip(found["first"], found["second"], strict=True))
    assert {(3, 40), (5, 41)} <= pairs
    assert (8, 42) not in pairs
    assert found["bits"].is_monotonic_increasing
    group[40] = -1  # cannot be read
    assert 40 not in exploration.near_duplicates(thumbnails, group)[["first", "second"]].to_numpy()


def test_hashes_of_many_images_are_those_of_each(images: list[Pixels]) -> None:
    thumbnails = np.stack([cv2.resize(image, (64, 64)) for image in images])
    whole = exploration.perceptual_hash(np.tile(thumbnails, (30, 1, 1)))
    each = np.concatenate([exploration.perceptual_hash(image[None]) for image in thumbnails])
    np.testing.assert_array_equal(whole, np.tile(each, (30, 1)))


def test_real_patients_do_not_look_alike(nih_sample: Path) -> None:
    paths = sorted(str(path) for path in nih_sample.rglob("images/**/*.png"))[:400]
    _, thumbnails = exploration.measure_images(paths, progress=False)
    patients = np.unique([Path(path).name[:8] for path in paths], return_inverse=True)[1]
    assert exploration.near_duplicates(thumbnails, patients).empty
