"""Report a sweep, finished or not: summary.csv, summary.md and report.html in its folder.

Example: python -m cardiomegaly.report sweep=outputs/sweeps/first
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from cardiomegaly import cli


@dataclass
class Options:
    sweep: str = field(default=MISSING, metadata={"help": "folder of the sweep"})
    device: str = field(
        default="auto", metadata={"help": "for the best run's maps: auto, cpu or cuda"}
    )


def act(options: Options) -> None:
    """Write the report, say it in short and say where it is."""
    # Not imported above: --help and a mistake in the words need none of it.
    from cardiomegaly.reports.sweep_page import report_sweep
    from cardiomegaly.sweep.ledger import LEDGER, read_ledger

    folder = Path(options.sweep)
    # A folder of runs that no sweep has kept a ledger for is reported as well.
    ledger = read_ledger(folder) if (folder / LEDGER).is_dir() else None
    summary, warnings = report_sweep(folder, ledger, options.device)
    print("\n".join([*summary, *(f"warning: {warning}" for warning in warnings)]))
    print(f"\nreport: {folder / 'report.html'}")


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return cli.run(Options, act, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
