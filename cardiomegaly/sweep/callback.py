"""What surrounds the jobs of a sweep: the plan before the first, the report after the last."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from cardiomegaly import UserError, cli
from cardiomegaly.sweep import ledger
from cardiomegaly.sweep.job import FAILURE
from cardiomegaly.sweep.plan import (
    NAMING,
    Planned,
    check_startable,
    expand,
    job_name,
    plain,
    plan,
)
from cardiomegaly.training.resume import SWEEP, key_of, quoted, remembered, settings

# Not repeated by sweep.resume, which says them itself.
OWN_WORDS = ("sweep.name", "sweep.resume", "hydra.mode", "hydra.sweep.dir", "hydra.sweep.subdir")

# The folder of a run or job is named by Hydra, in the process that runs it; unpickling the callback
# there imports this module.
OmegaConf.register_new_resolver("job_name", job_name, replace=True)
OmegaConf.register_new_resolver("plain", lambda text: plain(str(text)), replace=True)


class SweepCallback(Callback):
    """Plans, refuses and reports a sweep; Hydra calls it by `hydra.callbacks`."""

    begun: Path | None = None  # the sweep of this process that has not come to its end

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Record what is planned; end here if the sweep cannot be run as it is configured."""
        try:
            start(config)
        except UserError as mistake:
            sys.exit(cli.refuse(mistake))
        except HydraException as mistake:
            sys.exit(cli.refuse(UserError(cli.explain(mistake))))
        SweepCallback.begun = Path(config.hydra.sweep.dir)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the report, list every failure, and make the exit code say so."""
        SweepCallback.begun = None
        code = finish(Path(config.hydra.sweep.dir))
        if code:
            sys.exit(code)


def start(config: DictConfig) -> None:
    """Choose the folder, name and check the jobs, and record those not yet known.

    Raises:
        UserError, HydraException: the sweep cannot be run.
    """
    words = [*config.hydra.overrides.task, *config.hydra.overrides.hydra]
    if config.sweep.name is not None:
        if config.sweep.name in (".", "..") or Path(config.sweep.name).name != config.sweep.name:
            raise UserError(
                f"sweep.name: must be the plain name of a folder, got {config.sweep.name!r}; "
                "hydra.sweep.dir takes a path"
            )
        _set(config, "dir", str(Path(config.hydra.sweep.dir).with_name(config.sweep.name)))
    from cardiomegaly.training.files import check_writable  # not needed for --help

    folder = Path(config.hydra.sweep.dir)
    check_writable(folder, "hydra.sweep.dir")
    jobs, known = expand(config), remembered(folder)
    if not jobs.known and find_spec("optuna") is None:
        raise UserError("a search needs Optuna: pip install 'cardiomegaly[search]'")
    keys = [*NAMING, *sorted({*jobs.keys, *known["keys"]} - set(NAMING))]
    _set(config, "subdir", f"${{job_name:[{','.join(keys)}],${{hydra.overrides.task}}}}")
    planned = plan(config, folder, jobs.overrides, keys)
    if not jobs.known and known["words"] and settings(known["words"]) != settings(words):
        raise UserError(
            f"{folder} holds a search that was begun by other words ({' '.join(known['words'])}); "
            "give another sweep.name"
        )
    check_startable([job.config for job in planned if job.entry.status != ledger.DONE])
    from cardiomegaly.training.files import write_json

    kept = [word for word in words if key_of(word) not in OWN_WORDS]
    write_json(folder / SWEEP, {"words": kept, "keys": keys})
    if jobs.known:
        record(folder, planned)


def record(folder: Path, planned: list[Planned]) -> None:
    """Enter the jobs that the ledger does not know, and say how the sweep stands."""
    for job in planned:
        with ledger.locked(ledger.job_lock(folder, job.entry.job)) as free:
            if free and ledger.read_entry(folder, job.entry.job, mine=True) is None:
                ledger.write_entry(folder, job.entry)
    states = [job.entry.status for job in planned]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    print(f"sweep {folder}: {len(planned)} jobs ({', '.join(counts)})")


def finish(folder: Path) -> int:
    """Write the report and list what is not done; returns the exit code."""
    from cardiomegaly.reports.sweep_page import report_sweep  # draws: not needed by a job

    report_sweep(folder, ledger.read_ledger(folder))
    entries = ledger.read_entries(folder)
    left = [entry for entry in entries if entry.status != ledger.DONE]
    done, path = len(entries) - len(left), folder / "report.html"
    print(f"\n{done} of {len(entries)} jobs are done. Report: {path}")
    for entry in left:
        where = f" by process {entry.pid} on {entry.host}" * (entry.status == ledger.RUNNING)
        print(f"{entry.status}: {entry.job}{where}: {entry.error or ''}".rstrip(": "))
    if left:
        print(f"to go on with these: {ledger.how_to_go_on(folder)}")
    unwell = {ledger.FAILED, ledger.INTERRUPTED} & {entry.status for entry in left}
    return FAILURE if unwell else 0


def _set(config: DictConfig, name: str, value: str) -> None:
    """Set hydra.sweep.<name> here and for every job, each of which composes its own."""
    with open_dict(config.hydra):
        config.hydra.sweep[name] = value
        config.hydra.overrides.hydra.append(f"hydra.sweep.{name}={quoted(value)}")
