"""What lies in a cache folder, who uses it, and that only what nobody uses is removed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cardiomegaly.data import caches
from cardiomegaly.data.store import RowStore

KEYS = np.arange(3, dtype=np.uint64)
DAY = 86_400


def make(cache_dir: Path, name: str) -> RowStore:
    store = RowStore(cache_dir / name, (4,), "uint8", {"rows": name})
    with store.writing():
        store.append(KEYS, np.ones((3, 4), np.uint8))
    return store


def age(folder: Path, days: float) -> None:
    then = time.time() - days * DAY
    for path in folder.iterdir():
        os.utime(path, (then, then))


def names(table: object) -> list[str]:
    return [folder.name for folder in table["folder"]]  # type: ignore[index]


def test_listed_by_last_use(tmp_path: Path) -> None:
    young, old = make(tmp_path, "images-1"), make(tmp_path, "features-2")
    age(old.folder, 40)
    former = tmp_path / "images-224px-845c0df5f377e1d7"  # as versions before this one made them
    former.mkdir()
    for name, size in (("rows.uint8", 1000), ("state.u8", 10), ("meta.json", 2), ("lock", 0)):
        (former / name).write_bytes(bytes(size))
    age(former, 50)
    (tmp_path / "phantom-600").mkdir()
    (tmp_path / "images-of-my-own").mkdir()
    (tmp_path / "images-of-my-own" / "a.png").write_bytes(b"x")
    table = caches.list_stores(tmp_path)
    assert names(table) == [former.name, "features-2", "images-1"]
    assert table["in_use"].tolist() == [False, True, True]
    assert table["bytes"][0] == 1012
    assert table["bytes"][1] == sum(
        path.stat().st_size for path in old.folder.iterdir() if path.is_file()
    )
    assert [about.get("rows") for about in table["about"]] == [None, "features-2", "images-1"]
    assert names(caches.unused_stores(tmp_path)) == [former.name]
    del old, young
    assert names(caches.unused_stores(tmp_path)) == [former.name, "features-2"]
    assert caches.list_stores(tmp_path / "none").empty


def test_opening_is_a_use(tmp_path: Path) -> None:
    folder = make(tmp_path, "images-1").folder
    age(folder, 40)
    assert names(caches.unused_stores(tmp_path)) == ["images-1"]
    RowStore(folder, (4,), "uint8", {})
    assert caches.unused_stores(tmp_path).empty
    assert names(caches.unused_stores(tmp_path, days=0)) == ["images-1"]


def test_nothing_in_use_is_removed(tmp_path: Path) -> None:
    """A store that another process has open stays, and goes once that process is killed."""
    used, unused, young = (make(tmp_path, f"images-{i}").folder for i in range(3))
    program = """
import sys
from pathlib import Path
from cardiomegaly.data.store import RowStore
store = RowStore(Path(sys.argv[1]), (4,), "uint8", {})
print("open", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", program, used], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == b"open\n"
        for folder in (used, unused):
            age(folder, 40)
        assert names(caches.remove_unused(tmp_path)) == [unused.name]
        assert (used.is_dir(), unused.is_dir(), young.is_dir()) == (True, False, True)
        user.kill()
    assert names(caches.remove_unused(tmp_path)) == [used.name]
    assert names(caches.remove_unused(tmp_path, days=0)) == [young.name]
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_files_of_ended_processes_do_not_pile_up(tmp_path: Path) -> None:
    folder = make(tmp_path, "images-1").folder
    for _ in range(5):
        RowStore(folder, (4,), "uint8", {})
    kept = RowStore(folder, (4,), "uint8", {})
    assert len(list((folder / "users").iterdir())) == 1
    del kept


def test_what_an_interrupted_removal_left_goes_with_the_next(tmp_path: Path) -> None:
    folder = make(tmp_path, "images-1").folder
    folder.rename(tmp_path / f"{caches.REMOVED}images-1")
    assert caches.remove_unused(tmp_path).empty
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_broken_description_is_an_empty_one(tmp_path: Path, text: str) -> None:
    store = make(tmp_path, "images-1")
    (store.folder / "meta.json").write_text(text, encoding="latin-1")
    assert caches.list_stores(tmp_path)["about"].tolist() == [{}]
