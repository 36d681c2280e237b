"""Rows of equal shape on disk, filled as they are asked for and kept for every later run.

The file is sparse. A row counts only once its bytes are written, so a killed process loses the
rows in hand and nothing else; one process at a time writes, others wait and find the rows there.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cardiomegaly import UserError

ABSENT, READY, UNREADABLE = 0, 1, 2
META = "meta.json"


@dataclass(frozen=True)
class RowStore:
    """`n` rows of `row_shape` and `dtype` in a folder, each ABSENT, READY or UNREADABLE."""

    folder: Path
    n: int
    row_shape: tuple[int, ...]
    dtype: str

    @property
    def path(self) -> Path:
        """The file of all rows, one after another."""
        return self.folder / f"rows.{self.dtype}"

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, *row_shape)."""
        return (self.n, *self.row_shape)

    @property
    def row_bytes(self) -> int:
        """Size of one row."""
        return math.prod(self.row_shape) * np.dtype(self.dtype).itemsize

    def create(self, meta: dict[str, Any]) -> None:
        """Make the files where they are not there yet; `meta` is kept beside them as JSON."""
        if (self.folder / META).is_file():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.grow()
        (self.folder / META).write_text(json.dumps(meta))

    def grow(self) -> None:
        """Lengthen the files to `n` rows where an earlier store had fewer; what is there stays."""
        with self._locked():
            for path, length in ((self.path, self.n * self.row_bytes), (self._state, self.n)):
                with path.open("ab") as file:
                    file.truncate(max(length, file.tell()))

    def state(self) -> np.ndarray:
        """(n,) `uint8`: ABSENT, READY or UNREADABLE."""
        return np.fromfile(self._state, dtype=np.uint8, count=self.n)

    def rows(self) -> np.memmap:
        """All rows as a read-only memory map, (n, *row_shape)."""
        return np.memmap(self.path, dtype=self.dtype, mode="r", shape=self.shape)

    def check_room(self, rows: int, field: str, what: str) -> None:
        """Refuse to begin what the disk cannot hold.

        Raises:
            UserError: `rows` more rows do not fit.
        """
        need, free = rows * self.row_bytes, shutil.disk_usage(self.folder).free
        if need > free:
            raise UserError(
                f"{field}: {self.folder.parent} needs {need / 1e9:.1f} GB for {what} and has "
                f"{free / 1e9:.1f} GB free; free some or say {field}=FOLDER on another disk"
            )

    @contextmanager
    def writing(self) -> Iterator[RowWriter]:
        """Wait for other processes, then write rows."""
        with self._locked():
            file = os.open(self.path, os.O_WRONLY)
            state = np.memmap(self._state, dtype=np.uint8, mode="r+", shape=(self.n,))
            try:
                yield RowWriter(file, state, self.row_bytes)
            finally:
                os.close(file)

    @property
    def _state(self) -> Path:
        return self.folder / "state.u8"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class RowWriter:
    """Writes rows first and their state after; threads may put rows at once."""

    def __init__(self, file: int, state: np.memmap, row_bytes: int) -> None:
        self.file = file
        self.state = state
        self.row_bytes = row_bytes

    def put(self, row: int, values: np.ndarray) -> None:
        """Write one row; it counts from `mark` on."""
        os.pwrite(self.file, values.tobytes(), row * self.row_bytes)

    def mark(self, rows: np.ndarray, state: np.ndarray | int) -> None:
        """Bring what was put to disk, then say so."""
        os.fsync(self.file)
        self.state[rows] = state
