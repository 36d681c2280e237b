"""A search with Optuna (`+experiment=search`): each trial is a job of a sweep.

Hydra's own Optuna sweeper holds Optuna below version 3, whose storage does not work with a current
SQLAlchemy, so that a search could not be resumed. This one asks a current Optuna. Every trial is a
job like any other: any launcher runs it, and the ledger knows it. Optuna's own record, a journal in
the sweep's folder, lets a search go on where it was interrupted; what the jobs tell it of their
epochs (`sweep.pruning`) ends those that are hopeless.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from cardiomegaly import UserError

if TYPE_CHECKING:  # an extra of the installation
    from optuna.distributions import BaseDistribution
    from optuna.storages.journal import JournalStorage
    from optuna.study import Study

JOURNAL = "search.journal"
PRUNED = "pruned"  # an attribute of a trial
BEST = "best.yaml"
Trial = tuple[int, dict[str, Any]]  # its number and what Optuna chose


def search(
    config: DictConfig, words: list[str], launcher: Launcher, trials: int, at_once: int, seed: int
) -> dict[str, Any] | None:
    """Run the trials that are missing; write the best one's words to best.yaml.

    Args:
        config: of the sweep.
        words: Hydra's; those with an interval or several values make the space.
        launcher: runs jobs.
        trials: how many, those of earlier starts included, those that failed left out.
        at_once: trials that are chosen together and launched together.
        seed: of the choice.

    Returns:
        What was best; None if no trial has succeeded.

    Raises:
        UserError: the journal holds a trial that is not of this space.
    """
    from optuna.trial import TrialState

    last = {word.key_or_group: word for word in OverridesParser.create().parse_overrides(words)}
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
    folder, monitor = Path(config.hydra.sweep.dir), config.trainer.monitor
    study = open_study(folder / JOURNAL, monitor, seed)
    waiting = interrupted(study, space, folder / JOURNAL)
    ended = [TrialState.COMPLETE, TrialState.PRUNED]
    done = len(study.get_trials(states=ended, deepcopy=False))
    for begun in range(0, trials - done, at_once):
        size = min(at_once, trials - done - begun)
        batch, waiting = waiting[:size], waiting[size:]
        while len(batch) < size:
            trial = study.ask(space)
            batch.append((trial.number, trial.params))
        _launch(study, launcher, batch, fixed)
    return best(study, monitor, folder / BEST)


def interrupted(study: Study, space: Mapping[str, BaseDistribution], journal: Path) -> list[Trial]:
    """The trials that were begun and not ended; what a journal holds is data, and of this space.

    Raises:
        UserError: a trial has another key or a value outside its range.
    """
    from optuna.trial import TrialState

    trials = study.get_trials(states=[TrialState.RUNNING], deepcopy=False)
    for trial in trials:
        for key, value in trial.params.items():
            if key not in space or not space[key]._contains(space[key].to_internal_repr(value)):
                raise UserError(
                    f"{journal}: trial {trial.number} has {key}={value}, which is not of this "
                    "search; give another sweep.name"
                )
    return [(trial.number, trial.params) for trial in trials]


def _launch(study: Study, launcher: Launcher, batch: list[Trial], fixed: list[str]) -> None:
    from optuna.trial import TrialState

    jobs = [[*fixed, *words_of(params), f"sweep.trial={number}"] for number, params in batch]
    results = launcher.launch(jobs, initial_job_idx=batch[0][0])
    for (number, _), result in zip(batch, results, strict=True):
        value = result.return_value
        if value is None or math.isnan(value):
            study.tell(number, state=TrialState.FAIL)
        elif study.get_trials(deepcopy=False)[number].user_attrs.get(PRUNED):
            study.tell(number, state=TrialState.PRUNED)
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


def journal_storage(journal: Path) -> JournalStorage:
    """Optuna's record in a file, which several processes may write."""
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    return JournalStorage(JournalFileBackend(str(journal)))


def open_study(journal: Path, monitor: str, seed: int) -> Study:
    """The search that the journal records, or a new one."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=monitor,
        storage=journal_storage(journal),
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
