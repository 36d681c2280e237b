"""The command as a user types it: words in, exit code and one clear line out."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import DictConfig, OmegaConf
from sklearn.metrics import roc_auc_score

from cardiomegaly import UserError, config, train
from cardiomegaly.config import Config, DataConfig
from cardiomegaly.data import labels
from cardiomegaly.data.labels import LabelledImages, load_labelled_images
from cardiomegaly.data.phantom.cohort import generate_phantom
from cardiomegaly.training.record import read_run

HEAVY = ("torch", "pytorch_lightning", "timm", "matplotlib", "albumentations", "sklearn")


def command(
    *words: str, cwd: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONWARNINGS": "default"} | (environment or {})
    return subprocess.run(  # noqa: S603
        [sys.executable, "-m", "cardiomegaly.train", *words],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_train_then_resume(small: list[str], tmp_path: Path) -> None:
    first = command(*small, "hydra.run.dir=run", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "auroc" in first.stdout
    run = read_run(tmp_path / "run")
    assert run.meta["overrides"][:1] == small[:1]
    (tmp_path / "run").rename(tmp_path / "moved=here")
    second = command("resume=moved=here", "trainer.max_epochs=2", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert read_run(tmp_path / "moved=here").history["epoch"].tolist() == [0, 1]
    assert "Warning" not in first.stderr + second.stderr


def test_installed_commands() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for name, place in project["scripts"].items():
        module, _, function = place.partition(":")
        assert module == name.replace("-", ".")
        assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.slow
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


@pytest.fixture
def main(
    command_in_process: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small: list[str]
) -> Callable[..., int]:
    """Call the command in this process and an empty folder; returns its exit code."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["train", *small, *words])
        try:
            train.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return call


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["backbone=resnet151"], "backbone has no 'resnet151' (did you mean"),
        (["trainer.max_epoch=3"], "trainer has no 'max_epoch' (did you mean 'max_epochs'?)"),
        (["ballance=true"], "this command has no 'ballance' (did you mean 'balance'?)"),
        (["balance=perhaps"], "balance: Value 'perhaps' is not a valid bool"),
        (["seed="], "seed: no value is given"),
        (["seed=1,2"], "seed=1,2: several values; "),
        (["stray"], "'stray' is not of the form key=value"),
        (["--bootstrap"], "unrecognized arguments: --bootstrap (--help)"),
        (["data.root=absent"], "data.root: no folder 'absent'"),
        (["backbone.weights=absent.pt"], "backbone.weights=absent.pt: must be pretrained, none or"),
        (["resume=absent"], "resume: 'absent' is not a run folder"),
        (["-m", "resume=absent"], "resume: 'absent' is not a run folder"),
        (["split.fractions=[0.98,0.01,0.01]"], "split: the "),  # found when the folder is there
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_no_folder(
    main: Callable[..., int], words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(*words) == 2
    err = capfd.readouterr().err
    assert err.splitlines()[-1].startswith(f"error: {message}"), err
    assert "Traceback" not in err
    assert not list(Path().iterdir())


def test_a_bug_keeps_its_traceback(
    main: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def bug(*_: object) -> float:
        raise ValueError("a bug")

    monkeypatch.setattr(train, "train_and_report", bug)
    assert main() == 1
    err = capfd.readouterr().err
    assert "Traceback" in err
    assert "ValueError: a bug" in err


def test_the_folder_of_a_run_needs_no_quotes(
    main: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []

    def note(_: Config, folder: Path, *others: object) -> float:
        folders.append(folder)
        return 0.0

    monkeypatch.setattr(train, "train_and_report", note)
    assert main("backbone.name=hf_hub:a/b c", "balance=false", "hydra/job_logging=none") == 0
    assert folders[0].name.endswith("_hf_hub-a-b-c_balance-False")
    assert set(folders[0].name) <= set(map(chr, range(48, 123))) | {"-"}
    recorded = (folders[0] / ".hydra" / "config.yaml").read_text()
    assert "${" not in recorded  # whatever becomes of the environment


def test_labels_that_were_checked_are_not_read_again(
    main: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    generate_phantom(Path("nih"), images=40, size=32)
    read, given = [], []

    def load(data: DataConfig) -> LabelledImages:
        read.append(data.root)
        return load_labelled_images(data)

    def note(run: Config, folder: Path, images: LabelledImages) -> float:
        given.append(images)
        return 0.0

    monkeypatch.setattr(labels, "load_labelled_images", load)
    monkeypatch.setattr(train, "train_and_report", note)
    words = "data=nih", "data.root=nih", "backbone.weights=none", "hydra/job_logging=none"
    assert main(*words) == 0
    assert len(read) == 1
    pd.testing.assert_frame_equal(
        given[0].table, load_labelled_images(config.read_data("nih", {"root": "nih"})).table
    )


@pytest.mark.parametrize("code", [130, 143])
def test_an_interrupted_run_says_how_to_go_on(
    main: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    code: int,
) -> None:
    def interrupted(*_: object) -> float:
        os.kill(os.getpid(), code - 128)
        time.sleep(60)
        return 0.0

    monkeypatch.setattr(train, "train_and_report", interrupted)
    assert main("hydra.run.dir=my run") == code
    folder = Path("my run").absolute()
    assert f"python -m cardiomegaly.train 'resume={folder}'" in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_interrupted_goes_on(
    small: list[str], tmp_path: Path, sent: signal.Signals
) -> None:
    words = [sys.executable, "-m", "cardiomegaly.train", *small, "trainer.max_epochs=500"]
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    with subprocess.Popen(  # noqa: S603
        [*words, "trainer.patience=500", "hydra.run.dir=run"], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        try:
            while not last.is_file():
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(sent)
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 128 + sent, output
    assert f"resume={tmp_path / 'run'}" in output
    assert "Traceback" not in output


def test_flags_may_stand_anywhere(
    main: Callable[..., int], small: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    words = train.arguments([*small, "seed=1,2", "-m", "balance=true"])
    assert words == ["-m", *small, "seed=1,2", "balance=true"]
    assert main("seed=7", "--cfg", "job", "-p", "trainer", "trainer.patience=3") == 0
    assert "patience: 3" in capfd.readouterr().out
    assert train.arguments(["--help", "ballance=true"]) == ["--help", "ballance=true"]


def test_help(main: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> None:
    assert main("--help") == 0
    out = capfd.readouterr().out
    assert "densenet121, efficientnetb0" in out
    assert "data=nih data.root=FOLDER" in out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["ballance=true"], 2),
        (["seed=x"], 2),
        (["data=nih", "data.root=absent", "backbone.weights=none"], 2),
        (["-m", "seed=1,2", "trainer.max_epoch=1"], 2),
    ],
)
def test_words_and_data_are_checked_before_anything_heavy_is_imported(
    tmp_path: Path, words: list[str], code: int
) -> None:
    script = f"""
import sys
from cardiomegaly import train
sys.argv[1:] = {words!r}
try:
    train.main()
except SystemExit as end:
    assert end.code == {code}, end.code
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture
def begun(composed: Callable[..., DictConfig], small: list[str], tmp_path: Path) -> Path:
    """The folder of a run that was begun with `small` and balance=true."""
    folder = tmp_path / "begun"
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(composed("balance=true"), folder / ".hydra" / "config.yaml", resolve=True)
    OmegaConf.save([*small, "balance=true"], folder / ".hydra" / "overrides.yaml")
    return folder


def test_a_run_goes_on_with_its_recorded_settings(begun: Path, small: list[str]) -> None:
    words = train.arguments([f"resume={begun}", "data.workers=1", "logger=csv"])
    assert words[-4:] == [
        f"resume={begun}", "data.workers=1", "logger=csv", f"hydra.run.dir='{begun}'",
    ]  # fmt: skip
    assert set(words[:-4]) == {*small, "balance=true"} - {"data.workers=0", "logger=none"}
    assert train.arguments([f"resume={begun}", "trainer.max_epochs=3"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("balance=false", "balance=True, now it is False: a run goes on with what it was begun"),
        ("seed=7", "seed=42, now it is 7"),
        ("backbone=resnet50", "backbone.last_stage=['blocks.4'], now it is ['layer4']"),
        ("backbone.options={pad_type: same}", "backbone.options=None, now it is {'pad_type': 'sam"),
        ("trainer.max_epochs=0", "trainer.max_epochs: must be at least 1"),
        ("trainer.batch_size=8", "trainer.batch_size=16, now it is 8"),
        ("head=gap", "head._target_=cardiomegaly.model.heads.GWAPHead, now it is"),
    ],
)
def test_other_settings_are_refused_by_name(begun: Path, word: str, message: str) -> None:
    with pytest.raises(UserError) as mistake:
        train.arguments([f"resume={begun}", word])
    assert message in str(mistake.value)


def test_a_changed_environment_changes_nothing_in_a_run(
    begun: Path, phantom_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = begun / ".hydra" / "overrides.yaml"
    words = [word for word in OmegaConf.load(path) if not word.startswith("data")]
    OmegaConf.save(words, path)
    monkeypatch.setenv("CARDIOMEGALY_DATA", "nih")
    monkeypatch.setenv("CARDIOMEGALY_NIH", str(phantom_root))
    assert train.arguments([f"resume={begun}"])  # where the data lie may change
    monkeypatch.setenv("CARDIOMEGALY_DATA", "phantom")
    assert "data=nih" in train.arguments([f"resume={begun}"])
