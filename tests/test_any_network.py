"""A transformer goes the whole way: features kept, trained, exported, predicted, explained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cardiomegaly import explain, export, predict
from cardiomegaly.training.record import read_run

Train = Callable[..., Path]
WORDS = ("backbone=timm", "averaging=ema", "averaging.decay=0.5", "schedule=cosine", "loss=focal")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["test_vit", "swin_tiny_patch4_window7_224"])
def test_the_whole_way(
    trained: Train,
    phantom_root: Path,
    tmp_path: Path,
    model: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = (*WORDS, f"backbone.model={model}", "trainer.max_epochs=2")
    run = read_run(trained(tmp_path / "run", *words, "features=reuse", "augment=none"))
    assert (run.meta["backbone"], run.meta["features"]) == (model, "reuse")
    assert run.meta["averaging"]["decay"] == 0.5
    live = read_run(trained(tmp_path / "live", *words, "features=live", "augment=none"))
    np.testing.assert_allclose(run.predictions["logit"], live.predictions["logit"], atol=0.05)
    images = str(phantom_root / "images")
    tables = []
    assert export.main([f"run={run.folder}", "format=onnx", f"output={tmp_path / 'out'}"]) == 0
    for number, source in enumerate((run.folder, tmp_path / "out" / "model.onnx")):
        table = tmp_path / f"{number}.csv"
        assert predict.main([f"model={source}", f"input={images}", f"output={table}"]) == 0
        tables.append(pd.read_csv(table))
    np.testing.assert_allclose(tables[0]["probability"], tables[1]["probability"], atol=1e-4)
    words = (f"model={run.folder}", f"input={images}", f"output={tmp_path / 'maps'}")
    assert explain.main([*words]) == 0
    assert len(list((tmp_path / "maps").rglob("*.png"))) > 0
