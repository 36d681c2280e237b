"""A folder is compared with its label table, image by image."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from cardiomegaly import UserError
from cardiomegaly.data.verify import verify
from tests.small_nih import IMAGES, image, small_nih


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """All the images of a small table, in two folders."""
    _, files = small_nih()
    (tmp_path / "Data_Entry_2017_v2020.csv").write_bytes(files["Data_Entry_2017_v2020.csv"])
    for index, name in enumerate(IMAGES):
        path = tmp_path / f"images_{index % 2}" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(image(name))
    yield tmp_path
    shutil.rmtree(tmp_path)


NO_PROBLEM: dict[str, list[str]] = {"missing": [], "unreadable": [], "not 1024 x 1024": []}


def test_a_whole_folder_has_no_problem(folder: Path) -> None:
    (folder / "of another data set.png").write_bytes(b"nothing")
    assert verify(folder) == (12, NO_PROBLEM)


def test_missing_images_are_named(folder: Path) -> None:
    for name in (IMAGES[7], IMAGES[2]):
        next(folder.rglob(f"{name}.png")).unlink()
    assert verify(folder) == (12, NO_PROBLEM | {"missing": [IMAGES[2], IMAGES[7]]})


def _flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


CUTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "header": lambda content: content[:30],
    "half": lambda content: content[: len(content) // 2],
    "without end marker": lambda content: content[:-12],
    "a byte short": lambda content: content[:-1],
    "a page": lambda content: b"<!DOCTYPE html>",
}


@pytest.mark.parametrize("damage", [*CUTS.values(), _flip], ids=[*CUTS, "a bit flipped"])
def test_a_damaged_png_is_named(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    path = next(folder.rglob(f"{IMAGES[5]}.png"))
    path.write_bytes(damage(path.read_bytes()))
    assert verify(folder) == (12, NO_PROBLEM | {"unreadable": [str(path)]})


@pytest.mark.parametrize("damage", CUTS.values(), ids=CUTS)
def test_a_damaged_jpeg_is_named(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    png = next(folder.rglob(f"{IMAGES[5]}.png"))
    png.unlink()
    path = png.with_suffix(".jpg")
    noise = np.random.default_rng(0).integers(0, 255, (1024, 1024), np.uint8)
    path.write_bytes(cv2.imencode(".jpg", noise)[1].tobytes())
    assert verify(folder) == (12, NO_PROBLEM)
    path.write_bytes(damage(path.read_bytes()))
    assert verify(folder) == (12, NO_PROBLEM | {"unreadable": [str(path)]})


def test_images_of_another_size_are_named(folder: Path) -> None:
    path = next(folder.rglob(f"{IMAGES[0]}.png"))
    path.write_bytes(cv2.imencode(".png", np.zeros((1024, 1023), np.uint8))[1].tobytes())
    assert verify(folder) == (12, NO_PROBLEM | {"not 1024 x 1024": [str(path)]})


def test_a_folder_without_label_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no Data_Entry_2017\*\.csv"):
        verify(tmp_path)


def test_the_originals_are_whole(nih_sample: Path, tmp_path: Path) -> None:
    (tmp_path / "images").symlink_to(nih_sample / "originals")
    shutil.copy(nih_sample / "Data_Entry_2017_v2020.csv", tmp_path)
    listed, problems = verify(tmp_path)
    assert listed == 112_120
    assert len(problems.pop("missing")) == 112_120 - 40
    assert not any(problems.values())
