"""Trainings of 2 seconds, and one of them that nobody disturbs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import forked


@pytest.fixture(scope="session")
def tiny(phantom_root: Path) -> list[str]:
    """Words of a training that reuses features, in whatever folder it is started."""
    return [*forked.TINY, f"data.root={phantom_root}", "features=reuse", "trainer.max_epochs=4"]


@pytest.fixture(scope="session")
def undisturbed(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The predictions of that training."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert forked.run([*tiny, "hydra.run.dir=run"], folder) == 0, said(folder)
    return (folder / "run" / "predictions.csv").read_bytes()


def said(folder: Path) -> str:
    """All that the commands started in a folder have written."""
    return (folder / "output.txt").read_text()
