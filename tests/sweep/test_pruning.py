"""Pruning: a job asks Optuna's own pruner, of a journal that it shares with the search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from omegaconf import DictConfig

from cardiomegaly import UserError, config
from cardiomegaly.sweep import ledger, search
from tests.faults import forked
from tests.faults.conftest import said

optuna = pytest.importorskip("optuna", reason="the extra [search] is not installed")
MONITOR = "val/auroc"
PRUNER = "{_target_: optuna.pruners.MedianPruner, n_startup_trials: 2, n_warmup_steps: 1}"


@pytest.fixture
def study(tmp_path: Path) -> Any:
    """Two trials that reached 0.9 and 0.8, and one that runs."""
    study = search.open_study(tmp_path / search.JOURNAL, MONITOR, seed=0)
    for value in (0.9, 0.8):
        trial = study.ask()
        for epoch in range(4):
            trial.report(value, epoch)
        study.tell(trial, value)
    study.ask()
    return study


def tell(
    composed: Callable[..., DictConfig], folder: Path, values: list[float]
) -> tuple[Any, list[bool]]:
    """Report the epochs of the running trial; whether it is stopped after each."""
    from cardiomegaly.sweep.pruning import Pruning

    words = f"sweep.pruner={PRUNER}", "sweep.trial=2"
    pruning = Pruning(folder, config.check(composed(*words)))
    stopped = []
    for epoch, value in enumerate(values):
        trainer: Any = SimpleNamespace(
            callback_metrics={MONITOR: value}, current_epoch=epoch, should_stop=False
        )
        pruning.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
        stopped.append(trainer.should_stop)
    return pruning, stopped


@pytest.mark.parametrize("values", [[0.5, 0.6, 0.7], [0.5, 0.6, 0.87], [0.95, 0.1, 0.1]])
def test_it_decides_as_optuna_does(
    composed: Callable[..., DictConfig], study: Any, tmp_path: Path, values: list[float]
) -> None:
    pruning, stopped = tell(composed, tmp_path, values)
    reference = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(2, 1))
    reference.add_trials(study.get_trials(states=[optuna.trial.TrialState.COMPLETE]))
    trial, expected = reference.ask(), []
    for epoch, value in enumerate(values):
        trial.report(value, epoch)
        expected.append(trial.should_prune())
    assert stopped == expected
    assert study.trials[2].intermediate_values == dict(enumerate(values))
    trainer: Any = SimpleNamespace(should_stop=False)
    pruning.on_fit_start(trainer, None)
    assert trainer.should_stop == any(expected)  # and so a trial that is resumed


def test_an_epoch_that_is_trained_again_is_told_once(
    composed: Callable[..., DictConfig], study: Any, tmp_path: Path
) -> None:
    tell(composed, tmp_path, [0.9, 0.9])
    tell(composed, tmp_path, [0.9, 0.9, float("nan")])  # an undefined one is not told
    assert study.trials[2].intermediate_values == {0: 0.9, 1: 0.9}


def test_what_is_no_pruner_is_one_line(
    composed: Callable[..., DictConfig], study: Any, tmp_path: Path
) -> None:
    from cardiomegaly.sweep.pruning import Pruning

    words = "sweep.pruner={_target_: optuna.samplers.TPESampler}", "sweep.trial=2"
    with pytest.raises(UserError, match=r"sweep\.pruner\._target_: .* must be a class of optuna"):
        Pruning(tmp_path, config.check(composed(*words)))


@pytest.mark.slow
def test_a_search_is_pruned_killed_and_gone_on_with(phantom_root: Path, tmp_path: Path) -> None:
    """Killed in its third trial; trials that hardly learn end early, and count as trials."""
    pruner = ("sweep.pruner.n_startup_trials=1", "sweep.pruner.n_warmup_steps=1")
    space = ("trainer.learning_rate=choice(1e-9,3e-3)", "head.dropout=0.1", "head.hidden=16")
    words = [
        "-m", *forked.TINY, "+experiment=search", f"data.root={phantom_root}", "augment=none",
        "features=reuse", "trainer.max_epochs=8", "trainer.monitor=val/loss", *space, *pruner,
        "hydra.sweeper.trials=6", "hydra.sweep.dir=sweep", "seed=range(1,100)",
    ]  # fmt: skip
    place = ("cardiomegaly.training.module", "CardiomegalyModule.training_step", 2 * 64 + 30)
    assert forked.run(words, tmp_path, place) < 0, said(tmp_path)
    assert forked.run(["-m", "sweep.resume=sweep"], tmp_path) == 0, said(tmp_path)
    study = search.open_study(tmp_path / "sweep" / search.JOURNAL, "val/loss", 0)
    states = [trial.state.name for trial in study.trials]
    assert len(states) == 6
    assert set(states) == {"COMPLETE", "PRUNED"}
    entries = {entry.number: entry for entry in ledger.read_entries(tmp_path / "sweep")}
    for trial in study.trials:
        entry = entries[trial.number]
        history = pd.read_csv(tmp_path / "sweep" / entry.job / "history.csv")
        assert entry.status == "done"
        assert trial.intermediate_values == dict(enumerate(history["val/loss"]))
        assert (len(history) < 8) == (trial.state.name == "PRUNED")
