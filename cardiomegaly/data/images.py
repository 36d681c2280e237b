"""Every image decoded once: a memory map of resized grey `uint8` images.

A 1024-pixel PNG takes 6 to 7 ms to decode, ten times the augmentation of a 224-pixel image, so
images are decoded and scaled before training and kept for every later run.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from cardiomegaly import UserError
from cardiomegaly.data.store import ABSENT, META, READY, UNREADABLE, RowStore, RowWriter

FORMAT = 1  # raise when the pixels of the same file would come out otherwise
CHUNK = 512  # images between two writes of the state
END_MARKERS = {b"\x89PNG": b"IEND", b"\xff\xd8\xff": b"\xff\xd9"}  # PNG and JPEG, start: end
TAIL = 1024  # bytes in which the end marker must stand: some writers append a few


def decode_image(path: str | Path, size: int) -> np.ndarray:
    """Decode a PNG or JPEG of any depth and mode to (size, size) `uint8`, grey.

    16-bit images keep their upper 8 bits, colours their luminance, alpha is dropped. Shrinking
    averages areas, enlarging interpolates linearly.

    Raises:
        UserError: not a PNG or JPEG, truncated, or damaged.
    """
    data = Path(path).read_bytes()
    end = next((end for start, end in END_MARKERS.items() if data.startswith(start)), None)
    if end is None:
        raise UserError(f"{path} is not a PNG or JPEG file")
    if end not in data[-TAIL:]:
        raise UserError(f"{path} is truncated")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f"{path} is damaged")
    shrinks = min(image.shape) > size
    return cv2.resize(
        image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def open_cache(images: pd.DataFrame, root: Path, cache_dir: Path, size: int) -> RowStore:
    """Find or begin the cache of the images of a data folder, (images, size, size) `uint8`.

    Args:
        images: columns path, bytes, mtime_ns; a row of the cache for each of its rows. A change
            of any of them makes a new cache and removes the outdated one.
        root: the data folder.
        cache_dir: where caches are kept.
        size: height and width in pixels.
    """
    folder = cache_dir / f"images-{size}px-{_fingerprint(images, root, size)}"
    store = RowStore(folder, len(images), (size, size), "uint8")
    _remove_outdated(cache_dir, root, size, keep=folder)
    store.create({"root": str(root.resolve()), "size": size, "images": len(images)})
    return store


def fill_cache(
    store: RowStore, images: pd.DataFrame, workers: int | None = None, progress: bool = True
) -> np.ndarray:
    """Decode the rows that are not there yet, in parallel.

    Args:
        store: from `open_cache`.
        images: columns row, path: those that are needed.
        workers: decoding threads; None takes every core.
        progress: show a progress bar.

    Returns:
        The state of each of `images`, READY or UNREADABLE.

    Raises:
        UserError: the disk lacks room.
    """
    rows = images["row"].to_numpy()
    if (store.state()[rows] == ABSENT).any():
        with store.writing() as writer:
            todo = images[store.state()[rows] == ABSENT]
            store.check_room(len(todo), "data.cache", f"{len(todo):,} images")
            _decode_rows(store.row_shape[0], writer, todo, workers or os.cpu_count() or 1, progress)
    return store.state()[rows]


def _decode_rows(
    size: int, writer: RowWriter, todo: pd.DataFrame, workers: int, progress: bool
) -> None:
    def decode(item: tuple[int, str]) -> int:
        row, path = item
        try:
            writer.put(row, decode_image(path, size))
        except (UserError, OSError):
            return UNREADABLE
        return READY

    items = list(zip(todo["row"], todo["path"], strict=True))
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one image a thread, not one image on all threads
    bar = tqdm(total=len(items), desc="decoding images", unit="image", disable=not progress)
    try:
        with ThreadPoolExecutor(workers) as pool, bar:
            for start in range(0, len(items), CHUNK):
                chunk = items[start : start + CHUNK]
                states = np.fromiter(pool.map(decode, chunk), np.uint8, len(chunk))
                writer.mark(np.array([row for row, _ in chunk]), states)
                bar.update(len(chunk))
    finally:
        cv2.setNumThreads(threads)


def _fingerprint(images: pd.DataFrame, root: Path, size: int) -> str:
    digest = hashlib.sha256(f"{FORMAT} {size} {root.resolve()}\n".encode())
    digest.update("\n".join(images["path"]).encode())
    digest.update(images[["bytes", "mtime_ns"]].to_numpy(np.int64).tobytes())
    return digest.hexdigest()[:16]


def _remove_outdated(cache_dir: Path, root: Path, size: int, keep: Path) -> None:
    for meta_file in cache_dir.glob(f"images-{size}px-*/{META}"):
        meta = json.loads(meta_file.read_text())
        if meta["root"] == str(root.resolve()) and meta_file.parent != keep:
            shutil.rmtree(meta_file.parent, ignore_errors=True)
