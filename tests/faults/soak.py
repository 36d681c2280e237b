"""Kill short trainings at random moments, go on with each, and compare with an undisturbed one.

`python -m tests.faults.soak runs=200` takes an hour on 2 cores and exits with 1 if a single
prediction differs or a resumed run fails. What differs is kept below `folder`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from cardiomegaly import UserError, cli
from cardiomegaly.data.phantom.cohort import generate_phantom
from tests.faults import forked

IMAGES, SIZE = 60, 64
TRAINED = ("none", "last_stage", "all")
IMPORTING = 0.4  # of the time of a DDP training, of two new processes
LATEST = 1.2  # of the time until the predictions are written: plots come after


@dataclass
class Options:
    """What can be chosen."""

    runs: int = field(default=200, metadata={"help": "kill-and-resume cycles, over all modes"})
    seed: int = field(default=0, metadata={"help": "of the moments"})
    folder: str = field(default="outputs/soak", metadata={"help": "where they are trained"})


@dataclass(frozen=True)
class Mode:
    """A way to train.

    Attributes:
        name: in the table.
        words: of the command, besides `forked.TINY`.
        sweep: whether it is a sweep of two jobs.
    """

    name: str
    words: tuple[str, ...]
    sweep: bool = False

    @property
    def ddp(self) -> bool:
        return "trainer.strategy=ddp" in self.words

    def begin(self) -> list[str]:
        """The words that start it."""
        if self.sweep:
            return ["-m", *self.words, "seed=1,2", "hydra.sweep.dir=run"]
        return [*self.words, "hydra.run.dir=run"]

    def go_on(self, folder: Path) -> list[str] | None:
        """The words that go on with what was killed; None where nothing is recorded yet."""
        if self.sweep:
            return ["-m", "sweep.resume=run"] if (folder / "run" / "sweep.json").is_file() else None
        recorded = (folder / "run" / ".hydra" / "overrides.yaml").is_file()
        return ["resume=run"] if recorded else None


def modes() -> list[Mode]:
    """All that the program trains in other ways."""
    ways = [("live", trained) for trained in TRAINED] + [("reuse", "none")]
    made = []
    for balance, (features, trained) in itertools.product(("true", "false"), ways):
        name = f"{features}, trained {trained}, {'' if balance == 'true' else 'not '}balanced"
        words = (f"features={features}", f"backbone.trainable={trained}", f"balance={balance}")
        made += [
            Mode(f"{name}, {workers} workers", (*words, f"data.workers={workers}"))
            for workers in range(3)
        ]
        if trained != "last_stage":
            made.append(Mode(f"{name}, sweep", (*words, "data.workers=1"), sweep=True))
        if trained == "all":
            ddp = ("trainer.strategy=ddp", "trainer.devices=2", "data.workers=1")
            made.append(Mode(f"{name}, DDP of 2", (*words, *ddp)))
    return made


def start(mode: Mode, words: list[str], folder: Path) -> Started:
    """Start a command in a folder: a fork, or new processes for DDP, which starts more of them."""
    if not mode.ddp:
        return Started(forked.start(words, folder))
    with (folder / "output.txt").open("ab") as output:
        return Started(
            subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "cardiomegaly.train", *words],
                cwd=folder, stdout=output, stderr=output, start_new_session=True,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            )
        )  # fmt: skip


class Started:
    """A training that runs."""

    def __init__(self, process: ForkServerProcess | subprocess.Popen[bytes]) -> None:
        self.process = process

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit code; None if it still runs after so many seconds."""
        if isinstance(self.process, subprocess.Popen):
            try:
                return self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                return None
        self.process.join(seconds)
        return self.process.exitcode

    def kill(self) -> None:
        """SIGKILL, for all processes of a DDP training at once."""
        if isinstance(self.process, subprocess.Popen):
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.wait()


def results(folder: Path) -> dict[str, bytes]:
    """The final predictions below a folder, by run."""
    files = sorted((folder / "run").rglob("predictions.csv"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def reached(folder: Path) -> str:
    """How far a killed training, or the last job of a sweep, had come."""
    places = sorted((folder / "run").rglob(".hydra"), key=lambda path: path.stat().st_mtime)
    run = places[-1].parent if places else folder / "run"
    if (run / "metrics.json").is_file():
        return "after"
    return "epochs" if (run / "history.csv").is_file() else "before"


def undisturbed(mode: Mode, folder: Path, data: list[str]) -> tuple[dict[str, bytes], float]:
    """The predictions of a training that nobody kills, and the seconds until they were written."""
    folder.mkdir(parents=True)
    begin = time.time()
    code = start(mode, [*mode.begin(), *data], folder).wait()
    if code != 0:
        raise RuntimeError(f"{mode.name}: exit code {code}; see {folder / 'output.txt'}")
    written = max(path.stat().st_mtime for path in (folder / "run").rglob("metrics.json"))
    return results(folder), written - begin


def cycle(
    mode: Mode, folder: Path, data: list[str], moment: float, expected: dict[str, bytes]
) -> dict[str, str]:
    """Kill a training after `moment` seconds, go on with it, compare."""
    folder.mkdir(parents=True)
    words = [*mode.begin(), *data]
    killed = start(mode, words, folder)
    at = "finished"
    if killed.wait(moment) is None:
        killed.kill()
        at = reached(folder)
        code = start(mode, mode.go_on(folder) or words, folder).wait()
    else:
        code = killed.wait()
    outcome = "equal"
    if code != 0:
        outcome = f"exit code {code}"
    elif results(folder) != expected:
        outcome = "different"
    if outcome == "equal":
        shutil.rmtree(folder)
    return {"mode": mode.name, "killed": at, "outcome": outcome, "moment": f"{moment:.3f}"}


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a mode: cycles, where the kills hit, what differed or failed."""
    killed = rows["killed"]
    counts = {name: killed == name for name in ("before", "epochs", "after", "finished")}
    table = rows.assign(cycles=1, **counts, wrong=rows["outcome"] != "equal")
    columns = ["cycles", *counts, "wrong"]
    table = table.groupby("mode", sort=False)[columns].sum()
    table.loc["all"] = table.sum()
    return table


def soak(options: Options) -> int:
    """Run the cycles, mode after mode, and print the table."""
    folder = Path(options.folder).absolute()
    if folder.exists():
        raise UserError(f"folder: {folder} is there already; remove it or give another")
    generate_phantom(folder / "phantom", images=IMAGES, size=SIZE, seed=0, label_noise=0.0)
    data = [*forked.TINY, f"data.root={folder / 'phantom'}"]
    rng = np.random.default_rng(options.seed)
    forked.run(["--help"], folder)  # now everything is imported
    known: dict[str, tuple[dict[str, bytes], float]] = {}
    rows = []
    for number, mode in zip(tqdm(range(options.runs)), itertools.cycle(modes()), strict=False):
        if mode.name not in known:
            known[mode.name] = undisturbed(mode, folder / f"undisturbed-{len(known)}", data)
        expected, seconds = known[mode.name]
        moment = float(rng.uniform(IMPORTING if mode.ddp else 0.0, LATEST)) * seconds
        rows.append(cycle(mode, folder / f"cycle-{number}", data, moment, expected))
        pd.DataFrame(rows).to_csv(folder / "cycles.csv", index=False)
    table = summary(pd.DataFrame(rows))
    print(table.to_string())
    return int(table.loc["all", "wrong"] > 0)


if __name__ == "__main__":
    sys.exit(cli.run(Options, soak, __doc__))
