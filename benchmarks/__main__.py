"""Measure loading, training and memory on this machine, in one table.

  python -m benchmarks.__main__ --quick            3 minutes on 2 cores
  python -m benchmarks.__main__ originals=FOLDER   about 25 minutes

Medians of several runs; what is compared runs in turn. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from benchmarks import epochs, loading, memory, steps, table
from benchmarks.material import FULL, QUICK, Effort, Material
from cardiomegaly import UserError, cli
from cardiomegaly.training.device import keep_freed_memory
from cardiomegaly.training.trainer import quiet_lightning

MEASUREMENTS = {  # letters of the rows -> what yields them
    "a": loading.loader,
    "bc": epochs.steps,
    "d": epochs.reused,
    "e": loading.cache_building,
    "f": memory.peak,
    "g": loading.labels_to_split,
    "h": steps.against_timm,
    "i": steps.compiled,
    "j": epochs.gpu,
    "k": steps.parts,
}
LETTERS = "".join(MEASUREMENTS)


@dataclass
class Options:
    """What can be chosen."""

    quick: bool = field(default=False, metadata={"help": "fewer and shorter runs; also --quick"})
    only: str = field(default=LETTERS, metadata={"help": "letters of the rows wanted"})
    originals: str | None = field(
        default=None, metadata={"help": "folder of 1024 px PNGs; null generates some"}
    )
    labels: str | None = field(
        default=None, metadata={"help": "full Data_Entry_2017 file; null makes one up"}
    )
    output: str | None = field(
        default=None, metadata={"help": "folder of the result; null: outputs/bench/<time>"}
    )


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
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    output = Path(options.output or Path("outputs") / "bench" / now)
    output.mkdir(parents=True, exist_ok=True)
    facts = table.machine(words)
    if warning := table.busy(facts):
        print(f"warning: {warning}", file=sys.stderr)
    start = time.perf_counter()
    rows: list[table.Row] = []
    with tempfile.TemporaryDirectory(prefix="cardiomegaly-bench-") as folder:
        material = Material(
            effort or (QUICK if options.quick else FULL),
            Path(folder),
            Path(options.originals) if options.originals else None,
            Path(options.labels) if options.labels else None,
        )
        try:
            measure(material, options.only, rows)
        finally:  # an hour's rows are not lost because one could not be measured
            facts["seconds"] = round(time.perf_counter() - start)
            table.save(output, rows, facts)
    print("\n" + table.markdown(rows, facts))
    print(f"saved as {output / 'bench.md'} and {output / 'bench.json'}")


def measure(material: Material, letters: str, rows: list[table.Row]) -> None:
    """Append the rows of these letters as they come, and say so."""
    keep_freed_memory()  # as a training does
    with quiet_lightning():
        for keys, measurement in MEASUREMENTS.items():
            if not set(keys) & set(letters):
                continue
            start = time.perf_counter()
            for row in measurement(material):
                if row.key in letters:
                    rows.append(row)
                    print(progress(row, time.perf_counter() - start), flush=True)
                start = time.perf_counter()


def progress(row: table.Row, seconds: float) -> str:
    """One short line on a row that has come."""
    key, what, measured, against, ratio, _ = row.cells()
    compared = f", {ratio} x {against}" if ratio else ""
    return f"({key}) {what}: {measured}{compared}  [{seconds:.0f} s]"


def check(options: Options) -> None:
    """Refuse what would fail minutes later.

    Raises:
        UserError: a letter is unknown, or a folder holds no PNG.
        UserError: a folder or file is absent.
    """
    unknown = [letter for letter in options.only if letter not in LETTERS]
    if unknown or not options.only:
        raise UserError(f"only: must be letters of {LETTERS}, got {options.only!r}")
    if options.originals is not None:
        folder = Path(options.originals)
        if not folder.is_dir():
            raise UserError(f"originals: no folder {options.originals!r}")
        if not any(path.suffix.lower() == ".png" for path in folder.rglob("*")):
            raise UserError(f"originals: {options.originals!r} holds no PNG")
    if options.labels is not None and not Path(options.labels).is_file():
        raise UserError(f"labels: no file {options.labels!r}")
    if options.output is not None and Path(options.output).is_file():
        raise UserError(f"output: {options.output!r} is a file; give a folder")


if __name__ == "__main__":
    sys.exit(main())
