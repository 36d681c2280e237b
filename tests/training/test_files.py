"""Files in one step: what is written comes back, and half a file is never seen."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cardiomegaly import RunError, UserError
from cardiomegaly.training.files import (
    check_writable,
    full_disk_in_one_line,
    sha256,
    write_csv,
    write_json,
)


def test_json_holds_plain_values_and_null_for_the_undefined(tmp_path: Path) -> None:
    path = tmp_path / "new" / "metrics.json"
    write_json(
        path,
        {
            "undefined": float("nan"),
            "infinite": np.float32("inf"),
            "count": np.int64(3),
            "flag": np.bool_(True),
            "list": (1, np.float64(0.25)),
            "array": np.array([[1.0, np.nan]]),
            "path": Path("a") / "b",
            "none": None,
            "nested": {7: "é"},
        },
    )
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "undefined": None,
        "infinite": None,
        "count": 3,
        "flag": True,
        "list": [1, 0.25],
        "array": [[1.0, None]],
        "path": str(Path("a") / "b"),
        "none": None,
        "nested": {"7": "é"},
    }


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError, match="cannot write a set as JSON"):
        write_json(path, {"a": {1, 2}})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def test_csv_comes_back_to_the_last_digit(tmp_path: Path) -> None:
    frame = pd.DataFrame({"name": ["a, b", 'c "d"'], "value": [0.1 + 0.2, 4.3e-18 / 3]})
    write_csv(tmp_path / "table.csv", frame)
    read = pd.read_csv(tmp_path / "table.csv", dtype={"name": str})
    assert read["name"].tolist() == frame["name"].tolist()
    assert read["value"].tolist() == frame["value"].tolist()
    assert b"\r" not in (tmp_path / "table.csv").read_bytes()


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "file") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def fill(disk: Path) -> None:
    """Leave no room on a disk."""
    with contextlib.suppress(OSError), (disk / "filling").open("wb", 0) as file:
        while True:
            file.write(bytes(4096))


def test_what_cannot_be_written_is_not_begun(
    tmp_path: Path, read_only: Callable[[Path], None], small_disk: Path
) -> None:
    check_writable(small_disk.parent / "new" / "run", "hydra.run.dir")
    fill(small_disk)
    with pytest.raises(UserError, match=r"hydra\.run\.dir: the disk of .*disk is full; make room"):
        check_writable(small_disk / "run", "hydra.run.dir")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"hydra\.run\.dir: .*file cannot be written; say"):
        check_writable(tmp_path / "file" / "run", "hydra.run.dir")
    with pytest.raises(UserError, match=r"hydra\.run\.dir: .*File name too long.*; say hydra\.run"):
        check_writable(tmp_path / ("x" * 300), "hydra.run.dir")
    (tmp_path / "folder").mkdir()
    read_only(tmp_path / "folder")
    with pytest.raises(UserError, match=r"folder cannot be written; say hydra\.run\.dir=FOLDER"):
        check_writable(tmp_path / "folder" / "new" / "run", "hydra.run.dir")


def test_a_disk_that_fills_is_told_in_one_line(
    small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(small_disk)
    with pytest.raises(RunError, match=r"table\.csv cannot be written: No space left on device"):
        write_csv(small_disk / "table.csv", pd.DataFrame({"a": range(10_000)}))
    assert [path.name for path in small_disk.iterdir()] == ["filling"]

    def write() -> None:
        (small_disk / "others").write_bytes(bytes(10_000))

    said = pytest.raises(RunError, match="disk cannot be written: No space")
    with said, full_disk_in_one_line(small_disk):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        write()
    assert capfd.readouterr().err == ""


def test_other_errors_keep_their_traceback(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), full_disk_in_one_line(tmp_path):
        (tmp_path / "absent").read_text()
