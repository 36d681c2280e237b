"""Train and test one configuration, or with -m a sweep of them."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cardiomegaly import UserError, cli, config, spelling
from cardiomegaly.config import Config
from cardiomegaly.reports import run_report
from cardiomegaly.sweep import callback, job
from cardiomegaly.training import run as training

FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra's own variable: set to 1, it shows where an error arose


@hydra.main(version_base="1.3", config_path=str(config.CONF_DIR.resolve()), config_name="config")
def run(cfg: DictConfig) -> float:
    """Train one configuration in the folder that Hydra made for it."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return job.run(cfg, train_and_report)
    try:
        return train_and_report(config.check(cfg), Path(HydraConfig.get().runtime.output_dir))
    except UserError as mistake:
        if os.environ.get(FULL_ERROR) == "1":
            raise
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(cli.USER_ERROR)


def train_and_report(config: Config, folder: Path) -> float:
    """Train, draw the plots, print the closing table.

    Returns:
        The best value of the monitored metric on the validation part; nan in all but the first
        process of a distributed training.
    """
    run = training.train(config, folder)
    if run is None:
        return math.nan
    run_report.write(run)
    return float(run.record.meta["best_value"])


def main() -> None:
    """The command."""
    try:
        sys.argv[1:] = callback.resume_words(resume_arguments(sys.argv[1:]))
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(cli.USER_ERROR)
    try:
        run()
    except SystemExit as end:
        if end.code == callback.FAILURE and callback.SweepCallback.begun is not None:
            callback.finish(callback.SweepCallback.begun)  # the launcher broke down
        elif end.code == callback.FAILURE:
            for line in spelling.unknown_keys(sys.argv[1:]):
                print(f"error: {line}", file=sys.stderr)
        raise


def resume_arguments(words: list[str]) -> list[str]:
    """Put the words that started a run before those that go on with it (`resume=FOLDER`).

    Raises:
        UserError: the folder is not one of a run.
    """
    folder = next((word.partition("=")[2] for word in words if word.startswith("resume=")), None)
    if folder in (None, "null", ""):
        return words
    record = Path(str(folder)) / ".hydra" / "overrides.yaml"
    if not record.is_file():
        raise UserError(
            f"resume: {folder!r} is not a run folder (no {record}); give the folder that the "
            "training named when it began"
        )
    given = {word.partition("=")[0] for word in words}
    before = [str(word) for word in OmegaConf.load(record)]
    kept = [word for word in before if word.partition("=")[0] not in given]
    if "=" in str(folder):  # as in the name that a run folder gets; Hydra wants quotes around it
        words = [f"resume='{folder}'" if word == f"resume={folder}" else word for word in words]
    return [*kept, *words, f"hydra.run.dir='{folder}'"]


if __name__ == "__main__":
    main()
