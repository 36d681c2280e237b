"""A search: Optuna chooses the jobs, the ledger knows them, and it goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cardiomegaly import UserError
from cardiomegaly.sweep import ledger
from tests.sweep.conftest import FIRST, Fake, statuses


@pytest.mark.usefixtures("no_report")
@pytest.mark.slow
def test_search_asks_optuna_and_goes_on(
    sweep: Callable[..., int], fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    optuna = pytest.importorskip("optuna", reason="the extra [search] is not installed")
    words = ["+experiment=search", "sweep.name=first", "backbone=mobilenetv1", "seed=range(100)"]
    fake.trouble_in = {2: RuntimeError("no luck")}
    assert sweep(*words, "hydra.sweeper.trials=6") == 1
    assert len(fake.trained) == 6
    assert statuses(FIRST).count("failed") == 1
    assert f"best val/auroc: {max(_objectives()):.4f} with " in capsys.readouterr().out

    fake.trouble_in = {6: KeyboardInterrupt()}
    assert sweep("sweep.resume=outputs/sweeps/first", "hydra.sweeper.trials=9") == 130
    fake.trouble_in = {}
    assert sweep("sweep.resume=outputs/sweeps/first", "hydra.sweeper.trials=9") == 1
    assert fake.trained[7] == fake.trained[6]  # the interrupted trial first
    assert fake.resumed[7]
    assert len(fake.trained) == 6 + 1 + 9 - 5
    study = optuna.load_study(
        study_name="val/auroc",
        storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(FIRST / "search.journal"))
        ),
    )
    values = [trial.value for trial in study.trials if trial.value is not None]
    assert sorted(values) == pytest.approx(sorted(_objectives()))
    assert len((FIRST / "best.yaml").read_text().splitlines()) == 5
    assert sweep(*words, "trainer.max_epochs=3") == 2
    assert "holds a search that was begun by other words" in capsys.readouterr().err


def _objectives() -> list[float]:
    entries = ledger.read_entries(FIRST)
    return [entry.objective for entry in entries if entry.objective is not None]


def test_a_journal_is_data_of_its_own_search(sweep: Callable[..., int], fake: Fake) -> None:
    """A trial of a stranger's journal cannot bring other words into the sweep."""
    optuna = pytest.importorskip("optuna", reason="the extra [search] is not installed")
    from cardiomegaly.sweep import search

    study = search.open_study(FIRST / search.JOURNAL, "val/auroc", seed=0)
    space = {"head.dropout": optuna.distributions.FloatDistribution(0.2, 0.7)}
    study.ask(space)
    assert len(search.interrupted(study, space, FIRST)) == 1
    hostile = optuna.distributions.CategoricalDistribution(["os.system"])
    study.ask({"hydra.callbacks.x._target_": hostile})
    with pytest.raises(UserError, match="trial 1 has hydra.callbacks.x._target_=os.system, which"):
        search.interrupted(study, space, FIRST)
    narrower = {"head.dropout": optuna.distributions.FloatDistribution(0.9, 0.95)}
    with pytest.raises(UserError, match="trial 0 has head.dropout"):
        search.interrupted(study, narrower, FIRST)
