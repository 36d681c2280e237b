"""Before the first job of a sweep: what is to be run, and whether it can be."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from cardiomegaly import UserError
from cardiomegaly import config as configuration
from cardiomegaly.config import Config
from cardiomegaly.data.download import download
from cardiomegaly.data.labels import load_labelled_images
from cardiomegaly.model.weights import obtain
from cardiomegaly.sweep import ledger
from cardiomegaly.sweep.identity import check_unchanged, job_name
from cardiomegaly.sweep.ledger import Entry


@dataclass
class Jobs:
    """What a sweep consists of.

    Attributes:
        overrides: the words of every job; of one for trial, where the jobs are chosen on the way.
        keys: what the sweep varies.
        known: whether `overrides` are the jobs.
    """

    overrides: list[list[str]]
    keys: list[str]
    known: bool


@dataclass
class Planned:
    """A job of the sweep: its configuration and what the ledger knows of it."""

    config: Config
    entry: Entry


def expand(config: DictConfig) -> Jobs:
    """The jobs of a sweep, as Hydra's own sweeper makes them of its parameters and words."""
    params = config.hydra.sweeper.get("params") or {}
    words = [f"{key}={value}" for key, value in params.items()]
    words += list(config.hydra.overrides.task)
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    last = {word.key_or_group: word for word in parser.parse_overrides(words)}
    keys = [key for key, word in last.items() if word.is_sweep_override()]
    if config.hydra.sweeper._target_.endswith(f".{BasicSweeper.__name__}"):
        batches = BasicSweeper.split_arguments(list(last.values()), None)
        return Jobs(batches[0], keys, known=True)
    return Jobs([[_one(word) for word in last.values()]], keys, known=False)


def _one(word: Override) -> str:
    """A word of a search with one of its values, the first."""
    if not word.is_sweep_override():
        return f"{word.get_key_element()}={word.get_value_element_as_str()}"
    if word.is_interval_sweep():
        return f"{word.get_key_element()}={word.value().start}"  # type: ignore[union-attr]
    return f"{word.get_key_element()}={next(word.sweep_string_iterator())}"


def plan(master: DictConfig, folder: Path, jobs: list[list[str]], keys: list[str]) -> list[Planned]:
    """Compose and check every job.

    Raises:
        UserError: a job is not configured as it must be, two jobs have the same name, or a job
            was begun with other settings.
    """
    loader = GlobalHydra.instance().config_loader()
    planned: dict[str, Planned] = {}
    for number, overrides in enumerate(jobs):
        composed = loader.load_sweep_config(master, overrides)
        name = job_name(keys, overrides)
        if name in planned:
            raise UserError(
                f"two jobs of the sweep would be called {name!r}: {' '.join(overrides)} and "
                f"{' '.join(planned[name].entry.overrides)}; sweep over values whose last parts "
                "differ"
            )
        entry = ledger.read_entry(folder, name) or Entry(name, number, ledger.PLANNED)
        if entry.status not in (ledger.PLANNED, ledger.FAILED):
            check_unchanged(folder / name, composed)
        entry.number, entry.overrides = number, overrides
        planned[name] = Planned(check_job(composed, name), entry)
    return list(planned.values())


def check_job(composed: DictConfig, name: str) -> Config:
    """The configuration of a job, checked.

    Raises:
        UserError: as `config.check`, or the job wants several devices.
    """
    try:
        config = configuration.check(composed)
        devices = config.trainer.devices
        if devices != 1 and not (isinstance(devices, list) and len(devices) == 1):
            raise UserError(
                f"trainer.devices: must be 1 in a sweep, got {devices}; to use several, run "
                "several jobs at once (launcher=joblib)"
            )
    except ValueError as error:
        raise UserError(f"{error} (job {name})") from error
    return config


def check_startable(planned: list[Planned]) -> None:
    """Look for labels and weights (and download them) before the first job starts.

    Raises:
        UserError: none of the jobs could run. What is wrong with some only
            does not keep the others from running.
    """
    look_at_data, look_at_weights = cache(_look_at_data), cache(_look_at_weights)
    mistakes = []
    for job in planned:
        data, backbone = job.config.data, job.config.backbone
        seen = None if data.phantom is not None else look_at_data(data.root, data.labels)
        mistake = seen or look_at_weights(backbone.model, backbone.weights)
        if mistake is None:
            continue
        mistakes.append(mistake)
        if len(mistakes) == len(planned):
            raise mistakes[0]


def _look_at_data(root: str, labels: str | None) -> Exception | None:
    try:
        load_labelled_images(Path(root), labels)
    except UserError as mistake:
        return mistake
    return None


def _look_at_weights(model: str, weights: str) -> Exception | None:
    try:
        obtain(model, weights, download)
    except UserError as mistake:
        return mistake
    return None
