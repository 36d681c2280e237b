"""The command that lists and removes caches and unfinished runs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from cardiomegaly import UserError, cache
from cardiomegaly.data.store import RowStore

DAY = 86400


def age(folder: Path, days: float) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - days * DAY,) * 2)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A cache that was used today and one that was not for 40 days; runs, finished and not."""
    for name, days in (("images-new", 0), ("images-old", 40)):
        store = RowStore(tmp_path / "cache" / name, (10, 10), "uint8", {})
        with store.writing():
            store.append(np.array([1], np.uint64), [np.zeros((10, 10), np.uint8)])
        del store
        age(tmp_path / "cache" / name, days)
    for name, days in (("finished", 40), ("killed", 40), ("running", 0), ("sweep/job", 40)):
        run = tmp_path / "outputs" / name
        (run / ".hydra").mkdir(parents=True)
        (run / ".hydra" / "config.yaml").touch()
        (run / "last.ckpt").write_bytes(bytes(2_000_000))
        if name == "finished":
            (run / "metrics.json").touch()
        age(run, days)
    return tmp_path


def options(folders: Path, **chosen: object) -> cache.Options:
    paths = {"cache": str(folders / "cache"), "runs": str(folders / "outputs")}
    return cache.Options(**paths, **chosen)  # type: ignore[arg-type]


def there(folders: Path) -> set[str]:
    return {path.name for name in ("cache", "outputs") for path in (folders / name).glob("[a-z]*")}


def test_lists_and_removes_nothing(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = there(folders)
    cache.act(options(folders))
    printed = capsys.readouterr().out
    for line in ("images-old", "images-new", "killed  unfinished run", "job  unfinished run"):
        assert line in printed
    assert "finished\n" not in printed
    assert "  0.002 GB" in printed
    assert "1 caches and 2 unfinished runs were not used for 30 days" in printed
    assert there(folders) == before


def test_removes_what_is_old(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.act(options(folders, remove=True))
    assert "removed 1 caches and 2 unfinished runs" in capsys.readouterr().out
    assert there(folders) == {"images-new", "finished", "running", "sweep"}
    assert not (folders / "outputs" / "sweep" / "job").exists()


def test_no_days_spares_runs_of_today_and_caches_in_use(folders: Path) -> None:
    store = RowStore(folders / "cache" / "images-new", (10, 10), "uint8", {})
    cache.act(options(folders, remove=True, days=0))
    assert there(folders) == {"images-new", "finished", "running", "sweep"}
    del store


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.act(options(tmp_path, remove=True))
    assert "removed 0 caches and 0 unfinished runs" in capsys.readouterr().out


def test_command(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CARDIOMEGALY_CACHE", str(folders / "cache"))
    monkeypatch.setattr("sys.argv", ["cache", f"runs={folders / 'outputs'}"])
    assert cache.main() == 0
    assert "images-old" in capsys.readouterr().out
    with pytest.raises(UserError, match="days: must be 0 or more, got -1"):
        cache.act(options(folders, days=-1.0))
