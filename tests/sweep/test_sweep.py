"""Sweeps as a user starts them: Hydra's own multirun, most of them with a faked training."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hydra
import pandas as pd
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from cardiomegaly import UserError, config, train
from cardiomegaly.config import Config
from cardiomegaly.reports import sweep_page
from cardiomegaly.sweep import callback, job, ledger
from tests.made_runs import make_run

Command = Callable[..., subprocess.Popen[str]]
TIMES = ["train_seconds", "images_per_second", "peak_memory_mb"]
EIGHT = [
    f"backbone-{name}_balance-{balance}"
    for name in ("resnet152v2", "inceptionv3", "mobilenetv1", "efficientnetb4")
    for balance in (True, False)
]


class Fake:
    """A training that writes a run folder at once, and does to some jobs what the test says."""

    def __init__(self) -> None:
        self.trained: list[int] = []
        self.resumed: list[bool] = []
        self.trouble: dict[int, BaseException] = {}  # by seed

    def __call__(self, run: Config, folder: Path) -> float:
        self.trained.append(run.seed)
        self.resumed.append(run.resume is not None)
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "last.ckpt").touch()
        if run.seed in self.trouble:
            raise self.trouble[run.seed]
        written = (folder / ".hydra" / "config.yaml").read_text()
        value = 1 - abs(run.trainer.learning_rate - 0.003)
        make_run(folder, run.backbone.name, run.balance, run.seed, best_value=value)
        (folder / ".hydra" / "config.yaml").write_text(written)
        return value


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Fake]:
    """What `python -m cardiomegaly.train` calls, in the place of a training."""
    fake = Fake()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(callback.SweepCallback, "begun", None)
    yield fake
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None


@pytest.fixture
def sweep(fake: Fake, small: list[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Start a sweep of faked jobs with these words; returns the exit code."""

    @hydra.main(version_base="1.3", config_path=str(config.CONF_DIR), config_name="config")
    def command(cfg: DictConfig) -> float:
        return job.run(cfg, fake)

    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    monkeypatch.setattr(train, "run", command)

    def start(*words: str) -> int:
        first = [] if any(word.startswith("sweep.resume") for word in words) else ["-m", *small]
        monkeypatch.setattr(sys, "argv", ["train", *first, *words, *quiet])
        try:
            train.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return start


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the report out, for tests of something else: its plots take time."""
    monkeypatch.setattr(sweep_page, "report_sweep", lambda *_: ([], []))


def statuses(folder: str | Path) -> list[str]:
    return [entry.status for entry in ledger.read_entries(Path(folder))]


FIRST = Path("outputs/sweeps/first")
SEEDS = ("backbone=mobilenetv1", "seed=1,2,3", "sweep.name=first")


def test_a_failed_job_does_not_stop_the_others(
    sweep: Callable[..., int], fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.trouble = {
        1: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GB\nmore"),
        2: UserError("backbone.weights: these do not fit"),
    }
    assert sweep(*SEEDS) == 1
    assert fake.trained == [1, 2, 3]
    assert statuses(FIRST) == ["failed", "failed", "done"]
    out = capsys.readouterr().out
    assert "sweep outputs/sweeps/first: 3 jobs (3 planned)" in out
    assert "1 of 3 jobs are done. Report: outputs/sweeps/first/report.html" in out
    errors = [
        "backbone-mobilenetv1_seed-1: OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GB",
        "backbone-mobilenetv1_seed-2: backbone.weights: these do not fit",
    ]
    for error in errors:
        assert f"failed: {error}\n" in out
        assert error.partition(": ")[2] in (FIRST / "summary.md").read_text()
    entry = ledger.read_entries(FIRST)[0]
    assert "in __call__" in (entry.traceback or "")
    assert (entry.attempts, entry.host, entry.finished is None) == (1, os.uname().nodename, False)

    fake.trouble = {2: SystemExit("no more")}
    assert sweep("sweep.resume=outputs/sweeps/first") == 1
    assert fake.trained == [1, 2, 3, 1, 2]
    assert fake.resumed[3:] == [True, True]
    assert "failed: backbone-mobilenetv1_seed-2: SystemExit: no more" in capsys.readouterr().out
    fake.trouble = {}  # it failed when it went on from its checkpoint: now from the start
    assert sweep(*SEEDS) == 0
    assert (fake.trained[5:], fake.resumed[5:]) == ([2], [False])
    assert sweep(*SEEDS) == 0
    assert len(fake.trained) == 6
    assert "3 jobs (3 done)" in capsys.readouterr().out


@pytest.mark.usefixtures("no_report")
def test_a_failed_job_with_other_settings_starts_from_the_beginning(
    sweep: Callable[..., int], fake: Fake
) -> None:
    fake.trouble = {2: MemoryError()}
    assert sweep(*SEEDS) == 1
    fake.trouble = {}
    assert sweep("sweep.resume=outputs/sweeps/first", "seed=2", "trainer.batch_size=4") == 0
    assert (fake.trained[3:], fake.resumed[3:]) == ([2], [False])
    assert statuses(FIRST) == ["done", "done", "done"]


@pytest.mark.parametrize("wrapped", [False, True])  # Lightning turns Ctrl-C into an exit
@pytest.mark.usefixtures("no_report")
def test_an_interruption_stops_the_sweep(
    sweep: Callable[..., int], fake: Fake, wrapped: bool
) -> None:
    stop = SystemExit(1) if wrapped else KeyboardInterrupt()
    stop.__context__ = KeyboardInterrupt() if wrapped else None
    fake.trouble = {2: stop}
    assert sweep(*SEEDS) == 128 + signal.SIGINT
    assert statuses(FIRST) == ["done", "interrupted", "planned"]
    fake.trouble = {}
    assert sweep("sweep.resume=outputs/sweeps/first") == 0
    assert (fake.trained, fake.resumed) == ([1, 2, 2, 3], [False, False, True, False])


def test_a_sweep_grows_under_its_name(sweep: Callable[..., int], fake: Fake) -> None:
    assert sweep("backbone=mobilenetv1", "balance=true,false", "sweep.name=first") == 0
    assert sweep("backbone=mobilenetv1,resnet50", "balance=true", "sweep.name=first") == 0
    assert len(fake.trained) == 3
    assert sweep("backbone=mobilenetv1", "balance=true", "seed=1,2", "sweep.name=first") == 0
    assert len(fake.trained) == len(statuses(FIRST)) == 5
    assert pd.read_csv(FIRST / "summary.csv").shape[0] == 5


@pytest.mark.usefixtures("no_report")
def test_another_process_has_the_job(
    sweep: Callable[..., int], fake: Fake, caplog: pytest.LogCaptureFixture
) -> None:
    name = "backbone-mobilenetv1_seed-2"
    ledger.write_entry(FIRST, ledger.begin(ledger.Entry(name, 1, "planned"), resumed=False))
    caplog.set_level(logging.INFO)
    with ledger.locked(ledger.job_lock(FIRST.absolute(), name)):
        assert sweep(*SEEDS) == 0
        assert statuses(FIRST) == ["done", "running", "done"]
    assert fake.trained == [1, 3]
    assert f"another process runs {name}" in caplog.text


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["trainer.max_epoch=2"], 1, "Key 'max_epoch' is not in struct"),
        (["backbone=resnet151,mobilenetv1"], 2, "error: .*Could not find 'backbone/resnet151'"),
        (["trainer.monitor=auroc"], 2, r"error: trainer.monitor: .* \(job backbone-mobilenetv1"),
        (["balance=perhaps,true"], 2, "error: balance: .*perhaps"),
        (["trainer.devices=2"], 2, "error: trainer.devices: must be 1 in a sweep, got 2"),
        (["data.root=absent"], 2, "error: data.root: no folder 'absent'"),
        (["backbone.weights=absent.pt"], 2, "error: backbone.weights=absent.pt: .*no such file"),
        (["sweep.name=a/b"], 2, "error: sweep.name: must be the plain name of a folder, got 'a/b'"),
        (["backbone.weights=a/x,b/x"], 2, "error: two jobs of the sweep would be called"),
        (["sweep.resume=absent"], 2, "error: sweep.resume: 'absent' is not the folder of a sweep"),
    ],
)
def test_a_common_mistake_is_refused_before_anything_starts(
    sweep: Callable[..., int],
    fake: Fake,
    words: list[str],
    code: int,
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import re

    assert sweep(*SEEDS[:2], *words) == code
    err = capfd.readouterr().err
    assert re.search(message, err, flags=re.DOTALL), err
    assert "Traceback" not in err
    assert not fake.trained
    assert not list(Path().rglob("ledger"))


@pytest.mark.usefixtures("no_report")
def test_some_weights_are_absent(sweep: Callable[..., int], fake: Fake) -> None:
    assert sweep("backbone=mobilenetv1", "backbone.weights=none,absent.pt") == 0
    assert len(fake.trained) == 2  # the training itself says that there is no such file


@pytest.mark.usefixtures("no_report")
def test_a_job_that_was_begun_is_not_run_with_other_settings(
    sweep: Callable[..., int], fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(*SEEDS) == 0
    assert sweep(*SEEDS, "trainer.max_epochs=7") == 2
    assert "begun with trainer.max_epochs=1, now it is 7: give the sw" in capsys.readouterr().err
    assert sweep(*SEEDS, "data.workers=1") == 0  # how, not what
    assert len(fake.trained) == 3
    (FIRST / callback.SWEEP).write_text("{")
    assert sweep("sweep.resume=outputs/sweeps/first") == 2
    assert "sweep.json is damaged" in capsys.readouterr().err


def test_gpus_are_shared_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, composed: Callable[..., DictConfig]
) -> None:
    chosen = [job.choose_gpu(["0", "1"], tmp_path, process=7) for _ in range(3)]
    assert chosen == ["0", "1", "1"]  # the third finds both taken
    job._kept.close()
    gpu = config.check(composed("trainer=gpu"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for visible, own in (("", "0"), ("5,3", "5")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        job.share_gpus(tmp_path, config.check(composed("trainer=cpu")))
        assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
        job.share_gpus(tmp_path, gpu)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == own
        job._kept.close()


@pytest.mark.usefixtures("no_report")
def test_search_asks_optuna_and_goes_on(
    sweep: Callable[..., int], fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    optuna = pytest.importorskip("optuna", reason="the extra [search] is not installed")
    words = ["+experiment=search", "sweep.name=first", "backbone=mobilenetv1", "seed=range(100)"]
    fake.trouble = {seed: RuntimeError("no luck") for seed in range(1, 100, 2)}
    assert sweep(*words, "hydra.sweeper.trials=6") in (0, 1)
    assert len(fake.trained) == 6
    assert f"best val/auroc: {max(_objectives()):.4f} with " in capsys.readouterr().out
    done = statuses(FIRST).count("done")

    fake.trouble = dict.fromkeys(range(100), KeyboardInterrupt())
    assert sweep("sweep.resume=outputs/sweeps/first", "hydra.sweeper.trials=9") == 130
    last = fake.trained[-1]
    fake.trouble = {}
    assert sweep("sweep.resume=outputs/sweeps/first", "hydra.sweeper.trials=9") in (0, 1)
    assert fake.trained[7] == last  # the interrupted trial first
    assert fake.resumed[7]
    assert len(fake.trained) == 6 + 1 + 9 - done
    study = optuna.load_study(
        study_name="val/auroc",
        storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(FIRST / "search.journal"))
        ),
    )
    values = [trial.value for trial in study.trials if trial.value is not None]
    assert sorted(values) == pytest.approx(sorted(_objectives()))
    assert len((FIRST / "best.yaml").read_text().splitlines()) == 5
    assert sweep(*words, "trainer.max_epochs=3") == 2
    assert "holds a search that was begun by other words" in capsys.readouterr().err


def _objectives() -> list[float]:
    entries = ledger.read_entries(FIRST)
    return [entry.objective for entry in entries if entry.objective is not None]


@pytest.fixture
def command() -> Iterator[Command]:
    """Start `python -m cardiomegaly.train -m` in a folder; what it says goes to output.txt."""
    begun = []

    def start(*words: str, cwd: Path) -> subprocess.Popen[str]:
        with (cwd / "output.txt").open("a") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "cardiomegaly.train", "-m", *words],
                cwd=cwd, env=os.environ | {"PYTHONWARNINGS": "default", "OMP_NUM_THREADS": "1"},
                stdout=output, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.wait()


def test_the_eight_runs(command: Command, small: list[str], tmp_path: Path) -> None:
    """The study's own sweep, trained for real; memory is returned between the jobs."""
    done = command(
        *small, "+experiment=sweep", "sweep.name=eight", "backbone.image_size=80",
        "trainer.limit_train_batches=1", cwd=tmp_path,
    )  # fmt: skip
    assert done.wait(600) == 0, (tmp_path / "output.txt").read_text()
    folder = tmp_path / "outputs" / "sweeps" / "eight"
    entries = ledger.read_entries(folder)
    assert [entry.job for entry in entries] == EIGHT
    assert {entry.status for entry in entries} == {"done"}
    table = pd.read_csv(folder / "summary.csv").set_index("run").loc[EIGHT]
    assert (table["split_hash"].nunique(), len(table)) == (1, 8)
    assert (folder / "report.html").is_file()
    output = (tmp_path / "output.txt").read_text()
    assert "8 of 8 jobs are done." in output
    assert "Warning" not in output
    if sys.platform == "linux":
        peak = table["peak_memory_mb"]
        first, second = peak[::2].to_numpy(), peak[1::2].to_numpy()
        assert (second < 1.1 * first).all(), peak
        assert peak["backbone-mobilenetv1_balance-True"] < peak.iloc[0]  # the large one came first


def test_killed_in_its_fourth_job_and_resumed(
    command: Command, small: list[str], tmp_path: Path
) -> None:
    words = [*small, "backbone=mobilenetv1", "trainer.max_epochs=2", "hydra.sweep.dir=sweep"]
    (tmp_path / "undisturbed").mkdir()
    undisturbed = command(*words, "seed=4,5", cwd=tmp_path / "undisturbed")
    killed = command(*words, "seed=1,2,3,4,5", cwd=tmp_path)
    fourth = tmp_path / "sweep" / "backbone-mobilenetv1_seed-4"
    while not (fourth / "checkpoints" / "last.ckpt").is_file():
        assert killed.poll() is None, (tmp_path / "output.txt").read_text()
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = ledger.read_entries(tmp_path / "sweep")
    assert [entry.status for entry in before] == [*["done"] * 3, "interrupted", "planned"]

    resumed = command("sweep.resume=sweep", cwd=tmp_path)
    assert resumed.wait(300) == 0, (tmp_path / "output.txt").read_text()
    after = ledger.read_entries(tmp_path / "sweep")
    assert after[:3] == before[:3]
    assert [entry.attempts for entry in after] == [1, 1, 1, 2, 1]
    assert after[3].resumed
    assert undisturbed.wait(300) == 0
    for entry in after[3:]:
        for name in ("predictions.csv", "history.csv"):
            mine, theirs = (
                pd.read_csv(folder / "sweep" / entry.job / name).drop(
                    columns=["seconds", "images_per_second"], errors="ignore"
                )
                for folder in (tmp_path, tmp_path / "undisturbed")
            )
            pd.testing.assert_frame_equal(mine, theirs)
    mine, theirs = (
        pd.read_csv(folder / "sweep" / "summary.csv").drop(columns=TIMES)
        for folder in (tmp_path, tmp_path / "undisturbed")
    )
    assert mine["seed"].tolist() == [1, 2, 3, 4, 5]
    pd.testing.assert_frame_equal(mine[3:].reset_index(drop=True), theirs)


def test_two_processes_and_joblib(command: Command, small: list[str], tmp_path: Path) -> None:
    """A parallel sweep and a second process on the same folder: every job is run once."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher.joblib_launcher")
    words = [*small, "seed=1,2,3", "sweep.name=two", f"data.cache={tmp_path / 'cache'}"]
    first = command(*words, "launcher=joblib", cwd=tmp_path)
    second = command(*words, cwd=tmp_path)
    output = tmp_path / "output.txt"
    assert (first.wait(300), second.wait(300)) == (0, 0), output.read_text()
    entries = ledger.read_entries(tmp_path / "outputs" / "sweeps" / "two")
    assert [(entry.status, entry.attempts) for entry in entries] == [("done", 1)] * 3
    assert len({entry.pid for entry in entries} & {first.pid, second.pid}) < 2
    assert "3 of 3 jobs are done" in output.read_text()


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        ("hydra_submitit_launcher.submitit_launcher", ["hydra/launcher=submitit_local"]),
        ("hydra_ray_launcher.ray_launcher", ["launcher=ray", "+hydra.launcher.ray.init.num_cpus=1"]),  # noqa: E501
    ],
)  # fmt: skip
def test_other_launchers(
    command: Command, small: list[str], tmp_path: Path, plugin: str, words: list[str]
) -> None:
    pytest.importorskip(f"hydra_plugins.{plugin}", reason=f"{plugin} is not installed")
    done = command(*small, *words, "seed=1", "sweep.name=one", cwd=tmp_path)
    assert done.wait(300) == 0, (tmp_path / "output.txt").read_text()
    (entry,) = ledger.read_entries(tmp_path / "outputs" / "sweeps" / "one")
    assert (entry.status, entry.pid != done.pid) == ("done", True)


def test_the_report_command_reads_the_ledger(sweep: Callable[..., int], fake: Fake) -> None:
    from cardiomegaly import report

    fake.trouble = {2: KeyboardInterrupt()}
    sweep(*SEEDS)
    shutil.rmtree(FIRST / "backbone-mobilenetv1_seed-2")
    assert report.main([f"sweep={FIRST}", "resamples=20"]) == 0
    text = (FIRST / "summary.md").read_text()
    assert "starting the same sweep again goes on from its last checkpoint" in text
    assert "2 of 3 jobs are not finished" in text
    assert json.loads((FIRST / callback.SWEEP).read_text())["keys"][-1] == "seed"
