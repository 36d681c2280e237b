"""One job of a sweep: locked, recorded, resumed where it was interrupted, never in others' way."""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import multiprocessing
import os
import platform
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from cardiomegaly import UserError
from cardiomegaly import config as configuration
from cardiomegaly.config import Config
from cardiomegaly.sweep import ledger
from cardiomegaly.sweep.ledger import Entry
from cardiomegaly.training.resume import settings

log = logging.getLogger(__name__)
FAILURE = 1  # exit code of a sweep with jobs that are not done
UNKNOWN = math.nan  # the objective of a job that did not finish
CHECKPOINTS = "checkpoints"
_kept = ExitStack()  # the lock on this process's GPU, held as long as the process lives


def run(cfg: DictConfig, train: Callable[[Config, Path], float]) -> float:
    """Run the job that Hydra has made a folder for, unless it is done or another process runs it.

    Nothing but an interruption leaves this function as an exception: the other jobs go on.

    Args:
        cfg: the job's configuration.
        train: trains a configuration in a folder and returns the objective.

    Returns:
        The objective; nan if the job failed or runs elsewhere.
    """
    hydra = HydraConfig.get()
    sweep, folder = Path(hydra.sweep.dir).absolute(), Path(hydra.runtime.output_dir)
    job = str(folder.relative_to(sweep))
    with ledger.locked(ledger.job_lock(sweep, job)) as mine:
        if not mine:
            log.info("another process runs %s", job)
            return UNKNOWN
        known = ledger.read_entry(sweep, job, mine=True)
        entry = known or Entry(job, hydra.job.num, ledger.PLANNED)
        if entry.status == ledger.DONE:
            log.info("%s was done before", job)
            return UNKNOWN if entry.objective is None else entry.objective
        overrides = list(hydra.overrides.task)
        resumed = _prepare(entry, folder, overrides)
        entry.overrides = overrides
        return _attempt(sweep, ledger.begin(entry, resumed), folder, cfg, train)


def _attempt(
    sweep: Path, entry: Entry, folder: Path, cfg: DictConfig, train: Callable[[Config, Path], float]
) -> float:
    ledger.write_entry(sweep, entry)
    if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
        # joblib's own way, in its processes, starts no loader processes
        multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    reset_peak_memory()
    try:
        config = configuration.check(cfg)
        config.resume = str(folder) if entry.resumed else None
        share_gpus(sweep, config)
        entry.objective = train(config, folder)
        entry.status = ledger.DONE
    except BaseException as error:
        code = interruption(error)
        if code is not None:
            entry.status = ledger.INTERRUPTED
            log.warning("interrupted; to go on: %s", ledger.how_to_go_on(sweep))
            raise SystemExit(code) from None
        entry.status, entry.error = ledger.FAILED, message(error)
        entry.traceback = traceback.format_exc()
        expected = isinstance(error, UserError)
        log.error("%s failed: %s", entry.job, entry.error, exc_info=not expected)
        if cfg.sweep.fail_fast:
            raise SystemExit(FAILURE) from None
    finally:
        entry.finished = ledger.now()
        ledger.write_entry(sweep, entry)
        free_memory()
    return UNKNOWN if entry.objective is None else entry.objective


def _prepare(entry: Entry, folder: Path, overrides: list[str]) -> bool:
    """Whether the job goes on from its last checkpoint; if not, clear away what there is.

    A job that failed goes on too, but not with other settings, and not if it failed when it last
    went on: its checkpoint may be what is wrong.
    """
    changed = settings(entry.overrides) != settings(overrides)
    afresh = entry.status == ledger.FAILED and (entry.resumed or changed)
    last = folder / CHECKPOINTS / "last.ckpt"
    if last.is_file() and not afresh:
        log.info("%s goes on from %s", entry.job, last)
        return True
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return False


def message(error: BaseException) -> str:
    """An error in one line, with its class unless it is a user's mistake."""
    text = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, UserError) and text:
        return text
    return f"{type(error).__name__}: {text}".removesuffix(": ")


def interruption(error: BaseException) -> int | None:
    """The exit code after Ctrl-C or SIGTERM, which are for the whole sweep; None for the rest."""
    for one in (error, error.__context__):  # Lightning turns Ctrl-C into an exit
        if isinstance(one, KeyboardInterrupt):
            return 128 + signal.SIGINT
        lightning = type(one).__name__ == "SIGTERMException"  # its import takes seconds
        if lightning or (isinstance(one, SystemExit) and one.code == 128 + signal.SIGTERM):
            return 128 + signal.SIGTERM
    return None


def share_gpus(sweep: Path, config: Config) -> None:
    """Give this process a GPU that no other process of the sweep has, where there are several.

    The first job decides, before CUDA is started; later jobs of the process stay on its GPU.
    """
    if config.trainer.accelerator == "cpu" or config.trainer.devices != 1:
        return
    import torch

    if torch.cuda.is_initialized() or torch.cuda.device_count() < 2:
        return
    named = os.environ.get("CUDA_VISIBLE_DEVICES") or ""
    visible = named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]
    os.environ["CUDA_VISIBLE_DEVICES"] = choose_gpu(visible, sweep, os.getpid())


def choose_gpu(visible: Iterable[str], sweep: Path, process: int) -> str:
    """The first of the visible GPUs of this host that is free, and its lock; else one by number."""
    visible = list(visible)
    for gpu in visible:
        lock = sweep / ledger.LEDGER / f"gpu-{platform.node()}-{gpu}.lock"
        with ExitStack() as stack:
            if stack.enter_context(ledger.locked(lock)):
                _kept.push(stack.pop_all())
                return gpu
    return visible[process % len(visible)]


def free_memory() -> None:
    """Give back what a job leaves behind, so that the next has as much."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps freed memory otherwise
        if trim is not None:
            trim(0)


def reset_peak_memory() -> None:
    """Let the peak that a job records be its own, where the system can do that."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    if sys.platform == "linux":
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
