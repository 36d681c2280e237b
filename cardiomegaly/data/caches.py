"""The stores of a cache folder: which process uses which, what they take, and their removal.

Each process that uses a store locks a file in the store's folder `users/` for as long as it runs;
the system takes the lock away when the process ends, however it ends.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

UNUSED_DAYS = 30.0  # a store that nobody has used for so long is old
COMMAND = "python -m cardiomegaly.cache"  # that lists and removes them
META, USERS = "meta.json", "users"
REGISTRY = ".lock"  # of the cache folder: held while users are entered and stores removed
PATIENCE = 10  # seconds to wait for it
REMOVED = ".removed-"
KINDS = ("images-", "features-")  # how the folder of a store begins
CONTENTS = {"rows.bin", "index.bin", META, USERS, "lock", "rows.uint8", "rows.float16", "state.u8"}


def register_use(store: Path) -> FileLock | None:
    """Enter this process among the users of a store; it stays one while the lock is kept.

    Returns:
        The lock; None where the store cannot be written, so that nobody could remove it either.
    """
    with suppress(OSError, NotImplementedError), _registry(store.parent):
        users = store / USERS
        users.mkdir(exist_ok=True)
        for path in users.iterdir():
            if not _is_locked(path):  # its process has ended
                path.unlink()
        lock = FileLock(users / uuid.uuid4().hex, timeout=PATIENCE)
        lock.acquire()
        (store / META).touch()
        return lock
    return None


def list_stores(cache_dir: Path) -> pd.DataFrame:
    """What lies in a cache folder.

    Returns:
        Columns folder, bytes, last_used (UTC), in_use, about (meta.json); the longest unused first.
    """
    stores = [folder for folder in cache_dir.glob("*") if _is_store(folder)]
    rows = [(folder, *_size_and_time(folder), _in_use(folder), about(folder)) for folder in stores]
    table = pd.DataFrame(rows, columns=["folder", "bytes", "last_used", "in_use", "about"])
    table["last_used"] = pd.to_datetime(table["last_used"], unit="s", utc=True)
    return table.sort_values("last_used", ignore_index=True)


def unused_stores(cache_dir: Path, days: float = UNUSED_DAYS) -> pd.DataFrame:
    """The stores of `list_stores` that nobody uses or has used in the last `days`."""
    stores = list_stores(cache_dir)
    limit = pd.Timestamp.now("UTC") - pd.Timedelta(days=days)
    return stores[~stores["in_use"].astype(bool) & (stores["last_used"] <= limit)]


def remove_unused(cache_dir: Path, days: float = UNUSED_DAYS) -> pd.DataFrame:
    """Remove what `unused_stores` lists and return it; what is in use stays.

    Raises:
        OSError: a folder cannot be removed.
    """
    with _registry(cache_dir):
        stores = unused_stores(cache_dir, days)
        # Renamed first: who opens a store meanwhile finds none and begins a new one.
        for folder in stores["folder"]:
            folder.rename(folder.with_name(REMOVED + folder.name))
        for folder in cache_dir.glob(f"{REMOVED}*"):
            shutil.rmtree(folder)
    return stores


@contextmanager
def _registry(cache_dir: Path) -> Iterator[None]:
    with FileLock(cache_dir / REGISTRY, timeout=PATIENCE):
        yield


def _is_store(folder: Path) -> bool:
    return (
        folder.name.startswith(KINDS)
        and folder.is_dir()
        and all(path.name in CONTENTS or path.name[0] == "." for path in folder.iterdir())
    )


def _in_use(store: Path) -> bool:
    return any(_is_locked(path) for path in (store / USERS).glob("*"))


def _is_locked(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return False
    except (OSError, NotImplementedError):  # a lock held elsewhere is an OSError too
        return True


def _size_and_time(store: Path) -> tuple[int, float]:
    """Bytes, and when the newest file was changed: meta.json is touched at each use."""
    stats = [path.stat() for path in store.iterdir() if path.is_file()]
    return sum(stat.st_size for stat in stats), max((stat.st_mtime for stat in stats), default=0.0)


def about(store: Path) -> dict[str, Any]:
    """What the rows of a store are, as its meta.json says; nothing where that is broken."""
    try:
        return dict(json.loads((store / META).read_bytes()))
    except (OSError, TypeError, ValueError):
        return {}
