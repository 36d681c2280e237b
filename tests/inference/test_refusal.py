"""Unfit images are refused with their reason, in a run and in what is exported from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import cardiomegaly
from cardiomegaly.data.phantom.cohort import generate_phantom
from cardiomegaly.inference.detector import Detector
from cardiomegaly.inference.inputs import is_coloured

Images = list[np.ndarray]


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Chests of patients that no model was trained on."""
    root = tmp_path_factory.mktemp("unseen") / "phantom"
    generate_phantom(root, images=24, size=96, seed=77)
    files = sorted((root / "images").iterdir())
    return [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files]


@pytest.fixture(scope="module")
def detector(trained_run: Path) -> Detector:
    return cardiomegaly.load(trained_run)


def changed(images: Images, change: Callable[[np.ndarray], np.ndarray]) -> Images:
    return [np.ascontiguousarray(change(image)) for image in images]


def test_chests_are_not_refused(detector: Detector, unseen: Images) -> None:
    assert detector.predict(unseen)["refused"].mean() <= 0.1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda image: 255 - image, "inverted"),
        (lambda image: np.rot90(image, 2), "rotated by 180 degrees"),
        (lambda image: np.rot90(image), "rotated by 90 degrees"),
        (lambda image: np.full_like(image, 7), "blank"),
        (lambda image: image[:12, :12], r"far too small (12 x 12 pixels)"),
    ],
)
def test_what_is_unfit_is_named(
    detector: Detector, unseen: Images, change: Callable, reason: str
) -> None:
    table = detector.predict(changed(unseen, change))
    assert table["refused"].mean() >= 0.9 and table["probability"].isna().mean() >= 0.9
    assert (table["reason"] == reason).mean() >= 0.75
    assert set(table["decision"][table["refused"]]) == {""}


def test_noise_is_no_chest(detector: Detector) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (96, 96)).astype(np.uint8) for _ in range(8)]
    assert detector.predict(noise)["refused"].all()


def test_an_exported_model_refuses_alike(
    detector: Detector, onnx_file: Path, unseen: Images
) -> None:
    images = unseen[:6] + changed(unseen[:6], np.rot90)
    own, theirs = (one.predict(images) for one in (detector, cardiomegaly.load(onnx_file)))
    assert own["reason"].tolist() == theirs["reason"].tolist()


def test_refusing_is_not_forced(trained_run: Path, detector: Detector, unseen: Images) -> None:
    inverted = changed(unseen[:4], lambda image: 255 - image)
    table = cardiomegaly.load(trained_run, refuse=False).predict(inverted)
    assert not table["refused"].any() and table["probability"].notna().all()
    assert table["reason"].str.startswith("warning: ").all()


@pytest.mark.parametrize("kind", ["photo.png", "photo.jpg"])
def test_a_colour_photograph_is_refused(
    detector: Detector, unseen: Images, tmp_path: Path, kind: str
) -> None:
    tinted = np.stack([unseen[0], unseen[0] // 2, 255 - unseen[0]], axis=2)
    Image.fromarray(tinted).save(tmp_path / kind)
    (row,) = detector.predict(tmp_path / kind).itertuples()
    assert row.refused and row.reason == "a colour photograph"


def test_grey_stored_as_colours_is_no_photograph(unseen: Images, tmp_path: Path) -> None:
    for mode, name in (("RGB", "a.png"), ("P", "b.png"), ("RGB", "c.jpg"), ("CMYK", "d.jpg")):
        Image.fromarray(unseen[0]).convert("RGB").convert(mode).save(tmp_path / name)
        assert not is_coloured(str(tmp_path / name))
