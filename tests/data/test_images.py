"""Image files: which one a name means, what is no file, and what decoding gives."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cardiomegaly import UserError
from cardiomegaly.data import images
from cardiomegaly.data.images import decode_image, decode_images, fit_image, read_image

SIZE = 16


def picture(size: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)


@pytest.mark.parametrize("name", ["grey.png", "grey.jpg"])
def test_grey_is_resized_by_area(tmp_path: Path, name: str) -> None:
    Image.fromarray(picture()).save(tmp_path / name, quality=100)
    with Image.open(tmp_path / name) as stored:
        pixels = np.asarray(stored)
    expected = cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    decoded = decode_image(tmp_path / name, SIZE, "stretch")
    assert decoded.dtype == np.uint8
    np.testing.assert_allclose(decoded.astype(int), expected.astype(int), atol=2)


def test_deep_images_keep_the_bits_in_use(tmp_path: Path) -> None:
    grey = picture(SIZE)
    grey[0, 0] = 255
    for bits in (8, 12, 14, 16):
        Image.fromarray(grey.astype(np.uint16) << (bits - 8)).save(tmp_path / f"{bits}.png")
        np.testing.assert_array_equal(read_image(tmp_path / f"{bits}.png"), grey)


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
            decode_image(path, SIZE, "stretch").astype(int),
            grey.astype(int),
            atol=1,
            err_msg=path.name,
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
        (b"", "is not a PNG, JPEG"),
        (b"GIF89a" + GOOD, "is not a PNG, JPEG"),
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
        decode_image(tmp_path / "bad.png", SIZE, "stretch")


def test_the_largest_radiographs_are_read(tmp_path: Path) -> None:
    (tmp_path / "film.jpg").write_bytes(encoded(8600, 7000, ".jpg"))
    assert decode_image(tmp_path / "film.jpg", SIZE, "stretch").shape == (SIZE, SIZE)


def test_many_are_decoded_in_order_and_mistakes_stay_in_place(tmp_path: Path) -> None:
    for number in range(20):
        Image.fromarray(picture(seed=number)).save(tmp_path / f"{number:02d}.png")
    (tmp_path / "07.png").write_bytes(b"x")
    (tmp_path / "11.png").unlink()
    threads = cv2.getNumThreads()
    paths = [str(tmp_path / f"{number:02d}.png") for number in range(20)]
    decoded = list(decode_images(paths, SIZE, "stretch", workers=3))
    assert cv2.getNumThreads() == threads
    assert isinstance(decoded[7], UserError)
    assert isinstance(decoded[11], FileNotFoundError)
    for number in set(range(20)) - {7, 11}:
        np.testing.assert_array_equal(decoded[number], decode_image(paths[number], SIZE, "stretch"))


def test_long_lists_are_named_in_part() -> None:
    names = [f"{number}.png" for number in range(8)]
    assert images.name_some(names) == "0.png, 1.png, 2.png, 3.png, 4.png and 3 more"
    assert images.name_some(names[:5]) == "0.png, 1.png, 2.png, 3.png, 4.png"


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (33, 32), (9, 8)])
def test_fits_of_an_image_that_is_not_square(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(1, 256, shape, dtype=np.uint8)
    height, width = shape
    stretched = fit_image(image, SIZE, "stretch")
    method = cv2.INTER_AREA if min(shape) > SIZE else cv2.INTER_LINEAR
    np.testing.assert_array_equal(stretched, cv2.resize(image, (SIZE, SIZE), interpolation=method))
    side = min(shape)
    top, left = (height - side) // 2, (width - side) // 2
    middle = np.ascontiguousarray(image[top : top + side, left : left + side])
    np.testing.assert_array_equal(fit_image(image, SIZE, "crop"), fit_image(middle, SIZE, "pad"))
    padded = fit_image(image, SIZE, "pad")
    long, short = max(shape), min(shape)
    kept = (padded > 0).sum()
    assert kept == SIZE * round(short * SIZE / long)  # the aspect stays, the rest is black


def test_a_square_image_comes_out_alike_by_every_fit() -> None:
    fits = [fit_image(picture(), SIZE, fit) for fit in ("stretch", "pad", "crop")]
    np.testing.assert_array_equal(fits[0], fits[1])
    np.testing.assert_array_equal(fits[0], fits[2])
