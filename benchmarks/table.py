"""The table: a row a measurement, and on which machine it was taken."""

from __future__ import annotations

import platform
import shlex
import statistics
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.timing import Runs
from cardiomegaly import __version__
from cardiomegaly.training.files import write_json, write_text

HEADER = ("", "what", "measured", "compared with", "ratio", "goal")
BUSY = 0.5  # load a core, above which other programs disturb


@dataclass
class Row:
    """One line of the table.

    Attributes:
        key: letter of the measurement.
        what: was measured.
        runs: its value in each round, then that of what it is compared with in the same rounds;
            empty where the measurement was left out.
        unit: of the values.
        goal: the least that the ratio should be, or where nothing is compared the most that the
            value should be.
        note: how it was measured, or why it was not.
    """

    key: str
    what: str
    runs: Runs = field(default_factory=dict)
    unit: str = "images/s"
    goal: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Median over the rounds of the first by the second value of the same round."""
        if len(self.runs) < 2:
            return None
        return statistics.median(a / b for a, b in zip(*self.runs.values(), strict=True))

    @property
    def cells(self) -> tuple[str, ...]:
        """What stands in the columns of `HEADER`: medians over the rounds, and their ratio."""
        if not self.runs:
            return (self.key, self.what, "left out", "", "", "")
        value, *other = (statistics.median(values) for values in self.runs.values())
        against = f"{list(self.runs)[1]}: {_digits(other[0])}" if other else ""
        ratio, goal = "" if self.ratio is None else _digits(self.ratio), ""
        if self.goal is not None:
            met = value <= self.goal if self.ratio is None else self.ratio >= self.goal
            side = "at most" if self.ratio is None else "at least"
            goal = f"{side} {self.goal:g}, {'met' if met else 'not met'}"
        return (self.key, self.what, f"{_digits(value)} {self.unit}", against, ratio, goal)


def machine(command: list[str]) -> dict[str, Any]:
    """What the figures depend on."""
    capabilities = torch.cpu.get_capabilities()
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "benchmarks", *command]),
        "cpu": capabilities.get("cpu_name", platform.machine()),
        "cores": psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "bfloat16": capabilities.get("avx512_bf16", False),
        "matrix_units": capabilities.get("amx_bf16", False),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "load": round(psutil.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cardiomegaly": __version__,
    }


def busy(facts: dict[str, Any]) -> str:
    """A warning where other programs were running."""
    if facts["load"] < BUSY * facts["cores"]:
        return ""
    load = f"load {facts['load']} on {facts['cores']} cores"
    return f"other programs were running ({load}): the speeds are too low, and ratios uncertain"


def markdown(rows: list[Row], facts: dict[str, Any]) -> str:
    """The table, notes and machine as Markdown that can be read in a terminal too."""
    table = [HEADER, *(row.cells for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [f"| {' | '.join(map(str.ljust, cells, widths))} |" for cells in table]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    notes = [f"- ({row.key}) {row.what}: {row.note}" for row in rows if row.note]
    about = [f"- {name}: {value}" for name, value in facts.items()]
    parts = [lines, notes, [busy(facts)], about]
    return "\n\n".join("\n".join(part) for part in parts if any(part)) + "\n"


def save(folder: Path, rows: list[Row], facts: dict[str, Any]) -> None:
    """Write `bench.json` and `bench.md`."""
    results = [asdict(row) | {"ratio": row.ratio} for row in rows]
    write_json(folder / "bench.json", {"machine": facts, "rows": results})
    write_text(folder / "bench.md", markdown(rows, facts))


def _digits(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
