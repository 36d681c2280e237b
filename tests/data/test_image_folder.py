"""The walk over a folder: which file a name means, what is no file, and the pixels of many."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardiomegaly import UserError
from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.data.images import decode_image

SIZE = 16


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 40), dtype=np.uint8)


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")


def found(root: Path, image: str) -> str | None:
    file = ImageFolder(root).find(image)
    return file and os.path.relpath(file.path, root)


def test_images_lie_anywhere_below(tmp_path: Path) -> None:
    touch(tmp_path / "images_001" / "images", "a.png", "notes.txt")
    touch(tmp_path / "deep" / "er", "b.PNG", "c.jpeg")
    assert found(tmp_path, "a.png") == "images_001/images/a.png"
    assert found(tmp_path, "b.png") == "deep/er/b.PNG"  # whatever the suffix
    assert found(tmp_path, "c.png") == "deep/er/c.jpeg"
    assert found(tmp_path, "notes.txt") is None
    with pytest.raises(UserError, match=r"images: the folder .* does not exist"):
        ImageFolder(tmp_path / "none")


def test_of_several_files_the_official_and_the_exact_come_first(tmp_path: Path) -> None:
    touch(tmp_path / "originals", "a.png", "b.png", "b.jpg")
    touch(tmp_path / "images", "a.jpg")
    assert found(tmp_path, "a.png") == "images/a.jpg"
    assert found(tmp_path, "b.jpg") == "originals/b.jpg"
    assert found(tmp_path, "b.png") == "originals/b.png"


def test_two_files_of_one_name_matter_only_when_asked_for(tmp_path: Path) -> None:
    touch(tmp_path / "plots1", "roc.png")
    touch(tmp_path / "plots2", "roc.png")
    touch(tmp_path / "pictures", "a.png")
    folder = ImageFolder(tmp_path)
    assert folder.find("a.png") is not None
    assert folder.has("roc.png")
    with pytest.raises(UserError, match=r"roc\.png lies more than once .*plots1.*plots2"):
        folder.find("roc.png")


def test_what_is_no_file_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path / "images", "a.png", "b.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "images" / "up").symlink_to(tmp_path)  # a folder in itself
    (tmp_path / "link.png").symlink_to(tmp_path / "images" / "b.png")
    folder = ImageFolder(tmp_path)
    assert sorted(folder.files) == ["a", "b", "link"]
    assert len(folder.files["a"]) == 1
    assert "3 entries below" in caplog.text
    for name in ("dangling.png", "loop.png", "pipe.png"):
        assert name in caplog.text


def test_names_that_are_no_text(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    with open(os.fsencode(tmp_path) + b"/\xff.png", "wb"):  # noqa: PTH123
        pass
    files = ImageFolder(tmp_path).files
    assert len({file.key for found in files.values() for file in found}) == 2


def test_pixels_of_many_images(tmp_path: Path) -> None:
    for number in range(5):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
    folder = ImageFolder(tmp_path)
    pixels = folder.pixels(["3.png", "0.png", "3.png"], SIZE)
    for number, row in zip((3, 0, 3), pixels, strict=True):
        np.testing.assert_array_equal(
            row, decode_image(tmp_path / f"{number}.png", SIZE, "stretch")
        )
    batches = list(folder.batches([f"{number % 5}.png" for number in range(70)], SIZE))
    assert [batch.shape for batch in batches] == [(n, 1, SIZE, SIZE) for n in (32, 32, 6)]
    with pytest.raises(UserError, match=r"2 of 3 images are not below .*, 8\.png for one"):
        folder.pixels(["3.png", "8.png", "9.png"], SIZE)
    (tmp_path / "bad.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"bad\.png is not a PNG, JPEG"):
        ImageFolder(tmp_path).pixels(["bad.png"], SIZE)


def test_a_name_with_folders_is_the_end_of_a_path(tmp_path: Path) -> None:
    for patient in ("patient1", "patient2"):
        touch(tmp_path / "valid" / patient / "study1", "view1_frontal.jpg")
    folder = ImageFolder(tmp_path)
    file = folder.find("patient2/study1/view1_frontal.jpg")
    assert file is not None
    assert file.path.endswith("valid/patient2/study1/view1_frontal.jpg")
    assert folder.find("patient3/study1/view1_frontal.jpg") is None
    assert not folder.has("train/patient2/study1/view1_frontal.jpg")
    with pytest.raises(UserError, match="view1_frontal.jpg lies more than once"):
        folder.find("view1_frontal.jpg")


def test_a_file_without_suffix_is_told_by_its_first_bytes(tmp_path: Path) -> None:
    (tmp_path / "1.2.840.10008.77").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "1.2.840.10008.78").write_bytes(bytes(128) + b"DICM")
    touch(tmp_path, "README", "a.dicom")
    folder = ImageFolder(tmp_path)
    assert sorted(folder.files) == ["1.2.840.10008.77", "1.2.840.10008.78", "a"]
    assert folder.has("1.2.840.10008.78")
    assert not folder.has("1.2.840.10008.79")
