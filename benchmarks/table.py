"""The table: a row a measurement, and on which machine it was taken."""

from __future__ import annotations

import os
import platform
import shlex
import statistics
import sys
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Runs, median_ratio
from cardiomegaly import __version__
from cardiomegaly.training.record import write_json, write_text

HEADER = ("", "what", "measured", "compared with", "ratio", "goal")
BUSY = 0.5  # load a core, above which other programs disturb


@dataclass
class Row:
    """One line of the table.

    Attributes:
        key: letter of the measurement.
        what: was measured.
        value, unit: median of the runs; None where the measurement was left out.
        reference, reference_value: what it is compared with, in the same unit.
        ratio: median over the rounds of value by reference.
        goal, met: what it should be, and whether it is.
        note: how it was measured, or why it was not.
        runs: every single run.
    """

    key: str
    what: str
    value: float | None = None
    unit: str = "images/s"
    reference: str = ""
    reference_value: float | None = None
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None
    note: str = ""
    runs: Runs = field(default_factory=dict)

    def cells(self) -> tuple[str, ...]:
        """What stands in the columns of `HEADER`."""
        measured = "–" if self.value is None else f"{shown(self.value)} {self.unit}"  # noqa: RUF001
        against = self.reference
        if self.reference_value is not None:
            against += f": {shown(self.reference_value)}"
        ratio = "" if self.ratio is None else shown(self.ratio)
        verdict = {True: ", met", False: ", not met", None: ""}[self.met]
        return (self.key, self.what, measured, against, ratio, self.goal + verdict)


def compared(key: str, what: str, runs: Runs, at_least: float | None = None, note: str = "") -> Row:
    """A row on two speeds taken in turn: the first of `runs`, against the second."""
    (own, other) = list(runs)[:2]
    ratio = median_ratio(runs[own], runs[other])
    return Row(
        key,
        what,
        value=statistics.median(runs[own]),
        reference=other,
        reference_value=statistics.median(runs[other]),
        ratio=ratio,
        goal="" if at_least is None else f"ratio of at least {at_least:g}",
        met=None if at_least is None else ratio >= at_least,
        note=note,
        runs={name: runs[name] for name in (own, other)},
    )


def shown(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine(command: list[str]) -> dict[str, Any]:
    """What the figures depend on."""
    cuda = torch.cuda.is_available()
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "benchmarks.__main__", *command]),
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "bfloat16": torch.cpu._is_avx512_bf16_supported(),
        "gpu": torch.cuda.get_device_name(0) if cuda else None,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cardiomegaly": __version__,
    }


def busy(facts: dict[str, Any]) -> str | None:
    """A warning where other programs were running."""
    if facts["load"] is None or facts["load"] < BUSY * facts["cores"]:
        return None
    return (
        f"other programs were running (load {facts['load']} on {facts['cores']} cores): the "
        "speeds are too low, and ratios uncertain"
    )


def markdown(rows: list[Row], facts: dict[str, Any]) -> str:
    """The table, notes and machine as Markdown that can be read in a terminal too."""
    table = [HEADER, *(row.cells() for row in rows)]
    widths = [max(len(cells[column]) for cells in table) for column in range(len(HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        + " |" for cells in table
    ]  # fmt: skip
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    notes = [f"- ({row.key}) {row.what}: {row.note}" for row in rows if row.note]
    warning = busy(facts)
    about = [f"- {name}: {value}" for name, value in facts.items()]
    parts = [lines, notes, [f"**{warning}**"] if warning else [], about]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def save(folder: Path, rows: list[Row], facts: dict[str, Any]) -> None:
    """Write `bench.json` and `bench.md`."""
    write_json(folder / "bench.json", {"machine": facts, "rows": [asdict(row) for row in rows]})
    write_text(folder / "bench.md", markdown(rows, facts))


def _cpu_name() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
