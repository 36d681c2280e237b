"""Archives and tables as NIH publishes them, of a few images."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from cardiomegaly.data import nih_archives, nih_tables
from cardiomegaly.data.nih_archives import Archive

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
)
ROW = "{},No Finding,0,1,58,M,PA,2682,2749,0.143,0.143,\n"
IMAGES = [f"{patient:08}_{number:03}" for patient in (1, 2, 3) for number in range(4)]


def image(name: str) -> bytes:
    """A PNG of 1024 x 1024, another for each name."""
    pixels = np.full((1024, 1024), int(name[:8]) * 10 + int(name[9:]), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def packed(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar.gz of these members, the same whenever it is made."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(file.getvalue(), mtime=0)


def small_nih(filling: int = 0) -> tuple[list[Archive], dict[str, bytes]]:
    """Three archives of four images, and all files by their name on the server.

    Args:
        filling: bytes of noise beside the images of each archive.
    """
    archives, files = [], {}
    rng = np.random.default_rng(0)
    for number in (1, 2, 3):
        names = [name for name in IMAGES if int(name[:8]) == number]
        members = [(tarfile.TarInfo(f"images/{name}.png"), image(name)) for name in names]
        noise = (tarfile.TarInfo("noise.bin"), rng.bytes(filling))
        content = packed([(tarfile.TarInfo("images"), b""), noise, *members])
        box_name = f"box{number}"
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        archives.append(Archive(number, names[0], 4, box_name, len(content), md5))
        files[f"{box_name}.gz"] = content
    files["Data_Entry_2017_v2020.csv"] = (
        HEADER + "".join(ROW.format(f"{name}.png") for name in IMAGES)
    ).encode()
    boxes = "".join(f"{name}.png,Mass,1.5,2,30,40,,,\n" for name in IMAGES[:2])
    files["BBox_List_2017.csv"] = f"Image Index,Finding Label,Bbox [x,y,w,h],,,\n{boxes}".encode()
    lists = {"train_val_list.txt": IMAGES[:9], "test_list.txt": IMAGES[9:]}
    for name, images in lists.items():
        files[name] = "\n".join(f"{image}.png" for image in images).encode()
    return archives, files


def pretend(archives: list[Archive], set_attribute: pytest.MonkeyPatch | None = None) -> None:
    """Let the published archives and tables be the small ones, until the test ends or for good."""
    counts = {"Data": 12, "BBox": 2, "trai": 9, "test": 3}
    tables = {name: (*rest, counts[name[:4]]) for name, (*rest, _) in nih_tables.TABLES.items()}
    change = setattr if set_attribute is None else set_attribute.setattr
    change(nih_archives, "ARCHIVES", archives)
    change(nih_tables, "TABLES", tables)
    change(nih_archives, "PAUSES", (0.0,))


def unpacked(target: Path) -> list[str]:
    """The images below a folder; each must be whole."""
    paths = sorted(target.rglob("*.png"))
    for path in paths:
        assert path.read_bytes() == image(path.stem)
    return [path.stem for path in paths]
