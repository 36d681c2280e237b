"""Rows of equal shape on disk, found by a key, computed once and kept for every later run.

A store is a folder below the cache folder:

    rows.bin   the rows, one after another
    index.bin  24 bytes a row, little-endian: its key (u8), its place in rows.bin (i8), and XXH3 of
               its bytes seeded with the key (u8); place -1: what the key stands for is unreadable
    meta.json  what the rows are, for people; when it was changed is when the store was last used
    lock       held by the process that writes
    users/     a file for each process that uses the store, locked as long as it does

Rows and records are only added, and rows reach the disk before their records: what a killed
process leaves half-written has no record, and the next writer writes over it. The last record of a
key counts, so a damaged row is replaced by a new one. Rows are read, not mapped: they stay in the
system's page cache, count as no process's memory, and a file that is cut short gives fewer bytes
and no SIGBUS. Nothing needs to be written in order to read, so a read-only store will do.

Keys are 64-bit hashes: that two of a million rows share one has a probability of 3 in 100 million.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from cardiomegaly import UserError
from cardiomegaly.data import caches

log = logging.getLogger(__name__)
RECORD = np.dtype([("key", "<u8"), ("place", "<i8"), ("checksum", "<u8")])
UNREADABLE, ABSENT = -1, -2  # instead of a place
ROWS, INDEX, LOCK = "rows.bin", "index.bin", "lock"

Keys = NDArray[np.uint64]


class RowStore:
    """Rows of `row_shape` and `dtype` in a folder, which is made when the first row is written.

    Args:
        folder: of the store.
        row_shape, dtype: of a row.
        about: what the rows are, for meta.json.
    """

    def __init__(
        self, folder: Path, row_shape: tuple[int, ...], dtype: str, about: dict[str, Any]
    ) -> None:
        self.folder = folder
        self.row_shape = row_shape
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.row_bytes = math.prod(row_shape) * self.dtype.itemsize
        self.about = about | {"row_shape": list(row_shape), "dtype": dtype}
        self._user: FileLock | None = None
        self._end = 0  # where the next row goes
        if folder.is_dir():
            self._user = caches.register_use(folder)
        self._load()
        if self._invalid:
            log.warning(
                "%s is damaged or cut short: %d of its rows are lost and are computed anew",
                folder, self._invalid,
            )  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_user": None}

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """Where each key's row lies, from 0; or UNREADABLE or ABSENT."""
        return self._records(keys)["place"]

    def read(self, keys: Keys) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read rows, (n, *row_shape), and say which are as they were written, (n,)."""
        rows = np.empty((len(keys), *self.row_shape), self.dtype)
        intact = np.zeros(len(keys), bool)
        records = self._records(keys)
        if not (records["place"] >= 0).any():
            return rows, intact
        # Opened for each batch: forked processes would share the position of a file left open.
        with (self.folder / ROWS).open("rb", buffering=0) as file:
            for number, (key, place, checksum) in enumerate(records.tolist()):
                if place >= 0:
                    file.seek(place * self.row_bytes)
                    length = file.readinto(rows[number].data)
                    same = xxh3_64_intdigest(rows[number].data, key) == checksum
                    intact[number] = same and length == self.row_bytes
        return rows, intact

    @contextmanager
    def writing(self, wait: bool = True) -> Iterator[None]:
        """Keep other writers out, waiting for them or not, and see what they have added.

        Raises:
            UserError: the folder cannot be written.
            filelock.Timeout: another process writes, and `wait` is false.
        """
        lock = FileLock(self.folder / LOCK)
        with self._one_line():
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._user is None:
                self._user = caches.register_use(self.folder)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if not wait:
                    raise
                log.info("waiting for another process to fill %s", self.folder)
                lock.acquire()
        try:
            self._load()
            with self._one_line():
                self._prepare()
            yield
        finally:
            lock.release()
            self._load()

    def append(self, keys: Keys, rows: Iterable[NDArray[Any] | None]) -> None:
        """Add rows while `writing`; they are found when that ends. None has no readable row.

        Raises:
            UserError: the disk is full or cannot be written.
        """
        records = np.zeros(len(keys), RECORD)
        records["key"] = keys
        place = self._end
        with self._one_line():
            with (self.folder / ROWS).open("r+b", buffering=0) as file:
                file.seek(place * self.row_bytes)
                for record, key, row in zip(records, keys.tolist(), rows, strict=True):
                    data = b"" if row is None else np.ascontiguousarray(row, self.dtype).data
                    record["checksum"] = xxh3_64_intdigest(data, key)
                    record["place"] = UNREADABLE if row is None else place
                    place += row is not None
                    _write(file, data)
                os.fsync(file.fileno())
            with (self.folder / INDEX).open("ab", buffering=0) as file:
                _write(file, records.data)
        self._end = place

    def check_room(self, rows: int, what: str) -> None:
        """Refuse to begin what the disk cannot hold.

        Raises:
            UserError: `rows` more rows do not fit.
        """
        need, free = rows * self.row_bytes, shutil.disk_usage(self.folder).free
        if need > free:
            raise UserError(
                f"data.cache: {self.folder.parent} needs {need / 1e9:.1f} GB for {what} and has "
                f"{free / 1e9:.1f} GB free; free some or say data.cache=FOLDER on another disk"
            )

    def _load(self) -> None:
        """Read the index; records that cannot be true are left out and counted."""
        raw, length = b"", 0
        with suppress(FileNotFoundError, NotADirectoryError):
            raw = (self.folder / INDEX).read_bytes()
            length = (self.folder / ROWS).stat().st_size // self.row_bytes
        records = np.frombuffer(raw, RECORD, len(raw) // RECORD.itemsize)
        valid = (records["place"] >= UNREADABLE) & (records["place"] < length)
        self._invalid = int((~valid).sum())
        self._ragged = self._invalid > 0 or len(raw) % RECORD.itemsize > 0
        self._index = records[valid]
        self._end = int(self._index["place"].max(initial=-1)) + 1
        order = np.argsort(self._index["key"], kind="stable")  # the last of equals is the latest
        self._sorted = self._index[order]
        self._keys = np.ascontiguousarray(self._sorted["key"])

    def _records(self, keys: Keys) -> NDArray[Any]:
        """The latest record of each key; its place is ABSENT where there is none."""
        records = np.zeros(len(keys), RECORD)
        records["key"], records["place"] = keys, ABSENT
        last = np.searchsorted(self._keys, keys, side="right") - 1
        there = np.flatnonzero(last >= 0)
        there = there[self._keys[last[there]] == keys[there]]
        records[there] = self._sorted[last[there]]
        return records

    def _prepare(self) -> None:
        """Make the files that are not there, and an index of true records alone."""
        (self.folder / ROWS).touch()
        if caches.about(self.folder) != self.about:
            replace_file(self.folder / caches.META, json.dumps(self.about).encode())
        if self._ragged:
            replace_file(self.folder / INDEX, self._index.tobytes())

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except Timeout:
            raise
        except (OSError, NotImplementedError) as error:  # the latter where files cannot be locked
            raise UserError(
                f"data.cache: {self.folder} cannot be written ({error}); free room, allow it or "
                "say data.cache=FOLDER on another disk"
            ) from error


def replace_file(path: Path, data: bytes) -> None:
    """Write a file beside its place and move it there, so that no reader meets half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _write(file: FileIO, data: bytes | memoryview) -> None:
    """Write everything: before a full disk refuses, it takes a part."""
    rest = memoryview(data).cast("B")
    while len(rest):
        rest = rest[file.write(rest) :]
