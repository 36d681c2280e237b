"""The plan of a sweep: names of jobs, and what is refused before the first of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from cardiomegaly import UserError, config
from cardiomegaly.sweep.plan import check_startable, job_name, plain
from cardiomegaly.training.resume import SWEEP
from tests.sweep.conftest import FIRST, SEEDS, Fake

Compose = Callable[..., DictConfig]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ["trainer.max_epoch=2"],
            2,
            "trainer has no 'max_epoch' .did you mean 'max_epochs'",
        ),
        (["backbone=resnet151,mobilenetv1"], 2, "error: backbone has no 'resnet151' .did you mean"),
        (["trainer.monitor=auroc"], 2, r"error: trainer.monitor: .* \(job backbone-mobilenetv1"),
        (["balance=perhaps,true"], 2, "error: balance: .*perhaps"),
        (["trainer.devices=2"], 2, "error: trainer.devices: must be 1 in a sweep, got 2"),
        (["data.root=absent"], 2, "error: data.root: no folder 'absent'"),
        (["backbone.weights=absent.pt"], 2, "error: backbone.weights=absent.pt: .*no such file"),
        (["sweep.name=a/b"], 2, "error: sweep.name: must be the plain name of a folder, got 'a/b'"),
        (["backbone.weights=a/x,b/x"], 2, "error: two jobs of the sweep would be called"),
        (["sweep.resume=absent"], 2, "error: sweep.resume: 'absent' is not the folder of a sweep"),
    ],
)
def test_a_common_mistake_is_refused_before_anything_starts(
    sweep: Callable[..., int],
    fake: Fake,
    words: list[str],
    code: int,
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert sweep(*SEEDS[:2], *words) == code
    err = capfd.readouterr().err
    assert re.search(message, err, flags=re.DOTALL), err
    assert "Traceback" not in err
    assert not fake.trained
    assert not list(Path().rglob("ledger"))


@pytest.mark.usefixtures("no_report")
def test_some_weights_are_absent(sweep: Callable[..., int], fake: Fake) -> None:
    assert sweep("backbone=mobilenetv1", "backbone.weights=none,absent.pt") == 0
    assert len(fake.trained) == 2  # the training itself says that there is no such file


@pytest.mark.usefixtures("no_report")
def test_a_job_that_was_begun_is_not_run_with_other_settings(
    sweep: Callable[..., int], fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(*SEEDS) == 0
    assert sweep(*SEEDS, "trainer.max_epochs=7") == 2
    assert "begun with trainer.max_epochs=1, now it is 7: give the sw" in capsys.readouterr().err
    assert sweep(*SEEDS, "data.workers=1") == 0  # how, not what
    assert len(fake.trained) == 3
    (FIRST / SWEEP).write_text("{")
    assert sweep("sweep.resume=outputs/sweeps/first") == 2
    assert "sweep.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "overrides", "name"),
    [
        (["seed"], ["seed=1", "balance=True", "backbone=resnet50", "data.root=/x"],
         "backbone-resnet50_balance-True_seed-1"),
        (["step"], ["+step=gap", "+experiment=ablation"], "step-gap"),
        (["backbone.weights"], ["backbone.weights=/data/a=b/google v1.pt"],
         "backbone.weights-google-v1.pt"),
        (["trainer.learning_rate"], ["trainer.learning_rate=0.001"], "trainer.learning_rate-0.001"),
        ([], ["data=phantom"], "run"),
    ],
)  # fmt: skip
def test_job_names(keys: list[str], overrides: list[str], name: str) -> None:
    assert job_name(keys, overrides) == name
    assert job_name(keys, reversed(overrides)) == name


def test_long_names_stay_apart() -> None:
    names = {job_name(["split.fractions"], [f"split.fractions={'9' * 300}{i}"]) for i in range(2)}
    assert len(names) == 2
    assert max(map(len, names)) < 140


def test_a_name_needs_no_quotes() -> None:
    name = job_name(["a.b"], ["backbone=hf_hub:x/y z", "balance=True", "a.b=[1,$2,'ü']"])
    assert name == "backbone-y-z_balance-True_a.b--1--2-----"
    assert plain(name) == name


def test_data_are_looked_at_before_weights_and_both_are_named(composed: Compose) -> None:
    words = ["data.root=absent", "backbone.weights=absent.pt"]
    with pytest.raises(UserError, match=r"data.root: no folder .*; and backbone.weights=absent.pt"):
        check_startable([config.check(composed(*words))])
    check_startable([config.check(composed(*words)), config.check(composed())])  # one can be run
