"""Image files: which one a name means, what is no file, and what decoding gives."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cardiomegaly import UserError
from cardiomegaly.data import images
from cardiomegaly.data.images import ImageFolder, decode_image, decode_images

SIZE = 16


def picture(size: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)


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
        Image.fromarray(picture(seed=number)).save(tmp_path / f"{number}.png")
    folder = ImageFolder(tmp_path)
    pixels = folder.pixels(["3.png", "0.png", "3.png"], SIZE)
    for number, row in zip((3, 0, 3), pixels, strict=True):
        np.testing.assert_array_equal(row, decode_image(tmp_path / f"{number}.png", SIZE))
    batches = list(folder.batches([f"{number % 5}.png" for number in range(70)], SIZE))
    assert [batch.shape for batch in batches] == [(n, 1, SIZE, SIZE) for n in (32, 32, 6)]
    with pytest.raises(UserError, match=r"2 of 3 images are not below .*, 8\.png for one"):
        folder.pixels(["3.png", "8.png", "9.png"], SIZE)
    (tmp_path / "bad.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"bad\.png is not a PNG or JPEG"):
        ImageFolder(tmp_path).pixels(["bad.png"], SIZE)


@pytest.mark.parametrize("name", ["grey.png", "grey.jpg"])
def test_grey_is_resized_by_area(tmp_path: Path, name: str) -> None:
    Image.fromarray(picture()).save(tmp_path / name, quality=100)
    with Image.open(tmp_path / name) as stored:
        pixels = np.asarray(stored)
    expected = cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    decoded = decode_image(tmp_path / name, SIZE)
    assert decoded.dtype == np.uint8
    np.testing.assert_allclose(decoded.astype(int), expected.astype(int), atol=2)


def test_16_bit_rgb_rgba_and_palette(tmp_path: Path) -> None:
    grey = picture(SIZE)
    Image.fromarray(grey.astype(np.uint16) * 256).save(tmp_path / "16bit.png")
    Image.fromarray(np.stack([grey] * 3, axis=2)).save(tmp_path / "rgb.png")
    Image.fromarray(np.stack([grey] * 3 + [255 - grey], axis=2)).save(tmp_path / "rgba.png")
    palette = Image.fromarray(grey).convert("P")
    palette.putpalette([value for level in range(256) for value in (level,) * 3])
    palette.save(tmp_path / "palette.png")
    for path in tmp_path.iterdir():
        np.testing.assert_allclose(
            decode_image(path, SIZE).astype(int), grey.astype(int), atol=1, err_msg=path.name
        )


def encoded(width: int, height: int, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, np.zeros((height, width), np.uint8))[1].tobytes()


def claimed(width: int, height: int) -> bytes:
    """A small PNG whose header speaks of another size."""
    header = b"IHDR" + struct.pack(">II", width, height) + GOOD[24:29]
    return GOOD[:12] + header + struct.pack(">I", zlib.crc32(header)) + GOOD[33:]


GOOD = cv2.imencode(".png", picture())[1].tobytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD[: len(GOOD) // 2], "is truncated"),
        (b"", "is not a PNG or JPEG"),
        (b"GIF89a" + GOOD, "is not a PNG or JPEG"),
        (GOOD[:60] + bytes(200) + GOOD[260:], "is damaged"),
        (GOOD[:8] + bytes(30) + GOOD[38:], "is damaged"),
        (claimed(41, 41), "is damaged"),
        (encoded(1, 1), "is 1 x 1 pixels; 16 x 16 are needed"),
        (encoded(400, 15, ".jpg"), "is 400 x 15 pixels; 16 x 16 are needed"),
        (claimed(30_000, 30_000), "has more than 80,000,000 pixels"),
        (claimed(10_000, 9_000), "has more than 80,000,000 pixels"),
    ],
)
def test_unreadable_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(UserError, match=rf"bad\.png {message}"):
        decode_image(tmp_path / "bad.png", SIZE)


def test_the_largest_radiographs_are_read(tmp_path: Path) -> None:
    (tmp_path / "film.jpg").write_bytes(encoded(8600, 7000, ".jpg"))
    assert decode_image(tmp_path / "film.jpg", SIZE).shape == (SIZE, SIZE)


def test_many_are_decoded_in_order_and_mistakes_stay_in_place(tmp_path: Path) -> None:
    for number in range(20):
        Image.fromarray(picture(seed=number)).save(tmp_path / f"{number:02d}.png")
    (tmp_path / "07.png").write_bytes(b"x")
    (tmp_path / "11.png").unlink()
    threads = cv2.getNumThreads()
    paths = [str(tmp_path / f"{number:02d}.png") for number in range(20)]
    decoded = list(decode_images(paths, SIZE, workers=3))
    assert cv2.getNumThreads() == threads
    assert isinstance(decoded[7], UserError)
    assert isinstance(decoded[11], FileNotFoundError)
    for number in set(range(20)) - {7, 11}:
        np.testing.assert_array_equal(decoded[number], decode_image(paths[number], SIZE))


def test_long_lists_are_named_in_part() -> None:
    names = [f"{number}.png" for number in range(8)]
    assert images.name_some(names) == "0.png, 1.png, 2.png, 3.png, 4.png and 3 more"
    assert images.name_some(names[:5]) == "0.png, 1.png, 2.png, 3.png, 4.png"
