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
    finished = subprocess.run(
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
def test_label_table(project: Path, small: list[str], phantom_root: Path) -> None:
    convert, command = make("A label table", project)
    root = project / "padchest"
    shutil.copytree(phantom_root / "images", root)
    given = load_labelled_images(phantom_root).table
    labels = given["target"].map({1: "['cardiomegaly', 'pleural effusion']", 0: "['normal']"})
    theirs = pd.DataFrame(
        {
            "ImageID": given["image"], "PatientID": given["patient_id"].map("{:x}".format),
            "PatientBirth": 1950, "PatientSex_DICOM": given["sex"], "StudyDate_DICOM": "20150704",
            "Projection": given["view_position"], "Labels": labels,
        }
    )  # fmt: skip
    lateral = theirs.iloc[:1].assign(ImageID="lateral.png", Projection="L")
    pd.concat([theirs, lateral]).to_csv(root / "PADCHEST.csv", index=False)
    run(convert.replace("FOLDER", str(root)), project)
    ours = load_labelled_images(root).table
    assert ours["image"].tolist() == given["image"].tolist()
    assert ours["target"].tolist() == given["target"].tolist()
    assert ours["sex"].tolist() == given["sex"].tolist()
    assert set(ours["age"]) == {65.0}
    assert ours.groupby("patient_id").size().tolist() == given.groupby("patient_id").size().tolist()
    folder = train(command.replace("FOLDER", str(root)), project, small)
    assert (folder / "metrics.json").is_file()


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
    assert jaccard["low"] < jaccard["value"] == pytest.approx(test["jaccard"])


def test_command(project: Path, phantom_root: Path) -> None:
    (command,) = make("A command", project)
    target = load_labelled_images(phantom_root).table["target"]
    printed = run(command.replace("FOLDER", str(phantom_root)), project)
    assert printed.splitlines()[-1] == (
        f"{target.sum():,} of {len(target):,} images: {target.mean():.1%}"
    )
