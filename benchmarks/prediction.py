"""What `predict` costs on files, its start included: pace against a forward pass, and memory.

  python -m benchmarks.prediction model=outputs/train/first input=FOLDER
  python -m benchmarks.prediction model=model.onnx input=FOLDER memory=100000

Pace: images a second by the wall clock, beside those of the same network on one batch in memory, in
turn; of a model that torch does not compute, that of its own library. Memory: the most that the
command and its readers held, at a tenth of so many files and at all of them (links to those of the
input, and a share of them broken: with many of those it is over sooner).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from omegaconf import MISSING

import cardiomegaly
from benchmarks.timing import in_turn
from cardiomegaly import cli
from cardiomegaly.inference.detector import BATCH, Detector
from cardiomegaly.inference.inputs import InputFiles
from cardiomegaly.model.memory import keep_freed_memory


@dataclass
class Options:
    """What can be chosen."""

    model: str = field(default=MISSING, metadata={"help": "run folder or .onnx file"})
    input: str = field(default=MISSING, metadata={"help": "folder of images"})
    rounds: int = field(default=3, metadata={"help": "of which the median counts"})
    memory: int = field(default=0, metadata={"help": "files; 0 measures the pace"})
    broken: int = field(default=3, metadata={"help": "of 100 files, cut off in the middle"})


def act(options: Options) -> None:
    """Measure and print."""
    files = list(InputFiles([options.input]))
    with tempfile.TemporaryDirectory(prefix="cardiomegaly-bench-") as folder:
        if options.memory:
            for n in (options.memory // 10, options.memory):
                print(memory(options, files, n, Path(folder) / str(n)), flush=True)
            return
        table = Path(folder) / "table.csv"
        detector = cardiomegaly.load(options.model)
        keep_freed_memory()
        measures = {
            "forward pass": lambda: forward(detector, len(files)),
            "predict": lambda: len(files) / command(options.model, options.input, table)[0],
            "start": lambda: command(options.model, files[0], table)[0],
        }
        runs = in_turn(measures, options.rounds)
    for name, values in runs.items():
        print(f"{name}: {np.median(values):.1f} {'s' if name == 'start' else 'images/s'}", values)
    print(f"ratio: {np.median(np.divide(runs['predict'], runs['forward pass'])):.2f}")


def forward(detector: Detector, images: int) -> float:
    """Images a second of a batch in memory, as many as there are files."""
    predictor = detector.models[0].predictor
    shape = (BATCH, 1, predictor.image_size, predictor.image_size)
    batch = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    predictor.predict(batch)
    start = time.perf_counter()
    for _ in range(images // BATCH):
        predictor.predict(batch)
    return images // BATCH * BATCH / (time.perf_counter() - start)


def command(model: str, given: str, table: Path) -> tuple[float, int]:
    """Seconds of `predict`, and the most bytes that it and its readers held."""
    words = [f"model={model}", f"input={given}", f"output={table}"]
    start, most = time.perf_counter(), 0
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "cardiomegaly.predict", *words], stdout=subprocess.DEVNULL
    ) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            most = max(most, held(watched))
            time.sleep(0.05)
    return time.perf_counter() - start, most


def held(process: psutil.Process) -> int:
    """Bytes that a process and its children hold now."""
    try:
        every = [process, *process.children(recursive=True)]
        return sum(one.memory_info().rss for one in every)
    except psutil.NoSuchProcess:
        return 0


def memory(options: Options, files: list[str], n: int, folder: Path) -> str:
    """Predict so many files; what was held, and whether every row is where it belongs."""
    (folder / "images").mkdir(parents=True)
    names = [f"{number:07}.png" for number in range(n)]
    for number, name in enumerate(names):
        end = -100 if number % 100 < options.broken else None
        source = folder / f"{number % len(files)}_{end}"
        if not source.exists():
            source.write_bytes(Path(files[number % len(files)]).read_bytes()[:end])
        (folder / "images" / name).hardlink_to(source)
    seconds, most = command(options.model, str(folder / "images"), folder / "table.csv")
    with (folder / "table.csv").open() as table:
        rows = [line.split(",", 1) for line in table][1:]
    ordered = [Path(row[0]).name for row in rows] == names
    named = sum("is truncated" in row[1] for row in rows)
    broken = sum(number % 100 < options.broken for number in range(n))
    return (
        f"{n:,} files: {most / 2**20:.0f} MiB at most, {seconds:.0f} s, rows in order: {ordered}, "
        f"{named:,} of {broken:,} broken ones named"
    )


def main(argv: list[str] | None = None) -> int:
    """The command."""
    return cli.run(Options, act, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
