"""Train and test one configuration, or with -m a sweep of them."""

from __future__ import annotations

import logging
import math
import os
import re
import shlex
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cardiomegaly import UserError, cli, config
from cardiomegaly.training import resume

if TYPE_CHECKING:
    from cardiomegaly.data.labels import LabelledImages

# What takes seconds to import (torch, Lightning, timm) is imported where a run begins, not here.
log = logging.getLogger(__name__)
OTHER_SETTINGS = "a run goes on with what it was begun with; begin another for other settings"
FIRST_FILES = {".hydra", resume.LOCK, "train.log"}  # what a run begins with


@hydra.main(
    version_base=cli.HYDRA_VERSION, config_path=str(config.CONF_DIR.resolve()), config_name="config"
)
def run(cfg: DictConfig) -> float:
    """Train one configuration in the folder that Hydra made for it."""
    from cardiomegaly.sweep import job, plan

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    try:
        from cardiomegaly.training.files import write_text

        if hydra_config.output_subdir is not None:  # without: not the first process of the run
            # As it is now, whatever becomes of the environment that it came from.
            write_text(folder / resume.CONFIG, OmegaConf.to_yaml(cfg, resolve=True))
        if hydra_config.mode == RunMode.MULTIRUN:
            return job.run(cfg, train_and_report)
        settings = config.check(cfg)
        return train_and_report(settings, folder, plan.checked_images(settings.data))
    except UserError as mistake:
        leave_nothing(folder)
        sys.exit(cli.refuse(mistake))
    except BaseException as error:
        code = job.interruption(error)
        if code is None or hydra_config.mode == RunMode.MULTIRUN:
            raise
        words = shlex.quote(f"resume={folder}")
        log.warning("interrupted; to go on: python -m cardiomegaly.train %s", words)
        sys.exit(code)


def train_and_report(
    settings: config.Config, folder: Path, images: LabelledImages | None = None
) -> float:
    """Train, draw the plots, print the closing table.

    Args:
        settings: of the run.
        folder: of the run.
        images: as `training.run.train` takes them.

    Returns:
        The best value of the monitored metric on the validation part; nan in all but the first
        process of a distributed training.
    """
    from cardiomegaly.reports import run_report
    from cardiomegaly.training.begun import alone
    from cardiomegaly.training.files import full_disk_in_one_line
    from cardiomegaly.training.run import train

    callbacks = []
    if settings.sweep.trial is not None and settings.sweep.pruner is not None:
        from cardiomegaly.sweep.pruning import Pruning

        callbacks.append(Pruning(folder.parent, settings))
    with full_disk_in_one_line(folder), alone(folder):
        trained = train(settings, folder, callbacks, images)
        if trained is None:
            return math.nan
        run_report.write(trained)
    return float(trained.record.meta["best_value"])


def main() -> None:
    """The command."""
    try:
        sys.argv[1:] = arguments(sys.argv[1:])
    except UserError as mistake:
        sys.exit(cli.refuse(mistake))
    if "SLURM_JOB_ID" not in os.environ:  # where Lightning and submitit have handlers of their own
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    logging.raiseExceptions = False  # a full disk is told once, not at every line of the log
    try:
        run()
    except SystemExit as end:
        from cardiomegaly.sweep import callback

        if end.code == callback.FAILURE and callback.SweepCallback.begun is not None:
            callback.finish(callback.SweepCallback.begun)  # the launcher broke down
        raise


def arguments(argv: list[str]) -> list[str]:
    """Flags and words of the command as Hydra wants them, checked.

    Raises:
        UserError: a word is wrong, or the data are not there.
    """
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    args = parser.parse_intermixed_args(argv)
    if args.help or args.hydra_help or args.shell_completion or args.info is not None:
        cli.end_with_reader()
        return argv
    flags = [word for word in argv if word not in args.overrides]
    given = spell_out(cli.read_words(args.overrides))
    words = resume.resume_words(resume.sweep_words(given))
    if not (args.config_dir or args.config_path or args.config_name or args.experimental_rerun):
        check(words, bool(args.multirun), will_run=args.cfg is None)
    return [*flags, *words]


def spell_out(words: list[str]) -> list[str]:
    """Words with `head._target_=CLASS` and the like, `init=RUN` and `augment=FILE.yaml` in full.

    Of the options of the default's class none is left: the group begins empty (`head=own`).
    """
    short = {r"^init=": "init.run=", r"^\+schedule=": "schedule="}
    for pattern, full in short.items():
        words = [re.sub(pattern, full, word) for word in words]
    files = [word for word in words if re.fullmatch(r"augment=.*\.ya?ml'?", word)]
    if files:
        path = resume.quoted(str(Path(resume.value_of(files[-1])).expanduser().absolute()))
        rest = [word for word in words if word not in files]
        words = [*rest, "augment=pipeline", f"augment.file={path}"]
    keys = {resume.key_of(word) for word in words}
    own = [field for field in config.TRUSTED if f"{field}._target_" in keys and field not in keys]
    return [f"{field}=own" for field in own] + [
        f"++{word}" if word.partition(".")[0] in own else word for word in words
    ]


def check(words: list[str], multirun: bool, will_run: bool) -> None:
    """Check the words, and for a single run all that can be checked at once.

    Raises:
        UserError: a key, choice or value is wrong, a resumed run was begun with another, or the
            data are not there.
    """
    master = cli.compose(config.CONF_DIR, words, RunMode.MULTIRUN)
    if multirun or master.hydra.mode == RunMode.MULTIRUN:
        if master.resume is not None:
            raise UserError("resume: is for one run; sweep.resume=FOLDER goes on with a sweep")
        return  # the sweep checks each of its jobs
    composed = cli.compose(config.CONF_DIR, words)
    if not will_run:
        return
    settings = config.check(composed)
    if settings.resume is not None:
        longer = not settings.schedule  # which may go by the whole length
        resume.check_unchanged(Path(settings.resume), composed, OTHER_SETTINGS, longer)
    from cardiomegaly.sweep.callback import check_startable  # which knows how folders are named

    check_startable([settings])
    from cardiomegaly.training.files import check_writable

    check_writable(Path(composed.hydra.run.dir), "hydra.run.dir")


def leave_nothing(folder: Path) -> None:
    """Remove the folder of a run that ended by a mistake before it did anything."""
    from cardiomegaly.sweep.ledger import is_locked

    begun = {path.name for path in folder.iterdir()} - FIRST_FILES
    if begun or is_locked(folder / resume.LOCK):  # perhaps by another process
        return
    for handler in logging.getLogger().handlers:  # or the log could not be removed everywhere
        if isinstance(handler, logging.FileHandler):
            handler.close()
    shutil.rmtree(folder)
    with suppress(OSError):  # not empty
        for parent in folder.parents:
            if parent == Path.cwd() or not parent.is_relative_to(Path.cwd()):
                break
            parent.rmdir()


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message} (--help)")


if __name__ == "__main__":
    main()
