"""The benchmark command on a tiny scale: that it measures and reports, never how fast."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from benchmarks import __main__ as bench
from benchmarks import epochs, loading, steps, timing
from benchmarks.material import Effort, Material
from benchmarks.table import Row
from cardiomegaly import UserError

TINY = Effort(
    rounds=2, seconds=0.01, thorough=False, rows=300, image_size=64,
    backbones=("mobilenetv1",),
)  # fmt: skip
COMPARED = {"a", "b", "c", "d", "e"}
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")


@pytest.mark.slow
@forks
def test_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.act(bench.Options(output=str(tmp_path)), ["--quick"], TINY)
    (output,) = tmp_path.iterdir()
    saved = json.loads((output / "bench.json").read_text())
    rows = {row["key"]: row for row in saved["rows"]}
    assert sorted(rows) == list("abcdegj")
    for key in COMPARED:
        assert rows[key]["ratio"] > 0
        assert all(len(values) == TINY.rounds for values in rows[key]["runs"].values())
    assert rows["g"]["unit"] == "s"
    assert rows["j"]["runs"] == {} or torch.cuda.is_available()
    assert saved["machine"]["command"] == "python -m benchmarks --quick"
    assert saved["machine"]["cores"] == os.cpu_count()
    assert saved["machine"]["cpu"]
    text = (output / "bench.md").read_text()
    printed = capsys.readouterr()
    assert text in printed.out
    assert "b training, frozen mobilenetv1" in printed.out
    assert "Trainer" not in printed.err  # Lightning is quiet


def test_rows_are_saved_when_one_cannot_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(material: Material) -> None:
        raise MemoryError

    monkeypatch.setitem(bench.MEASUREMENTS, "j", breaks)
    with pytest.raises(MemoryError):
        bench.act(bench.Options(output=str(tmp_path), only="gj"), [], TINY)
    (saved,) = tmp_path.glob("*/bench.json")
    assert [row["key"] for row in json.loads(saved.read_text())["rows"]] == ["g"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (bench.Options(only="axz"), "only: must be letters of abcdefghijklm, got 'axz'"),
        (bench.Options(originals="absent"), "originals: 'absent' is no folder that holds PNGs"),
        (bench.Options(originals="empty"), "originals: 'empty' is no folder that holds PNGs"),
        (bench.Options(labels="absent.csv"), "labels: no file 'absent.csv'"),
    ],
)
def test_mistakes(
    options: bench.Options, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(UserError, match=message):
        bench.check(options)


def test_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["originals=absent"]) == 2
    assert capsys.readouterr().err == ("error: originals: 'absent' is no folder that holds PNGs\n")
    given = []
    monkeypatch.setattr(bench, "act", lambda options, words: given.append(options))
    assert bench.main(["--quick", "only=ab"]) == 0
    assert given == [bench.Options(quick=True, only="ab")]


def test_runs_take_turns() -> None:
    order: list[str] = []

    def measure(name: str, speed: float) -> float:
        order.append(name)
        return speed

    runs = timing.in_turn({"A": lambda: measure("A", 6), "B": lambda: measure("B", 2)}, 3)
    assert "".join(order) == "ABABAB"
    assert Row("x", "a thing", runs, goal=4).cells[2:] == (
        "6 images/s", "B: 2", "3", "at least 4, not met",
    )  # fmt: skip


def test_row_without_comparison_and_left_out() -> None:
    assert Row("g", "split", {"s": [2.0, 1.0, 9.0]}, "s", goal=3).cells[2:] == (
        "2 s", "", "", "at most 3, met",
    )  # fmt: skip
    assert Row("j", "GPU", note="none here").cells[2:] == ("left out", "", "", "")


def test_ratio_is_the_median_over_rounds() -> None:
    assert Row("x", "", {"A": [10, 1, 9], "B": [5, 1, 3]}).ratio == 2


def test_rate_counts_images() -> None:
    calls = []
    assert timing.rate(lambda: calls.append(torch.get_num_threads()), 5, 0.0, threads=1) > 5
    assert set(calls) == {1}


@pytest.mark.slow
def test_what_each_means_gives(tmp_path: Path) -> None:
    rows = list(steps.means(Material(dataclasses.replace(TINY, rounds=1), tmp_path)))
    assert len(rows) == 4
    assert all(row.ratio and list(row.runs)[1] == steps.PLAIN for row in rows)


@pytest.mark.slow
@forks
def test_whole_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs, "RUN", 40)
    monkeypatch.setattr(epochs, "ORIGINAL_SIZE", 64)
    run, memory = epochs.whole_runs(Material(TINY, tmp_path))
    assert run.unit == "s"
    assert 0.1 < memory.runs["run"][0] < 100  # GiB


def test_usual_pipeline(tmp_path: Path) -> None:
    material = Material(TINY, tmp_path)
    load = loading.usual_pipeline(64, material.config().augment)
    image = load(material.originals[0])
    assert image.shape == (3, 64, 64)
    assert image.min() < 0 < image.max()


@pytest.mark.slow
@pytest.mark.skipif(not psutil.LINUX, reason="only Linux tells the memory of a process tree")
@forks
def test_memory_of_the_loaders(tmp_path: Path) -> None:
    material = Material(TINY, tmp_path)
    (row,) = loading.loader_memory(material)
    assert row.what == "memory, 300 images, 4 workers"
    own = psutil.Process().memory_full_info().pss / 2**30
    assert 0.2 * own < row.runs["loaders"][0] < 50 * own


def test_a_fresh_process_starts_loaders_as_this_one() -> None:
    with timing.fresh_process(partial, multiprocessing.get_start_method) as measure:
        assert measure() == multiprocessing.get_start_method()


@pytest.mark.slow
def test_a_measurement_stays_in_one_other_process() -> None:
    before = set(multiprocessing.active_children())
    with timing.fresh_process(partial, os.getpid) as number:
        (process,) = set(multiprocessing.active_children()) - before
        assert [number(), number()] == [process.pid] * 2
    assert not process.is_alive()
    with (
        pytest.raises(TypeError, match="must be callable"),
        timing.fresh_process(partial, 5),  # type: ignore[arg-type]
    ):
        pass
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.slow
def test_fitting_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs, "LARGEST", 8)
    material = Material(TINY, tmp_path)
    config = material.config("data.workers=0")
    config.trainer.batch_size = "auto"
    assert epochs.fitting_batch(material, config) == 4


def test_gpu_load_is_asked_of_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    assert epochs.gpu_busy() == [] or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "utilization", lambda: 97)
    assert epochs.gpu_busy() == [97.0]
