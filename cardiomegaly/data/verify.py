"""Looks whether the images of a label table are all there and whole."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from cardiomegaly.config import read_data
from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.data.labels import find_label_file
from cardiomegaly.data.tables import read_labels

SIZE = (1024, 1024)  # width and height of NIH's images
PNG_END = b"IEND\xaeB`\x82"
TAIL = 1024  # bytes in which the end must stand: some writers append a few


def verify(folder: Path) -> tuple[int, dict[str, list[str]]]:
    """Compare a folder with the label table in it; reads every image, a PNG's checksums included.

    Returns:
        How many images the table lists, and those with a problem: names by "missing", paths by
        "unreadable" and "not 1024 x 1024".

    Raises:
        UserError: no folder, no label table, or one that cannot be read.
    """
    data = read_data("nih", {"root": str(folder)})
    table = read_labels(find_label_file(data), data)["image"]
    listed = table.str.replace(r"\.[^.]*$", "", regex=True)
    images = ImageFolder(folder)
    there = {name: images.find(name) for name in listed}
    paths = [file.path for file in there.values() if file is not None]
    with ThreadPoolExecutor() as pool:
        sizes = list(tqdm(pool.map(_size, paths), "images", len(paths), disable=None))
    problems = {
        "missing": sorted(name for name, file in there.items() if file is None),
        "unreadable": [path for path, size in zip(paths, sizes, strict=True) if size is None],
        "not 1024 x 1024": [
            path for path, size in zip(paths, sizes, strict=True) if size not in (None, SIZE)
        ],
    }
    return len(listed), problems


def _size(path: str) -> tuple[int, int] | None:
    """Width and height; None if the image cannot be read to its end."""
    try:
        data = Path(path).read_bytes()
        with Image.open(BytesIO(data)) as image:
            size = image.size
            if image.format != "PNG":
                image.load()
                return size
            image.verify()
            return size if PNG_END in data[-TAIL:] else None
    except Exception:  # whatever Pillow raises, and it raises a dozen kinds
        return None
