"""Before the first job of a sweep: what is to be run, how it is called, and whether it can be."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from cardiomegaly import UserError
from cardiomegaly import config as configuration
from cardiomegaly.config import Config, DataConfig
from cardiomegaly.sweep import ledger
from cardiomegaly.sweep.ledger import Entry
from cardiomegaly.training.resume import check_unchanged, key_of

if TYPE_CHECKING:
    from cardiomegaly.data.labels import LabelledImages

NAMING = ("backbone", "balance")  # first in a job's name, whether swept over or not
LONGEST = 120  # characters of a name
OTHER_SETTINGS = "give the sweep another sweep.name, or delete that folder to run the job again"


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


def plain(text: str) -> str:
    """A text as part of a folder's name that needs no quotes in a shell or in Hydra."""
    return "".join(c if (c.isascii() and c.isalnum()) or c in "-._" else "-" for c in text)


def job_name(keys: Iterable[str], overrides: Iterable[str]) -> str:
    """The name of a job, and of its run folder: what it sets of `keys`.

    Example: `backbone-mobilenetv1_balance-True_seed-1`.
    """
    given = {key_of(word): word.partition("=")[2] for word in overrides}
    order = [*NAMING, *sorted(set(keys) - set(NAMING))]
    words = [f"{key}-{given[key].rpartition('/')[2]}" for key in order if key in given]
    name = plain("_".join(words)) or "run"
    if len(name) <= LONGEST:
        return name
    return f"{name[:LONGEST]}-{sha256(name.encode()).hexdigest()[:8]}"


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
            check_unchanged(folder / name, composed, OTHER_SETTINGS)
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
    except UserError as error:
        raise UserError(f"{error} (job {name})") from error
    return config


def check_startable(configs: Sequence[Config]) -> None:
    """Look for labels and weights (and download them) before the first run starts.

    Raises:
        UserError: none of the runs could be made; names what is wrong with their data and with
            their weights. What is wrong with some only does not keep the others from running.
    """
    missing = [mistakes for config in configs if (mistakes := _missing(config))]
    if missing and len(missing) == len(configs):
        raise UserError("; and ".join(missing[0]))


def _missing(config: Config) -> list[str]:
    data, backbone = config.data, config.backbone
    looks = []
    if data.phantom is None:
        looks.append(_look_at_data(json.dumps(asdict(data)))[1])
    if config.init.run is not None:
        looks.append(_look_at_run(config.init.run))
    if config.init.backbone_from is None and (
        data.phantom is None or not data.phantom.random_weights
    ):
        looks.append(_look_at_weights(backbone.model, backbone.weights))
    return [mistake for mistake in looks if mistake]


def checked_images(data: DataConfig) -> LabelledImages | None:
    """The images as they were found before the start; None for those that are yet to be made."""
    return _look_at_data(json.dumps(asdict(data)))[0] if data.phantom is None else None


@cache
def _look_at_data(data: str) -> tuple[LabelledImages | None, str]:
    from cardiomegaly.data.labels import load_labelled_images

    try:
        return load_labelled_images(configuration.data_of(json.loads(data))), ""
    except UserError as mistake:
        return None, str(mistake)


def _look_at_run(run: str) -> str:
    from cardiomegaly.training.record import checkpoint_of

    try:
        checkpoint_of(run)
    except UserError as mistake:
        return str(mistake)
    return ""


@cache
def _look_at_weights(model: str, weights: str) -> str:
    if weights == "none":
        return ""
    # torch and timm take seconds
    from cardiomegaly.data.download import download
    from cardiomegaly.model.weights import obtain

    try:
        obtain(model, weights, download)
    except UserError as mistake:
        return str(mistake)
    return ""
