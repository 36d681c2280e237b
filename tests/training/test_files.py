"""Files in one step: what is written comes back, and half a file is never seen."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cardiomegaly.training.files import sha256, write_csv, write_json


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
