"""Classes in a file of one's own, from the folder where one stands, as docs/training.md shows."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cardiomegaly import cli, config
from cardiomegaly.train import spell_out
from cardiomegaly.training.record import read_run
from tests import words

PAGE = (words.repository() / "docs" / "training.md").read_text()
PART = PAGE.partition("## Classes of your own")[2].partition("\n## ")[0]


def test_nothing_of_the_default_is_left() -> None:
    given = ["head._target_=myfile.MyHead", "head.width=3", "backbone=resnet50", "seed=1"]
    assert spell_out(given) == [
        "head=own", "++head._target_=myfile.MyHead", "++head.width=3", "backbone=resnet50",
        "seed=1",
    ]  # fmt: skip
    composed = cli.compose(config.CONF_DIR, spell_out(given))
    assert composed.head == {"_target_": "myfile.MyHead", "width": 3}
    kept = ["head=gap", "head._target_=cardiomegaly.model.heads.DenseHead"]
    assert spell_out(kept) == kept  # its options were asked for
    assert spell_out(["seed=1"]) == ["seed=1"]


@pytest.mark.slow
def test_the_page_trains_and_predicts(small: list[str], tmp_path: Path) -> None:
    """The file and the command of docs/training.md, shrunk; then as a stranger's run, refused."""
    block = PART.partition("```python\n")[2].partition("```")[0]
    name, _, rest = block.partition("\n")
    (tmp_path / name.removeprefix("# ")).write_text(rest)
    command = next(line for line in PART.splitlines() if line.startswith("python -m"))
    given = [word for word in shlex.split(command)[3:] if not word.startswith("data")]
    keys = {word.partition("=")[0] for word in given}
    shrunk = [word for word in small if word.partition("=")[0] not in keys]
    run_command("train", [*given, *shrunk, "hydra.run.dir=run"], tmp_path)
    recorded = yaml.safe_load((tmp_path / "run" / ".hydra" / "config.yaml").read_text())
    assert "attention_channels" not in recorded["head"]
    meta = json.loads((tmp_path / "run" / "metrics.json").read_text())["meta"]
    assert meta["loss"] == recorded["loss"]
    assert meta["backbone"] == meta["model"] == "myfile.MyNetwork"
    assert len(read_run(tmp_path / "run").predictions)
    predict = ["model=run", f"input={small[1].partition('=')[2]}/images", "output=table.csv"]
    said = run_command("predict", predict, tmp_path, fails=True)
    assert "say trust=myfile" in said
    run_command("predict", [*predict, "trust=myfile"], tmp_path)
    assert (tmp_path / "table.csv").is_file()
    said = run_command("train", ["resume=run"], tmp_path, fails=True)
    assert "say trust=myfile" in said
    (tmp_path / "run" / "metrics.json").unlink()
    run_command("train", ["resume=run", "trust=myfile"], tmp_path)


def run_command(name: str, given: list[str], folder: Path, fails: bool = False) -> str:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", f"cardiomegaly.{name}", *given], cwd=folder, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(words.repository())},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == (2 if fails else 0), done.stdout
    return done.stdout
