"""Around the jobs of a sweep: it grows under its name, is reported, and is taken up by it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import pandas as pd
import pytest

from cardiomegaly import report
from cardiomegaly.training.resume import SWEEP
from tests.sweep.conftest import FIRST, SEEDS, Fake, statuses


@pytest.mark.slow
def test_a_sweep_grows_under_its_name(sweep: Callable[..., int], fake: Fake) -> None:
    assert sweep("backbone=mobilenetv1", "balance=true,false", "sweep.name=first") == 0
    assert sweep("backbone=mobilenetv1,resnet50", "balance=true", "sweep.name=first") == 0
    assert len(fake.trained) == 3
    assert sweep("backbone=mobilenetv1", "balance=true", "seed=1,2", "sweep.name=first") == 0
    assert len(fake.trained) == len(statuses(FIRST)) == 5
    assert pd.read_csv(FIRST / "summary.csv").shape[0] == 5


def test_the_report_command_reads_the_ledger(sweep: Callable[..., int], fake: Fake) -> None:
    fake.trouble = {2: KeyboardInterrupt()}
    sweep(*SEEDS)
    shutil.rmtree(FIRST / "backbone-mobilenetv1_seed-2")
    assert report.main([f"sweep={FIRST}"]) == 0
    text = (FIRST / "summary.md").read_text()
    assert "starting the same sweep again goes on from its last checkpoint" in text
    assert "2 of 3 jobs are not finished" in text
    assert json.loads((FIRST / SWEEP).read_text())["keys"][-1] == "seed"
