"""Measure loading, training and memory on this machine, in one table.

  python -m benchmarks --quick            3 minutes on 2 cores
  python -m benchmarks originals=FOLDER   about 25 minutes

Medians of several rounds; what is compared runs in turn. Run it on an otherwise idle machine.
docs/speed.md says what the letters mean.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from benchmarks import epochs, loading, steps, table
from benchmarks.material import FULL, QUICK, Effort, Material
from cardiomegaly import UserError, cli
from cardiomegaly.model.memory import keep_freed_memory
from cardiomegaly.training.trainer import quiet_lightning

MEASUREMENTS = {  # letters of the rows -> what yields them
    "a": loading.loader,
    "bc": epochs.training_steps,
    "d": epochs.reused,
    "e": loading.cache_building,
    "f": loading.loader_memory,
    "g": loading.labels_to_split,
    "h": steps.against_timm,
    "i": steps.compiled,
    "j": epochs.gpu,
    "k": steps.means,
    "l": epochs.whole_runs,
    "m": steps.against_onnx,
}
LETTERS = "".join(MEASUREMENTS)
SLOW = "fhiklm"  # left out by --quick


@dataclass
class Options:
    """What can be chosen."""

    quick: bool = field(default=False, metadata={"help": "fewer and shorter runs; also --quick"})
    only: str = field(default=LETTERS, metadata={"help": "letters of the rows wanted"})
    originals: str | None = field(default=None, metadata={"help": "folder of PNGs of 1024 px"})
    labels: str | None = field(default=None, metadata={"help": "full Data_Entry_2017 file"})
    output: str = field(default="outputs/bench", metadata={"help": "folder of the result"})


def main(argv: list[str] | None = None) -> int:
    """The command; `--quick` means quick=true."""
    words = sys.argv[1:] if argv is None else argv
    words = ["quick=true" if word == "--quick" else word for word in words]
    return cli.run(Options, lambda options: act(options, words), __doc__, words)


def act(options: Options, words: list[str], effort: Effort | None = None) -> None:
    """Measure, and save and print the table.

    Raises:
        UserError: an option cannot be used as it is.
    """
    check(options)
    effort = effort or (QUICK if options.quick else FULL)
    output = Path(options.output) / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    output.mkdir(parents=True)
    facts = table.machine(words)
    print(table.busy(facts), file=sys.stderr)
    rows: list[table.Row] = []
    with tempfile.TemporaryDirectory(prefix="cardiomegaly-bench-") as folder:
        material = Material(effort, Path(folder), options.originals, options.labels)
        try:
            measure(material, options.only, rows)
        finally:  # an hour's rows are not lost because one could not be measured
            table.save(output, rows, facts)
    print("\n" + table.markdown(rows, facts))
    print(f"saved as {output / 'bench.md'} and {output / 'bench.json'}")


def measure(material: Material, letters: str, rows: list[table.Row]) -> None:
    """Append the rows of these letters as they come, and say so."""
    keep_freed_memory()  # as a training does
    with quiet_lightning():
        for keys, measurement in MEASUREMENTS.items():
            if not set(keys) & set(letters) or (keys in SLOW and not material.effort.thorough):
                continue
            start = time.perf_counter()
            for row in measurement(material):
                rows.append(row)
                print(*row.cells, f"[{time.perf_counter() - start:.0f} s]", flush=True)
                start = time.perf_counter()


def check(options: Options) -> None:
    """Refuse what would fail minutes later.

    Raises:
        UserError: a letter is unknown, a folder holds no PNG, or a file is not there.
    """
    if not options.only or not set(options.only) <= set(LETTERS):
        raise UserError(f"only: must be letters of {LETTERS}, got {options.only!r}")
    if options.originals is not None and not any(Path(options.originals).rglob("*.png")):
        raise UserError(f"originals: {options.originals!r} is no folder that holds PNGs")
    if options.labels is not None and not Path(options.labels).is_file():
        raise UserError(f"labels: no file {options.labels!r}")


if __name__ == "__main__":
    sys.exit(main())
