"""What a folder recorded is data: nobody's words make Hydra build or run something."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cardiomegaly import UserError
from cardiomegaly.training import resume

HOSTILE = [
    "hydra.callbacks.x={_target_: os.system}",
    "+hydra.callbacks.x._target_=os.system",
    "hydra.callbacks.sweep._target_=os.system",
    "hydra.searchpath=[file:///tmp/x]",
    "hydra.launcher.setup=[reboot]",
    "hydra.launcher.partition=x\nreboot",
    "hydra.launcher._target_=hydra_plugins.x",
    "hydra/launcher=../../tmp/x",
    "hydra.job.env_set.LD_PRELOAD=/tmp/x.so",
    "hydra.run.dir=/etc",
    "head._target_=os.system",
    "head._target_=cardiomegaly.model.heads.torch.load",
    "head={_target_: os.system, command: reboot}",
    "++head._target_=os.system",
    "head._target_=torch.nn.Linear",
    "backbone._target_=mine.Network",
    "backbone.options={_target_: os.system}",
    "loss._target_=os.system",
    "loss._target_=torch.load",
    "++loss={_target_: os.system}",
    "optimizer._target_=torch.nn.Linear",
    "schedule._target_=torch.optim.Adam",
    "averaging._target_=subprocess.run",
    "+head.x={_target_: builtins.open, file: /etc/x, mode: w}",
    "+head.x._target_=builtins.open",
    "head._target_=cardiomegaly.model.heads.GAPHead,os.system",
    "head.hidden.${x}=1",
    "logger.csv._target_=os.system",
    "+logger.x={_target_: os.system}",
    "+logger.x={'_tar\x67et_': os.system, '_args_': [reboot]}",
    "data.root=${oc.env:HOME}",
    "seed=${oc.decode:1}",
    "+experiment=../../../tmp/x",
    "+experiment=/tmp/x",
    "+head@hydra.callbacks.x=gap",
    "{}=1",
]


def run_folder(folder: Path, text: str) -> Path:
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    (folder / ".hydra" / "overrides.yaml").write_text(text)
    return folder


@pytest.mark.parametrize("word", HOSTILE)
def test_words_that_could_run_something_are_refused(tmp_path: Path, word: str) -> None:
    run = run_folder(tmp_path / "run", json.dumps(["seed=1", word]))
    with pytest.raises(UserError, match=r"overrides.yaml: .* is not taken from a file"):
        resume.resume_words([f"resume={run}"])
    (tmp_path / resume.SWEEP).write_text(json.dumps({"words": ["seed=1,2", word], "keys": []}))
    with pytest.raises(UserError, match=r"sweep.json: .* is not taken from a file"):
        resume.sweep_words([f"sweep.resume={tmp_path}"])


PLAIN = [
    "seed=1", "balance=true,false", "backbone=mobilenetv1,resnet50", "backbone=choice(a, b)",
    "+experiment=sweep", "+step=gap,gwap", "~logger", "data.root=/my images (2)",
    "data.root='a=b'", "split.fractions=[0.6, 0.1, 0.3]", "backbone.options={pad_type: same}",
    "trainer.learning_rate=tag(log, interval(1e-4, 1e-2))", "seed=range(1,5)",
    "loss._target_=torch.nn.SoftMarginLoss", "optimizer._target_=torch.optim.NAdam", "head=own",
    "head._target_=cardiomegaly.model.heads.GAPHead", "++head.depth=3", "+head.depth=3",
    "launcher=joblib",
    "hydra/launcher=submitit_local", "hydra.launcher.n_jobs=4", "hydra.launcher.partition=gpu-a",
    "+hydra.launcher.ray.init.num_cpus=1", "hydra.sweeper.trials=40",
]  # fmt: skip


@pytest.mark.parametrize("word", PLAIN)
def test_plain_words_are_repeated_unless_given_anew(tmp_path: Path, word: str) -> None:
    (tmp_path / resume.SWEEP).write_text(json.dumps({"words": [word], "keys": []}))
    again = resume.sweep_words([f"sweep.resume={tmp_path}", "threshold=0.4"])
    assert again == [
        word, "threshold=0.4", f"hydra.sweep.dir='{tmp_path}'", "hydra.mode=MULTIRUN",
    ]  # fmt: skip
    other = f"{resume.key_of(word)}=x"
    assert word not in resume.sweep_words([f"sweep.resume={tmp_path}", other])


def test_a_head_of_ones_own_is_trusted_by_name(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", "- head._target_=mine.heads.Head\n")
    with pytest.raises(UserError, match="say trust=mine.heads if it is yours"):
        resume.resume_words([f"resume={run}"])
    words = resume.resume_words([f"resume={run}", "trust=mine.heads"])
    assert words[0] == "head._target_=mine.heads.Head"
    assert resume.resume_words([f"resume={run}", "trust=[other,mine.heads]"])[0] == words[0]
    with pytest.raises(UserError, match="could run code"):
        resume.resume_words([f"resume={run}", "trust=mine"])


def test_no_word_of_a_record_is_executed_while_it_is_read(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", "!!python/object/apply:pathlib.Path.touch [x]\n")
    with pytest.raises(UserError, match=r"overrides.yaml is damaged: could not determine a constr"):
        resume.resume_words([f"resume={run}"])


@pytest.mark.parametrize(
    "text", ["seed: 1\n", "- [a]\n", "- 1\n", "[", "\x00", "- seed\n", "- - x\n"]
)
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    run = run_folder(tmp_path / "run", text)
    with pytest.raises(UserError, match=r"overrides.yaml is damaged"):
        resume.resume_words([f"resume={run}"])


def test_what_is_no_folder_of_a_run_or_sweep(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"resume: .* is not a run folder \(no .*overrides.yaml"):
        resume.resume_words([f"resume={tmp_path}"])
    with pytest.raises(UserError, match=r"is not the folder of a sweep \(it has no sweep.json"):
        resume.sweep_words([f"sweep.resume={tmp_path}"])
    assert resume.resume_words(["seed=1", "resume=null"]) == ["seed=1", "resume=null"]
    assert resume.sweep_words(["seed=1"]) == ["seed=1"]


def test_the_first_words_stand_before_the_new_ones(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "it's=here", "- backbone=resnet50\n- seed=1\n")
    word = f"resume={resume.quoted(str(folder))}"
    words = resume.resume_words([word, "seed=2"])
    assert words[:-1] == ["backbone=resnet50", word, "seed=2"]
    assert resume.value_of(words[-1]) == str(folder)


def test_the_data_are_the_recorded_ones_whatever_the_environment_says(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", json.dumps(["data.phantom.images=160"]))
    (run / ".hydra" / "config.yaml").write_text("data: {name: phantom}")
    last = [f"resume={run}", f"hydra.run.dir='{run}'"]
    begun = ["data=phantom", "data.phantom.images=160"]
    assert resume.resume_words([f"resume={run}"]) == [*begun, *last]
    again = resume.resume_words(["data=nih", f"resume={run}"])
    assert again == [begun[1], "data=nih", *last]
    for name in ("../experiment/demo", "none", "[a]", "${x}"):  # of no file in conf/data
        (run / ".hydra" / "config.yaml").write_text(json.dumps({"data": {"name": name}}))
        assert resume.resume_words([f"resume={run}"]) == [begun[1], *last]


def test_what_may_change_between_two_starts() -> None:
    words = ["seed=1", "data.workers=2", "sweep.name=a", "hydra/launcher=joblib", "+step=gap"]
    assert resume.settings(words) == {"seed": "seed=1", "step": "+step=gap"}
