"""Files written in one step, and their hashes.

A file is written beside its place, brought to disk and moved there, so that a killed process or a
full disk leaves either the old file or the new one and a reader never meets half of one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from cardiomegaly import RunError, UserError

LEAST_ROOM = 2**20  # bytes on a disk before anything is begun
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def check_writable(folder: Path, field: str) -> None:
    """Refuse to begin what cannot be written.

    Args:
        folder: which need not be there yet.
        field: of the configuration that names it.

    Raises:
        UserError: it cannot be made, or its disk is full.
    """
    try:
        place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:  # too long a name
        raise UserError(f"{field}: {error}; say {field}=FOLDER") from error
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise UserError(f"{field}: {place} cannot be written; say {field}=FOLDER")
    if shutil.disk_usage(place).free < LEAST_ROOM:
        raise UserError(f"{field}: the disk of {place} is full; make room or say {field}=FOLDER")


@contextmanager
def full_disk_in_one_line(folder: Path) -> Iterator[None]:
    """Tell in one line what others (loggers, plots) could not write into a folder.

    Raises:
        RunError: the disk is full, or read-only.
    """
    tell = threading.excepthook

    def tell_of_others(thread: threading.ExceptHookArgs) -> None:
        """TensorBoard writes in a thread, whose error comes to the training as well."""
        if getattr(thread.exc_value, "errno", None) not in CANNOT_WRITE:
            tell(thread)

    threading.excepthook = tell_of_others
    try:
        yield
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise _cannot_write(error.filename or folder, error) from error
    finally:
        threading.excepthook = tell


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write into, which takes the place of `path` if all goes well.

    Raises:
        RunError: it cannot be written: the disk is full, or the folder read-only.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except (OSError, RuntimeError) as error:
        # torch.save turns what the disk says into a RuntimeError of its own.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise _cannot_write(path, cause) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _cannot_write(path: Path | str, error: OSError) -> RunError:
    return RunError(
        f"{path} cannot be written: {error.strerror}; make room there, or give a folder that can "
        "be written"
    )


def write_text(path: Path | str, text: str) -> None:
    """Write a text file in one step."""
    with replacing(Path(path)) as file:
        file.write(text.encode())


def write_json(path: Path | str, data: Mapping[str, Any]) -> None:
    """Write a mapping as JSON in one step; nan and infinite become null, numpy types plain ones."""
    text = json.dumps(_plain(data), indent=2, allow_nan=False, ensure_ascii=False)
    write_text(path, text + "\n")


def write_csv(path: Path | str, frame: pd.DataFrame) -> None:
    """Write a table as CSV, without its index, in one step."""
    write_text(path, csv_text(frame))


def csv_text(frame: pd.DataFrame) -> str:
    """A table as CSV, numbers with all their digits."""
    return frame.to_csv(index=False, lineterminator="\n")


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON: {value!r}")
