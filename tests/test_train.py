"""The command as a user types it: words in, exit code and one clear line out."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score

from cardiomegaly.train import resume_arguments
from cardiomegaly.training.record import read_run


def command(
    *words: str, cwd: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONWARNINGS": "default"} | (environment or {})
    return subprocess.run(
        [sys.executable, "-m", "cardiomegaly.train", *words],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_train_then_resume(small: list[str], tmp_path: Path) -> None:
    first = command(*small, "hydra.run.dir=run", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "auroc" in first.stdout
    run = read_run(tmp_path / "run")
    assert run.meta["overrides"][:1] == small[:1]
    second = command("resume=run", "trainer.max_epochs=2", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert read_run(tmp_path / "run").history["epoch"].tolist() == [0, 1]
    assert "Warning" not in first.stderr + second.stderr


@pytest.mark.parametrize(
    ("line", "completed"),
    [("backbone=mob", "backbone=mobilenetv1"), ("trainer.pat", "trainer.patience=")],
)
def test_shell_completion(tmp_path: Path, line: str, completed: str) -> None:
    typed = {"COMP_LINE": f"cardiomegaly-train {line}", "PYTHONWARNINGS": "ignore"}
    done = command("-sc", "query=bash", cwd=tmp_path, environment=typed)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [completed]


def test_installed_commands() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for name, place in project["scripts"].items():
        module, _, function = place.partition(":")
        assert module == name.replace("-", ".")
        assert callable(getattr(importlib.import_module(module), function))


def test_two_processes_share_a_training(small: list[str], tmp_path: Path) -> None:
    """DDP with weighted oversampling: each validation image counts once, the test is on one."""
    done = command(
        *small, "trainer.devices=2", "trainer.strategy=ddp", "hydra.run.dir=run", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    run = read_run(tmp_path / "run")
    for part in ("val", "test"):
        rows = run.part(part)
        assert len(rows) == rows["image"].nunique() == run.meta[f"n_{part}"]
        assert run.metrics[part]["auroc"] == roc_auc_score(rows["target"], rows["probability"])
    assert run.history["val/auroc"][0] == pytest.approx(run.metrics["val"]["auroc"], abs=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["backbone=resnet151"], "Could not find 'backbone/resnet151'"),
        (["trainer.max_epoch=3"], "has no 'max_epoch' (did you mean max_epochs?); it has: name"),
        (["ballance=true"], "has no 'ballance' (did you mean balance?)"),
        (["balance=perhaps"], "error: balance: "),
        (["data.root=absent"], "error: data.root: no folder 'absent'"),
        (["resume=absent"], "error: resume: 'absent' is not a run folder"),
    ],
)
def test_mistakes(small: list[str], tmp_path: Path, words: list[str], message: str) -> None:
    done = command(*small, *words, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    if "backbone" in words[0]:
        assert "efficientnetb4" in done.stderr  # the choices


def test_help(tmp_path: Path) -> None:
    done = command("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "backbone: densenet121, efficientnetb0" in done.stdout
    assert "data=nih data.root=FOLDER" in done.stdout


def test_resume_puts_the_first_words_before_the_new_ones(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- backbone=resnet50\n- seed=1\n")
    words = resume_arguments([f"resume={tmp_path}", "seed=2"])
    assert words == [
        "backbone=resnet50", f"resume={tmp_path}", "seed=2", f"hydra.run.dir='{tmp_path}'",
    ]  # fmt: skip
    assert resume_arguments(["seed=2"]) == ["seed=2"]
