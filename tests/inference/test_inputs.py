"""Files as the world has them: each is a row, none stops the others, and the order is kept."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cardiomegaly import UserError
from cardiomegaly.inference.inputs import InputFiles, list_files, load_batches

SHAPE = (32, "stretch")


def chest(phantom_root: Path) -> np.ndarray:
    path = sorted((phantom_root / "images").iterdir())[0]
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is that large and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(b"\0"))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + rows + chunk(b"IEND", b"")


def write_world(folder: Path, pixels: np.ndarray) -> dict[str, str]:
    """Write files of all sorts; what is said of each, nothing of those that can be read."""
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / "a8.png"), pixels)
    cv2.imwrite(str(folder / "b16.png"), pixels.astype(np.uint16) * 257)
    Image.fromarray(pixels).convert("RGB").convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    whole = (folder / "a8.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "huge.png").write_bytes(png_header(60_000, 60_000))
    (folder / "small.png").write_bytes(png_header(8, 8))
    (folder / "text.png").write_text("hello")
    (folder / "zero.png").write_bytes(b"")
    return {
        "a8.png": "", "b16.png": "", "cmyk.jpg": "", "cut.png": "is truncated",
        "huge.png": "has more than 80,000,000 pixels", "small.png": "is 8 x 8 pixels",
        "text.png": "is not a PNG, JPEG or DICOM file",
        "zero.png": "is not a PNG, JPEG or DICOM file",
    }  # fmt: skip


@pytest.mark.parametrize("workers", [0, 1])
def test_every_file_is_a_row_in_order(phantom_root: Path, tmp_path: Path, workers: int) -> None:
    said = write_world(tmp_path, chest(phantom_root))
    files = list(list_files([str(tmp_path)]))
    batches = list(load_batches(files, [SHAPE], 3, workers))
    assert [len(batch) for batch in batches] == [3, 3, 2]
    loaded = {Path(image.name).name: image for batch in batches for image in batch}
    assert list(loaded) == sorted(said)
    for name, reason in said.items():
        assert reason in loaded[name].reason and bool(reason) == bool(loaded[name].reason)
        assert set(loaded[name].pixels) == (set() if reason else {SHAPE})
    plain = loaded["a8.png"].pixels[SHAPE].astype(int)
    assert np.abs(plain - loaded["b16.png"].pixels[SHAPE]).max() <= 1
    assert np.abs(plain - loaded["cmyk.jpg"].pixels[SHAPE]).mean() < 4


def test_files_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.PNG", "a/1.jpg", "notes.txt", "table.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "a" / "named_by_nobody").write_bytes(b"\x89PNG")

    def names(*given: str) -> list[str]:
        found = list_files([str(tmp_path / word) for word in given])
        return [str(Path(path).relative_to(tmp_path)) for path in found]

    assert names("") == ["a/1.jpg", "a/named_by_nobody", "b/10.PNG", "b/2.png"]
    assert names("b/*.png", "notes.txt") == ["b/2.png", "notes.txt"]
    assert names("**/*.jpg") == ["a/1.jpg"]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"input: .*absent is no file, no folder, and no file fits"):
        InputFiles([str(tmp_path / "absent")])
    with pytest.raises(UserError, match="holds no PNG, JPEG or DICOM file"):
        InputFiles([str(tmp_path)])
