"""The worked examples of CONTRIBUTING.md, made in a copy of the project and run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from cardiomegaly.config import read_data
from cardiomegaly.data.labels import load_labelled_images
from tests import words

TOP = words.repository()
COPIED = ("cardiomegaly", "conf", "hydra_plugins")
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
PROSE = (TOP / "CONTRIBUTING.md").read_text().partition("## Worked examples")[2]
EXAMPLES = dict(re.findall(r"^### (.+?)\n(.*?)(?=^##)", PROSE, re.DOTALL | re.MULTILINE))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what runs."""
    for name in COPIED:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(TOP / name, tmp_path / name, ignore=ignore)
    return tmp_path


def make(example: str, project: Path) -> list[str]:
    """Make an example's files and changes; its commands."""
    commands = []
    for language, text in BLOCK.findall(EXAMPLES[example]):
        if not language:
            commands += text.splitlines()
            continue
        first, _, rest = text.partition("\n")
        path = project / first.removeprefix("# ")
        if language == "diff":
            change(path, rest.splitlines())
        else:
            assert not path.exists(), path
            path.write_text(rest)
    return commands


def change(path: Path, lines: list[str]) -> None:
    """Put in what begins with +, between the lines that are there."""
    before = "\n".join(line[1:] for line in lines if line[0] != "+")
    after = "\n".join(line[1:] for line in lines if line[0] != "-")
    text = path.read_text()
    assert text.count(before) == 1, (
        f"{path} holds these lines {text.count(before)} times:\n{before}"
    )
    path.write_text(text.replace(before, after))


def run(command: str, project: Path, *more: str) -> str:
    """Run a line of the page in the copy; what it printed."""
    _, *arguments = shlex.split(command)
    finished = subprocess.run(  # noqa: S603
        [sys.executable, *arguments, *more], cwd=project, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(project)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout
    return finished.stdout


def train(command: str, project: Path, small: list[str]) -> Path:
    """Run a training of the page, shrunk; its folder."""
    given = {word.partition("=")[0] for word in shlex.split(command)}
    shrunk = [word for word in small if word.partition("=")[0] not in given]
    run(command, project, *shrunk, "hydra.run.dir=run")
    return project / "run"


def test_every_example_is_tested() -> None:
    source = Path(__file__).read_text()
    assert EXAMPLES
    for name in EXAMPLES:
        assert f'make("{name}"' in source


@pytest.mark.slow
def test_backbone(project: Path, small: list[str]) -> None:
    (command,) = make("A backbone", project)
    folder = train(command, project, small)
    recorded = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
    assert recorded["backbone"]["model"] == "resnet18.a1_in1k"
    assert (folder / "metrics.json").is_file()


@pytest.mark.slow
def test_head(project: Path, small: list[str]) -> None:
    (command,) = make("A head", project)
    folder = train(command, project, small)
    recorded = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
    assert recorded["head"]["_target_"] == "cardiomegaly.model.max_head.MaxHead"
    assert (folder / "metrics.json").is_file()


@pytest.mark.slow
def test_schedule(project: Path, small: list[str]) -> None:
    (command,) = make("A loss, an optimiser, a schedule", project)
    folder = train(f"{command} schedule.step_size=1 trainer.max_epochs=2", project, small)
    rates = pd.read_csv(folder / "history.csv")["lr"]
    assert rates.tolist() == pytest.approx([1e-3, 1e-4])


@pytest.mark.slow
def test_label_table(project: Path, small: list[str], phantom_root: Path) -> None:
    (command,) = make("A label table", project)
    given = load_labelled_images(read_data("nih", {"root": str(phantom_root)})).table
    root = project / "visits"
    names = given["image"].str.extract(r"0*(\d+)_0*(\d+)")
    files = names[0] + "/" + names[1] + "/view1.png"
    for path, name in zip(given["path"], files, strict=True):
        (root / name).parent.mkdir(parents=True)
        shutil.copy(path, root / name)
    findings = given["target"].map({1: "effusion + big heart", 0: "nothing"})
    theirs = pd.DataFrame(
        {
            "file": files, "findings": findings,
            "taken": given["view_position"].map({"PA": "standing", "AP": "lying"}),
            "sex": given["sex"].map({"F": "w", "M": "m"}), "years": given["age"],
        }
    )  # fmt: skip
    lateral = theirs.iloc[:1].assign(file="1/0/view2.png", taken="side")
    pd.concat([theirs, lateral]).to_csv(root / "clinic_2024.csv", index=False)
    folder = train(command.replace("FOLDER", str(root)), project, small)
    split = pd.read_csv(folder / "split.csv").set_index("image")
    assert len(split) == len(given)
    for ours, column in ((given["target"], "target"), (given["patient_id"], "patient_id")):
        assert split.loc[files, column].tolist() == ours.tolist()
    predictions = pd.read_csv(folder / "predictions.csv")
    assert set(predictions["sex"]) == {"F", "M"}
    assert set(predictions["view_position"]) == {"PA", "AP"}


@pytest.mark.slow
def test_metric(project: Path, small: list[str]) -> None:
    (command,) = make("A metric", project)
    folder = train(command, project, small)
    test = json.loads((folder / "metrics.json").read_text())["test"]
    assert test["jaccard"] == pytest.approx(test["f1"] / (2 - test["f1"]))
    judge = "python -m cardiomegaly.evaluate device=cpu gradcam=false"
    run(judge, project, f"run={folder}")
    table = pd.read_csv(folder / "evaluation" / "thresholds.csv").set_index(["rule", "metric"])
    jaccard = table.loc[("fixed", "jaccard")]
    assert jaccard["low"] <= jaccard["value"] < jaccard["high"]
    assert jaccard["value"] == pytest.approx(test["jaccard"])


def test_command(project: Path, phantom_root: Path) -> None:
    (command,) = make("A command", project)
    target = load_labelled_images(read_data("nih", {"root": str(phantom_root)})).table["target"]
    printed = run(command.replace("FOLDER", str(phantom_root)), project)
    assert printed.splitlines()[-1] == (
        f"{target.sum():,} of {len(target):,} images: {target.mean():.1%}"
    )
