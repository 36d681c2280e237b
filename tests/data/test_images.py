"""Images decoded once: what comes in, what is kept, what happens to broken files."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cardiomegaly import UserError
from cardiomegaly.data import images as cache, store as row_store

SIZE = 16


def picture(size: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)


def table(folder: Path) -> pd.DataFrame:
    paths = sorted(folder.glob("*.*"))
    stats = [path.stat() for path in paths]
    return pd.DataFrame(
        {
            "path": [str(path) for path in paths],
            "bytes": [stat.st_size for stat in stats],
            "mtime_ns": [stat.st_mtime_ns for stat in stats],
            "row": range(len(paths)),
        }
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(5):
        Image.fromarray(picture(seed=number)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("name", ["grey.png", "grey.jpg"])
def test_grey_is_resized_by_area(tmp_path: Path, name: str) -> None:
    Image.fromarray(picture()).save(tmp_path / name, quality=100)
    with Image.open(tmp_path / name) as stored:
        pixels = np.asarray(stored)
    expected = cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    decoded = cache.decode_image(tmp_path / name, SIZE)
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
            cache.decode_image(path, SIZE).astype(int), grey.astype(int), atol=1, err_msg=path.name
        )


def test_unreadable_files(images: Path) -> None:
    good = (images / "0.png").read_bytes()
    for content, message in [
        (good[: len(good) // 2], "is truncated"),
        (b"", "is not a PNG or JPEG"),
        (b"GIF89a" + good, "is not a PNG or JPEG"),
        (good[:60] + bytes(200) + good[260:], "is damaged"),
    ]:
        (images / "bad.png").write_bytes(content)
        with pytest.raises(UserError, match=message):
            cache.decode_image(images / "bad.png", SIZE)


def test_broken_images_are_marked_and_the_rest_is_there(images: Path, tmp_path: Path) -> None:
    good = (images / "2.png").read_bytes()
    (images / "2.png").write_bytes(good[:-40])
    rows = table(images)
    stored = cache.open_cache(rows, images, tmp_path / "cache", SIZE)
    state = cache.fill_cache(stored, rows, progress=False)
    assert state.tolist() == [cache.READY] * 2 + [cache.UNREADABLE] + [cache.READY] * 2
    for row in (0, 1, 3, 4):
        expected = cache.decode_image(rows["path"][row], SIZE)
        assert (stored.rows()[row] == expected).all()


def test_decoded_once_and_only_what_is_asked(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = table(images)
    stored = cache.open_cache(rows, images, tmp_path / "cache", SIZE)
    decoded: list[str] = []
    real = cache.decode_image

    def counting(path: str | Path, size: int) -> np.ndarray:
        decoded.append(Path(path).name)
        return real(path, size)

    monkeypatch.setattr(cache, "decode_image", counting)
    cache.fill_cache(stored, rows.iloc[:2], progress=False)
    assert stored.state().tolist() == [cache.READY] * 2 + [cache.ABSENT] * 3
    again = cache.open_cache(table(images), images, tmp_path / "cache", SIZE)
    cache.fill_cache(again, rows, progress=False)
    assert sorted(decoded) == [f"{number}.png" for number in range(5)]


def test_interrupted_build_goes_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = table(images)
    stored = cache.open_cache(rows, images, tmp_path / "cache", SIZE)
    monkeypatch.setattr(cache, "CHUNK", 2)
    real = cache.decode_image

    def stopping(path: str | Path, size: int) -> np.ndarray:
        if Path(path).name == "3.png":
            raise KeyboardInterrupt
        return real(path, size)

    monkeypatch.setattr(cache, "decode_image", stopping)
    with pytest.raises(KeyboardInterrupt):
        cache.fill_cache(stored, rows, workers=1, progress=False)
    assert stored.state().tolist() == [cache.READY] * 2 + [cache.ABSENT] * 3
    monkeypatch.setattr(cache, "decode_image", real)
    assert (cache.fill_cache(stored, rows, progress=False) == cache.READY).all()


def test_changed_data_make_a_new_cache(images: Path, tmp_path: Path) -> None:
    first = cache.open_cache(table(images), images, tmp_path / "cache", SIZE)
    other_size = cache.open_cache(table(images), images, tmp_path / "cache", SIZE + 1)
    assert cache.open_cache(table(images), images, tmp_path / "cache", SIZE) == first
    Image.fromarray(picture(seed=9)).save(images / "0.png")
    os.utime(images / "0.png", ns=(1, 1))
    second = cache.open_cache(table(images), images, tmp_path / "cache", SIZE)
    assert second.folder != first.folder
    assert not first.folder.exists()  # outdated
    assert other_size.folder.exists()  # not of this size: left alone


def test_full_disk_is_announced(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = table(images)
    stored = cache.open_cache(rows, images, tmp_path / "cache", SIZE)
    usage = row_store.shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(row_store.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"data\.cache: .* needs .* GB for 5 images"):
        cache.fill_cache(stored, rows, progress=False)
