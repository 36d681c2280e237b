"""Images to be predicted: which files are meant, and their pixels, read ahead by other processes.

Nothing here grows with the number of files: names are met one after the other, and only a few
batches are read ahead.
"""

from __future__ import annotations

import glob
import itertools
import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardiomegaly import UserError
from cardiomegaly.data.image_folder import SUFFIXES
from cardiomegaly.data.images import fit_image, is_image, read_image

GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")
COLOURED = 8  # grey levels between the channels, on average; JPEG's own are below 2
THUMBNAIL = 64
SMALLEST_SHARE = 0.25  # of the side that a network takes
AHEAD = 4  # batches for each process that reads

Pixels = NDArray[np.uint8]
Source = str | Pixels  # a file's path, or grey pixels (H, W)
Shape = tuple[int, str]  # side and fit of a square, see `images.fit_image`


@dataclass(frozen=True)
class Loaded:
    """One image: its square `pixels` by shape, or the `reason` for which there are none.

    `unfit` says why it is no radiograph for any model: its colours, or its size.
    """

    name: str
    pixels: dict[Shape, Pixels]
    reason: str = ""
    unfit: str = ""


class InputFiles:
    """The files of `list_files`, of which there must be one; they can be met again and again.

    Raises:
        UserError: there is none.
    """

    def __init__(self, given: Sequence[str]) -> None:
        self.given = given
        if next(iter(self), None) is None:
            raise UserError(f"input: {', '.join(given)} holds no PNG, JPEG or DICOM file")

    def __iter__(self) -> Iterator[str]:
        return list_files(self.given)


def list_files(given: Sequence[str]) -> Iterator[str]:
    """The files that are meant by files, folders and patterns, one after the other.

    A folder stands for the images below it: what is called so, and of other names what begins as
    an image does. A file is taken whatever it is called.

    Raises:
        UserError: there is no such file or folder, or none that fits the pattern.
    """
    for word in given:
        place = os.path.expanduser(word)  # noqa: PTH111 (a pattern is no path)
        if Path(place).is_dir():
            yield from _below(place)
        elif Path(place).is_file():
            yield place
        else:
            matches = sorted(glob.glob(place, recursive=True))  # noqa: PTH207 (absolute, too)
            if not matches:
                raise UserError(f"input: {word} is no file, no folder, and no file fits it")
            yield from (match for match in matches if Path(match).is_file())


def _below(root: str) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)  # noqa: PTH118 (100,000 times)
            if name.lower().endswith(SUFFIXES) or _begins_as_image(path):
                yield path


def _begins_as_image(path: str) -> bool:
    try:
        return Path(path).is_file() and is_image(path)
    except OSError:
        return False


def as_sources(given: object) -> list[Source]:
    """What was given to predict, one or several files, folders, patterns or arrays, as a list."""
    several = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    sources: list[Source] = []
    for source in several:
        if isinstance(source, str | Path):
            sources += list_files([str(source)])
        else:
            sources.append(_checked(source))
    return sources


def load(sources: Iterable[Source], shapes: Sequence[Shape]) -> list[Loaded]:
    """Read images; one that cannot be read has a reason in place of pixels."""
    return [_load(source, number, shapes) for number, source in enumerate(sources)]


def _load(source: Source, number: int, shapes: Sequence[Shape]) -> Loaded:
    if isinstance(source, str):
        try:
            image = read_image(source)
        except (UserError, OSError) as error:
            return Loaded(source, {}, " ".join(str(error).split()))
        name, coloured = source, is_coloured(source)
    else:
        image, name, coloured = source, f"array {number}", False
    unfit = "a colour photograph" if coloured else ""
    if min(image.shape) < min(side for side, _ in shapes) * SMALLEST_SHARE:
        unfit = f"far too small ({image.shape[1]} x {image.shape[0]} pixels)"
    return Loaded(name, {shape: fit_image(image, *shape) for shape in shapes}, unfit=unfit)


def is_coloured(path: str) -> bool:
    """Whether a PNG or JPEG shows colours, rather than grey stored as colours."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as file:
            if file.mode in GREY_MODES:
                return False
            file.draft("RGB", (THUMBNAIL, THUMBNAIL))
            colours = file.convert("RGB").resize((THUMBNAIL, THUMBNAIL))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False  # a DICOM file, or one that only OpenCV reads
    pixels = np.asarray(colours, np.int16)
    return bool((pixels.max(2) - pixels.min(2)).mean() > COLOURED)


def _checked(image: Any) -> Pixels:
    if not (isinstance(image, np.ndarray) and image.ndim == 2 and image.dtype == np.uint8):
        what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image)
        raise UserError(f"input: an array must be grey, (height, width) of uint8, got {what}")
    return image


def load_batches(
    sources: Iterable[Source], shapes: Sequence[Shape], batch_size: int, workers: int
) -> Iterator[list[Loaded]]:
    """Read images in batches, in order and ahead.

    Args:
        sources: files or pixels.
        shapes: of the squares that are wanted of each.
        batch_size: images a batch.
        workers: processes that read; 0 reads by threads of this process.
    """
    batches = iter(partial(_take, iter(sources), batch_size), [])
    waiting: deque[Future[list[Loaded]]] = deque()
    with _readers(workers) as readers:
        for batch in batches:
            waiting.append(readers.submit(load, batch, shapes))
            if len(waiting) >= AHEAD * max(1, workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _take(sources: Iterator[Source], n: int) -> list[Source]:
    return list(itertools.islice(sources, n))


def _readers(workers: int) -> Executor:
    if workers == 0:
        return ThreadPoolExecutor(os.cpu_count())
    fresh = multiprocessing.get_context("spawn")  # a fork of threads that compute may hang
    return ProcessPoolExecutor(
        workers, mp_context=fresh, initializer=cv2.setNumThreads, initargs=(0,)
    )
