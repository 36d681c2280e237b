"""Hydra's sweeper for a search with Optuna (`+experiment=search`).

Hydra's own Optuna sweeper holds Optuna below version 3, whose storage does not work with a current
SQLAlchemy, so that a search could not be resumed. This one asks a current Optuna. Every trial is a
job like any other: any launcher runs it, and the ledger knows it. Optuna's own record, a journal in
the sweep's folder, lets a search go on where it was interrupted.

It stands in this folder because Hydra looks for sweepers in the namespace `hydra_plugins` only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:  # Hydra imports this file at every start: optuna only when it is used
    from optuna.distributions import BaseDistribution
    from optuna.study import Study

JOURNAL = "search.journal"
BEST = "best.yaml"


# The values stand in conf/experiment/search.yaml.
ConfigStore.instance().store(
    group="hydra/sweeper",
    name="search",
    node={"_target_": "hydra_plugins.cardiomegaly_search.SearchSweeper"},
    provider="cardiomegaly",
)


class SearchSweeper(Sweeper):
    """Lets Optuna (TPE) choose the jobs of a sweep by what the earlier ones reached.

    Args:
        trials: how many, those of earlier starts included, those that failed left out.
        at_once: trials that are chosen together and launched together.
        seed: of the choice.
        params: the space, in Hydra's words: `interval(0.1, 0.7)`, `tag(log, interval(1e-4, 1e-2))`,
            `choice(64, 128)`.
    """

    def __init__(self, trials: int, at_once: int, seed: int, params: dict[str, str]) -> None:
        self.trials = trials
        self.at_once = at_once
        self.seed = seed
        self.params = params

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra hands over."""
        self.config = config
        self.hydra_context = hydra_context
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the trials that are missing; write the best one's words to best.yaml."""
        words = [f"{key}={value}" for key, value in self.params.items()] + arguments
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        last = {word.key_or_group: word for word in parser.parse_overrides(words)}
        fixed = [
            f"{word.get_key_element()}={word.get_value_element_as_str()}"
            for word in last.values()
            if not word.is_sweep_override()
        ]
        space = {
            word.get_key_element(): distribution(word)
            for word in last.values()
            if word.is_sweep_override()
        }
        folder = Path(self.config.hydra.sweep.dir)
        study = open_study(folder / JOURNAL, self.config.trainer.monitor, self.seed)
        self._search(study, space, fixed)
        return best(study, self.config.trainer.monitor, folder / BEST)

    def _search(self, study: Study, space: dict[str, BaseDistribution], fixed: list[str]) -> None:
        from optuna.trial import TrialState

        interrupted = [
            (trial.number, trial.params)
            for trial in study.get_trials(states=[TrialState.RUNNING], deepcopy=False)
        ]
        done = len(study.get_trials(states=[TrialState.COMPLETE], deepcopy=False))
        for begun in range(0, self.trials - done, self.at_once):
            batch = interrupted[: min(self.at_once, self.trials - done - begun)]
            interrupted = interrupted[len(batch) :]
            while len(batch) < min(self.at_once, self.trials - done - begun):
                trial = study.ask(space)
                batch.append((trial.number, trial.params))
            self._launch(study, batch, fixed)

    def _launch(
        self, study: Study, batch: Sequence[tuple[int, dict[str, Any]]], fixed: list[str]
    ) -> None:
        from optuna.trial import TrialState

        jobs = [[*fixed, *words_of(params)] for _, params in batch]
        results = self.launcher.launch(jobs, initial_job_idx=batch[0][0])
        for (number, _), result in zip(batch, results, strict=True):
            value = result.return_value
            if value is None or math.isnan(value):
                study.tell(number, state=TrialState.FAIL)
            else:
                study.tell(number, float(value))


def distribution(word: Override) -> BaseDistribution:
    """What Optuna draws a value from: an interval, or one of a list.

    Whole numbers are drawn from an interval whose ends are whole.
    """
    from optuna import distributions

    if not word.is_interval_sweep():
        return distributions.CategoricalDistribution(list(word.sweep_string_iterator()))
    interval: Any = word.value()
    log = "log" in interval.tags
    if isinstance(interval.start, int) and isinstance(interval.end, int):
        return distributions.IntDistribution(interval.start, interval.end, log=log)
    return distributions.FloatDistribution(interval.start, interval.end, log=log)


def words_of(params: dict[str, Any]) -> list[str]:
    """What Optuna chose, in Hydra's words; four digits are enough, and keep names short."""
    return [
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in params.items()
    ]


def open_study(journal: Path, monitor: str, seed: int) -> Study:
    """The search that the journal records, or a new one."""
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=monitor,
        storage=JournalStorage(JournalFileBackend(str(journal))),
        direction="minimize" if monitor.endswith("loss") else "maximize",
        load_if_exists=True,
    )
    # Each start draws other numbers, or it would choose the first trials again.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
    return study


def best(study: Study, monitor: str, path: Path) -> dict[str, Any] | None:
    """Say which trial was best and write its words; None if none has succeeded."""
    from optuna.trial import TrialState

    if not study.get_trials(states=[TrialState.COMPLETE], deepcopy=False):
        return None
    words = words_of(study.best_params)
    OmegaConf.save(OmegaConf.create(words), path)
    print(f"\nbest {monitor}: {study.best_value:.4f} with {' '.join(words)}")
    return study.best_params
