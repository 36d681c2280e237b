"""Report a sweep, finished or not: summary.csv, summary.md and report.html in its folder.

Example: python -m cardiomegaly.report sweep=outputs/sweeps/first
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from omegaconf import MISSING

from cardiomegaly import cli
from cardiomegaly.reports.sweep_report import write_report
from cardiomegaly.sweep.ledger import LEDGER, read_ledger


@dataclass
class Options:
    sweep: str = field(default=MISSING, metadata={"help": "folder of the sweep"})
    resamples: int = field(default=2000, metadata={"help": "of the bootstrap behind the intervals"})


def act(options: Options) -> None:
    """Write the report and say where it is."""
    folder = Path(options.sweep)
    path = write_report(folder, _ledger(folder), options.resamples)
    print((folder / "summary.md").read_text(encoding="utf-8"))
    print(f"report: {path}")


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return cli.run(Options, act, __doc__, argv)


def _ledger(folder: Path) -> pd.DataFrame | None:
    """The sweep's ledger; None for a folder of runs that no sweep has kept one for."""
    return read_ledger(folder) if (folder / LEDGER).is_dir() else None


if __name__ == "__main__":
    sys.exit(main())
