"""Report a sweep, finished or not: summary.csv, summary.md and report.html in its folder.

Example: python -m cardiomegaly.report sweep=outputs/sweeps/first
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from cardiomegaly import cli


@dataclass
class Options:
    sweep: Path = cli.option("folder of the sweep", MISSING)
    device: str = cli.option("for the best run's maps: auto, cpu or cuda", "auto")


def act(options: Options) -> None:
    """Write the report, say it in short and say where it is."""
    # Not imported above: --help and a mistake in the words need none of it.
    from cardiomegaly.reports.sweep_page import report_sweep
    from cardiomegaly.sweep.ledger import LEDGER, read_ledger

    folder = options.sweep
    # A folder of runs that no sweep has kept a ledger for is reported as well.
    ledger = read_ledger(folder) if (folder / LEDGER).is_dir() else None
    print(report_sweep(folder, ledger, options.device))


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return cli.run(Options, act, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
