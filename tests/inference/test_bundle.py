"""A bundle is the run's model; what is wrong with one is one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

import cardiomegaly
from cardiomegaly import UserError, export


@pytest.fixture(scope="module")
def bundle(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    assert export.main([f"run={trained_run}", "format=bundle", f"output={folder}"]) == 0
    return folder


def test_a_bundle_is_the_runs_model(bundle: Path, trained_run: Path, phantom_root: Path) -> None:
    own, theirs = (cardiomegaly.load(one) for one in (trained_run, bundle))
    tables = [detector.predict(phantom_root / "images") for detector in (own, theirs)]
    np.testing.assert_array_equal(tables[0].to_numpy(), tables[1].to_numpy())
    assert own.models[0].metadata == theirs.models[0].metadata
    assert export.main([f"run={bundle}", "check=true"]) == 0
    assert {path.name for path in bundle.iterdir()} == {
        "README.md", "config.json", "model.safetensors", "reference_outputs.csv", "refusal.npz",
    }  # fmt: skip


def test_a_colleague_may_read_all_of_it(bundle: Path) -> None:
    """By the system's own rule for new files, whatever the libraries that write them think."""
    (bundle.parent / "new").touch()
    allowed = {path.stat().st_mode for path in [bundle.parent / "new", *bundle.iterdir()]}
    assert len(allowed) == 1


def test_the_card_has_hugging_faces_form(bundle: Path, trained_run: Path) -> None:
    card = (bundle / "README.md").read_text()
    assert card == (trained_run / "MODEL_CARD.md").read_text()
    assert ModelCard(card).data.license == "mit"  # the Hub's own reading of the head
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "mit" and "radiology" in front["tags"]
    for title in ("Data", "Figures", "Subgroups", "Calibration", "Unfit", "load it", "must not"):
        assert f"{title}" in card
    assert "| AUROC |" in card and " to " in card and "cardiomegaly.load(" in card


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "is no readable bundle"),
        ("config.json", "[]", "is no readable bundle"),
        ("model.safetensors", "hello", "is no readable bundle"),
        ("refusal.npz", "hello", "refusal.npz holds no readable statistics"),
    ],
)
def test_a_damaged_bundle_is_named(
    bundle: Path, tmp_path: Path, name: str, content: str, message: str
) -> None:
    damaged = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    (damaged / name).write_text(content)
    with pytest.raises(UserError, match=message):
        cardiomegaly.load(damaged)


def test_a_bundle_builds_nothing_strange(bundle: Path, tmp_path: Path) -> None:
    hostile = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    config = json.loads((hostile / "config.json").read_text())
    config["hyper_parameters"]["head"]["_target_"] = "os.system"
    (hostile / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"head\._target_: 'os.system' is none of this program's"):
        cardiomegaly.load(hostile)
