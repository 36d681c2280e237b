"""The store of rows: found by key, appended, checked, shared, and never half believed."""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock, Timeout

from cardiomegaly import UserError
from cardiomegaly.data import store as stores
from cardiomegaly.data.store import ABSENT, RECORD, UNREADABLE, RowStore

SHAPE = (4, 3)
KEYS = np.array([7, 2**63 + 1, 5, 9], np.uint64)


def values(n: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *SHAPE), np.uint8)


def open_store(folder: Path) -> RowStore:
    return RowStore(folder / "images-test", SHAPE, "uint8", {"rows": "test"})


def filled(folder: Path, keys: np.ndarray = KEYS, seed: int = 0) -> RowStore:
    store = open_store(folder)
    with store.writing():
        store.append(keys, values(len(keys), seed))
    return store


def rows_of(store: RowStore, keys: np.ndarray = KEYS) -> np.ndarray:
    rows, intact = store.read(keys)
    assert intact.all()
    return rows


def damage(path: Path, at: int, length: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 255]) * length)


def test_rows_are_found_by_key_in_any_order(tmp_path: Path) -> None:
    store = filled(tmp_path)
    order = np.array([2, 0, 3, 1, 0])
    np.testing.assert_array_equal(rows_of(store, KEYS[order]), values()[order])
    assert store.find(np.array([6, 5, 0, 2**64 - 1], np.uint64)).tolist() == [ABSENT, 2] + 2 * [
        ABSENT
    ]
    np.testing.assert_array_equal(rows_of(open_store(tmp_path)), values())  # another process
    np.testing.assert_array_equal(rows_of(pickle.loads(pickle.dumps(store))), values())  # noqa: S301


def test_an_empty_store_is_no_folder(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert store.find(KEYS).tolist() == [ABSENT] * 4
    assert not list(tmp_path.iterdir())


def test_a_cache_folder_that_is_a_file_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    store = open_store(tmp_path / "cache")
    with pytest.raises(UserError, match=r"data\.cache: .*cannot be written"), store.writing():
        pass


def test_new_rows_are_appended_and_what_is_there_stays(tmp_path: Path) -> None:
    store = filled(tmp_path, KEYS[:2])
    before = (store.folder / stores.ROWS).read_bytes()
    with store.writing():
        store.append(KEYS[2:3], [None])
        store.append(KEYS[3:], values()[3:])
    assert store.find(KEYS).tolist() == [0, 1, UNREADABLE, 2]
    assert (store.folder / stores.ROWS).read_bytes()[: len(before)] == before
    assert open_store(tmp_path).find(KEYS).tolist() == [0, 1, UNREADABLE, 2]


def test_a_changed_row_is_noticed_and_can_be_replaced(tmp_path: Path) -> None:
    store = filled(tmp_path)
    damage(store.folder / stores.ROWS, at=2 * store.row_bytes + 5)
    store = open_store(tmp_path)
    assert store.read(KEYS)[1].tolist() == [True, True, False, True]
    with store.writing():
        store.append(KEYS[2:3], values()[2:3])
    np.testing.assert_array_equal(rows_of(store), values())
    np.testing.assert_array_equal(rows_of(open_store(tmp_path)), values())


def test_swapped_rows_are_noticed(tmp_path: Path) -> None:
    store = filled(tmp_path)
    (store.folder / stores.ROWS).write_bytes(values()[[1, 0, 2, 3]].tobytes())
    assert store.read(KEYS)[1].tolist() == [False, False, True, True]


def test_a_place_that_another_row_has_taken_is_not_believed(tmp_path: Path) -> None:
    store, other = filled(tmp_path), KEYS + np.uint64(1)
    os.truncate(store.folder / stores.ROWS, 0)
    filled(tmp_path, other, seed=1)  # another process writes where the lost rows lay
    assert not store.read(KEYS)[1].any()
    with store.writing():
        assert store.find(KEYS).tolist() == [ABSENT] * 4
    np.testing.assert_array_equal(rows_of(store, other), values(seed=1))


@pytest.mark.parametrize("length", [0, 1, 13, 25, 47])
def test_rows_that_are_cut_off_are_absent(
    tmp_path: Path, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    store = filled(tmp_path)
    os.truncate(store.folder / stores.ROWS, length)
    whole = length // store.row_bytes
    cut = store.read(KEYS)[1]  # while it is open: no SIGBUS
    assert cut.tolist() == [number < whole for number in range(4)]
    again = open_store(tmp_path)
    assert (again.find(KEYS) >= 0).tolist() == cut.tolist()
    assert f"{4 - whole} of its rows are lost and are computed anew" in caplog.text
    with again.writing():
        again.append(KEYS[whole:], values()[whole:])
    np.testing.assert_array_equal(rows_of(open_store(tmp_path)), values())
    caplog.clear()
    assert open_store(tmp_path) and not caplog.text


@pytest.mark.parametrize("length", [0, 10, RECORD.itemsize * 2 + 1])
def test_a_cut_index_loses_its_last_rows_alone(tmp_path: Path, length: int) -> None:
    store = filled(tmp_path)
    os.truncate(store.folder / stores.INDEX, length)
    store = open_store(tmp_path)
    whole = length // RECORD.itemsize
    assert (store.find(KEYS) >= 0).sum() == whole
    with store.writing():
        store.append(KEYS[whole:], values()[whole:])
    np.testing.assert_array_equal(rows_of(open_store(tmp_path)), values())


def test_no_flipped_byte_of_the_index_is_believed(tmp_path: Path) -> None:
    index = filled(tmp_path).folder / stores.INDEX
    for at in range(len(index.read_bytes())):
        damage(index, at)
        store = open_store(tmp_path)
        rows, intact = store.read(KEYS)
        np.testing.assert_array_equal(rows[intact], values()[intact])
        assert intact.sum() == 3
        damage(index, at)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00\x00"])
def test_a_broken_description_harms_nothing(tmp_path: Path, text: str) -> None:
    store = filled(tmp_path)
    (store.folder / "meta.json").write_text(text)
    store = open_store(tmp_path)
    np.testing.assert_array_equal(rows_of(store), values())
    with store.writing():
        pass
    assert json.loads((store.folder / "meta.json").read_text())["rows"] == "test"


def test_a_killed_writer_leaves_nothing_half_written(tmp_path: Path) -> None:
    """Killed at random moments of an endless filling, the store holds true rows alone."""
    program = """
import sys, numpy as np
from pathlib import Path
from cardiomegaly.data.store import RowStore
store = RowStore(Path(sys.argv[1]) / "images-test", (4, 3), "uint8", {"rows": "test"})
with store.writing():
    start = store._end
    print("begun", flush=True)
    for number in range(start, start + 10**6, 7):
        keys = np.arange(number, number + 7, dtype=np.uint64)
        store.append(keys, np.repeat(keys % 251, 12).astype(np.uint8).reshape(7, 4, 3))
"""
    total = 0
    for turn in range(4):
        writer = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE)  # noqa: S603
        assert writer.stdout is not None
        writer.stdout.readline()
        index = tmp_path / "images-test" / stores.INDEX
        while not index.is_file() or index.stat().st_size < (total + 50) * RECORD.itemsize:
            assert writer.poll() is None
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        store = open_store(tmp_path)
        keys = np.arange(10**5, dtype=np.uint64)
        keys = keys[store.find(keys) >= 0]
        assert len(keys) >= total + 50 * (turn > 0)
        total = len(keys)
        np.testing.assert_array_equal(rows_of(store, keys)[:, 0, 0], keys % 251)


def fill_some(folder: Path, first: int, barrier: object) -> None:
    store = open_store(folder)
    keys = np.arange(first, first + 40, dtype=np.uint64)
    barrier.wait()  # type: ignore[attr-defined]
    for start in range(0, 40, 10):
        with store.writing():
            todo = keys[start : start + 10]
            todo = todo[store.find(todo) == ABSENT]
            store.append(todo, np.repeat(todo, 12).astype(np.uint8).reshape(-1, *SHAPE))


def test_two_processes_share_the_work(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    builders = [
        context.Process(target=fill_some, args=(tmp_path, first, barrier)) for first in (0, 20)
    ]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert [builder.exitcode for builder in builders] == [0, 0]
    keys = np.arange(60, dtype=np.uint64)
    store = open_store(tmp_path)
    np.testing.assert_array_equal(rows_of(store, keys)[:, 0, 0], keys)
    assert (store.folder / stores.ROWS).stat().st_size == 60 * store.row_bytes  # none twice


def test_a_writer_that_will_not_wait(tmp_path: Path) -> None:
    store = filled(tmp_path)
    with FileLock(store.folder / "lock"), pytest.raises(Timeout), store.writing(wait=False):
        pass


class FullDisk(io.FileIO):
    """A file that takes a few bytes at a time and 20 in all, as a disk does that runs full."""

    room = 20

    def write(self, data: object) -> int:  # type: ignore[override]
        if not FullDisk.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = super().write(memoryview(data)[: min(5, FullDisk.room)])  # type: ignore[arg-type]
        FullDisk.room -= taken
        return taken


def test_a_disk_that_runs_full_gives_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path, KEYS[:2])
    real = Path.open

    def opening(path: Path, mode: str = "r", buffering: int = -1) -> object:
        return FullDisk(path, "r+") if mode == "r+b" else real(path, mode, buffering)

    monkeypatch.setattr(Path, "open", opening)
    with (
        pytest.raises(UserError, match=r"data\.cache: .*No space left on device.*data\.cache=FOLD"),
        store.writing(),
    ):
        store.append(KEYS[2:], values()[2:])
    monkeypatch.undo()
    assert store.find(KEYS).tolist() == [0, 1, ABSENT, ABSENT]
    with store.writing():
        store.append(KEYS[2:], values()[2:])
    np.testing.assert_array_equal(rows_of(store), values())


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["/bin/mount", "-t", "tmpfs", "-o", "size=1m", "cache", disk]
    if sys.platform != "linux" or subprocess.call(mount):  # noqa: S603
        pytest.skip("mounting is not allowed here")
    yield disk
    subprocess.run(["/bin/umount", "-l", disk], check=True)  # noqa: S603


def test_a_full_file_system_gives_one_line(tiny_disk: Path) -> None:
    store = RowStore(tiny_disk / "images-test", (300, 1000), "uint8", {})
    row = np.ones((300, 1000), np.uint8)
    with pytest.raises(UserError, match="No space left on device"), store.writing():
        for key in KEYS:
            store.append(np.array([key]), [row])
    assert (store.find(KEYS) >= 0).tolist() == [True, True, True, False]
    assert rows_of(RowStore(tiny_disk / "images-test", (300, 1000), "uint8", {}), KEYS[:3]).all()


def test_a_read_only_store_is_read(tmp_path: Path, read_only: Callable[[Path], None]) -> None:
    filled(tmp_path)
    read_only(tmp_path)
    store = open_store(tmp_path)
    np.testing.assert_array_equal(rows_of(store), values())
    for name in ("images-test", "images-other"):
        other = RowStore(tmp_path / name, SHAPE, "uint8", {})
        with pytest.raises(UserError, match=r"cannot be written .*Read-only"), other.writing():
            pass


def test_room_is_looked_at_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path)
    usage = stores.shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(stores.shutil, "disk_usage", lambda folder: usage)
    store.check_room(8, "8 images")
    with pytest.raises(UserError, match=r"data\.cache: .* needs .* GB for 9 images and has"):
        store.check_room(9, "9 images")


def test_forked_processes_read_side_by_side(tmp_path: Path) -> None:
    """They inherit the open file; its position must not be shared."""
    store = filled(tmp_path, np.arange(200, dtype=np.uint64))
    rows_of(store, np.arange(3, dtype=np.uint64))  # opened before the fork
    context = multiprocessing.get_context("fork")
    with context.Pool(3) as pool:
        keys = [np.random.default_rng(i).permutation(200).astype(np.uint64) for i in range(30)]
        for order, rows in zip(
            keys, pool.starmap(rows_of, [(store, k) for k in keys]), strict=True
        ):
            np.testing.assert_array_equal(rows, values(200)[order])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_does_not_grow_the_process(tmp_path: Path) -> None:
    store = RowStore(tmp_path / "images-test", (128, 128), "uint8", {})
    keys = np.arange(2000, dtype=np.uint64)  # 31 MiB
    with store.writing():
        store.append(keys, np.zeros((2000, 128, 128), np.uint8))
    before = mapped_kib()
    for first in range(0, len(keys), 50):
        assert store.read(keys[first : first + 50])[1].all()
    assert mapped_kib() - before < 4 * 1024


def mapped_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssFile:")).split()[1])
