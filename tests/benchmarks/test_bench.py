"""The benchmark command on a tiny scale: that it measures and reports, never how fast."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as bench
from benchmarks import apart, loading, memory, steps, table, timing
from benchmarks.gpu_watch import GpuWatch
from benchmarks.material import Effort, Material
from cardiomegaly import UserError

TINY = Effort(
    repeats=2, seconds=0.01, originals=2, loaded=32, decoded=4, read=480, epoch=48,
    thorough=False, original_size=96, stored=2000, label_rows=2000, cohort=40, image_size=64,
    backbones=("mobilenetv1",),
)  # fmt: skip
COMPARED = {"a", "b", "c", "d", "e"}
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """More threads wait for each other longer than they compute, at this scale."""
    with timing.one_thread():
        yield


@pytest.mark.usefixtures("one_thread")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "result"
    bench.act(bench.Options(output=str(output), only="abcdegijk"), ["--quick"], TINY)
    saved = json.loads((output / "bench.json").read_text())
    rows = {row["key"]: row for row in saved["rows"]}
    assert "".join(rows) == "abcdegijk"
    for key in COMPARED:
        row = rows[key]
        assert row["value"] > 0
        assert row["ratio"] > 0
        assert row["reference"] in row["runs"]
        assert all(len(speeds) == TINY.repeats for speeds in row["runs"].values())
    assert rows["g"]["unit"] == "s"
    assert rows["i"]["value"] is None
    assert "left out" in rows["i"]["note"]
    assert saved["machine"]["command"] == "python -m benchmarks.__main__ --quick"
    assert saved["machine"]["cores"] == os.cpu_count()
    text = (output / "bench.md").read_text()
    printed = capsys.readouterr()
    assert text in printed.out
    assert "(b) training, frozen mobilenetv1" in printed.out
    assert "Trainer" not in printed.err  # Lightning is quiet
    assert sorted(path.name for path in output.iterdir()) == ["bench.json", "bench.md"]


def test_rows_are_kept_when_one_cannot_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(material: Material) -> None:
        raise MemoryError

    monkeypatch.setitem(bench.MEASUREMENTS, "h", breaks)
    with pytest.raises(MemoryError):
        bench.act(bench.Options(output=str(tmp_path), only="gh"), [], TINY)
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert [row["key"] for row in rows] == ["g"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (bench.Options(only="axz"), "only: must be letters of abcdefghijk, got 'axz'"),
        (bench.Options(originals="absent"), "originals: no folder 'absent'"),
        (bench.Options(originals="empty"), "originals: 'empty' holds no PNG"),
        (bench.Options(labels="absent.csv"), "labels: no file 'absent.csv'"),
        (bench.Options(output="file"), "output: 'file' is a file"),
    ],
)
def test_mistakes(
    options: bench.Options, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("file").touch()
    with pytest.raises(UserError, match=message):
        bench.check(options)


def test_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["originals=absent"]) == 2
    assert capsys.readouterr().err == "error: originals: no folder 'absent'\n"
    seen = []
    monkeypatch.setattr(bench, "act", lambda options, words: seen.append(options))
    assert bench.main(["--quick", "only=ab"]) == 0
    assert seen == [bench.Options(quick=True, only="ab")]


def test_runs_take_turns() -> None:
    order: list[str] = []

    def measure(name: str, speed: float) -> float:
        order.append(name)
        return speed

    runs = timing.in_turn({"A": lambda: measure("A", 6), "B": lambda: measure("B", 2)}, 3)
    assert "".join(order) == "ABABAB"
    row = table.compared("x", "a thing", runs, at_least=4)
    assert (row.value, row.reference_value, row.ratio, row.met) == (6, 2, 3, False)
    assert row.cells()[2:] == ("6 images/s", "B: 2", "3", "ratio of at least 4, not met")


def test_ratio_is_the_median_over_rounds() -> None:
    assert timing.median_ratio([10, 1, 9], [5, 1, 3]) == 2


def test_torch_defaults_are_undone() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with timing.torch_defaults():
            assert not torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("one_thread")
def test_what_each_means_gives(tmp_path: Path) -> None:
    effort = dataclasses.replace(TINY, repeats=1, thorough=True, heavy_batch=2)
    rows = list(steps.parts(Material(effort, tmp_path)))
    assert len(rows) == 4
    assert all(row.ratio and row.reference == steps.PLAIN for row in rows)


def test_usual_pipeline(tmp_path: Path) -> None:
    material = Material(TINY, tmp_path)
    load = loading.usual_pipeline(64, material.config().augment)
    image = load(material.originals["path"].iloc[0])
    assert image.shape == (3, 64, 64)
    assert image.min() < 0 < image.max()


@linux
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_memory_of_the_loaders(tmp_path: Path) -> None:
    readings = memory.loaders(Material(TINY, tmp_path))
    assert len(readings) == memory.READINGS
    for reading in readings:
        kinds = sum(reading[kind] for kind in ("anonymous", "files", "shared"))
        assert reading["all"] == pytest.approx(kinds, rel=0.02)
        assert reading["anonymous"] > 0


def test_memory_is_told_for_all_images() -> None:
    effort = Effort(**{**vars(TINY), "read": 1000, "stored": 3000})
    readings = [
        {"all": size * 2.0**30, "anonymous": 2.0**29, "files": 0.0, "shared": 0.0}
        for size in (1.0, 1.0, 1.25, 1.5)
    ]
    row = memory.of_loaders("memory", readings, effort)  # 0.25 GiB in 500 images
    assert row.value == pytest.approx(1.5 + 0.25 / 500 * 2000)
    assert row.met is False


@linux
def test_process_tree() -> None:
    context = multiprocessing.get_context("spawn")
    end = context.Event()
    child = context.Process(target=end.wait)
    child.start()
    tree = memory.process_tree(os.getpid())
    end.set()
    child.join()
    assert tree[0] == os.getpid()
    assert child.pid in tree
    assert os.getppid() not in tree


@linux
def test_a_fresh_process_starts_loaders_as_this_one() -> None:
    found = apart.in_fresh_process(multiprocessing.get_start_method)
    assert found == multiprocessing.get_start_method()


def test_a_measurement_apart_stays_in_one_other_process() -> None:
    before = set(multiprocessing.active_children())
    with apart.Apart(partial, os.getpid) as number:
        (process,) = set(multiprocessing.active_children()) - before
        assert [number(), number()] == [process.pid] * 2
    assert not process.is_alive()
    with pytest.raises(TypeError, match="must be callable"), apart.Apart(partial, 5):
        pass
    assert set(multiprocessing.active_children()) <= before


def test_gpu_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Card:
        uuid = "0000"

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Card)
    monkeypatch.setenv("PATH", str(tmp_path))
    with GpuWatch() as nothing:
        pass
    assert nothing.busy([(0, 1)]) is None
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 90\necho 100\necho [N/A]\nexec /bin/sleep 60\n")
    program.chmod(0o755)
    with GpuWatch() as watch:
        assert watch.process is not None
        while len(watch.readings) < 2:
            assert watch.process.poll() is None
            time.sleep(0.01)
    assert watch.process.poll() is not None
    assert [share for _, share in watch.readings] == [0.9, 1.0]
    watch.readings += [(-10.0, 0.0), (1e9, 0.0)]  # outside
    assert watch.busy([(0.0, time.perf_counter())]) == pytest.approx(0.95)
