"""The figures that plots save, to be looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved, which are saved all the same."""
    figures: list[Figure] = []
    original = Figure.savefig

    def savefig(figure: Figure, path: Path | str, **options: Any) -> None:
        figures.append(figure)
        original(figure, path, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures
