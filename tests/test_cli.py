"""Words of every command: one grammar, one form of message, exit code 2."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from omegaconf import MISSING

from cardiomegaly import UserError, cli
from cardiomegaly.config import CONF_DIR


@dataclass
class Options:
    """As of a small command."""

    folder: str = field(default=MISSING, metadata={"help": "of a run"})
    runs: Any = field(default=None, metadata={"help": "several"})
    seed: int = field(default=3, metadata={"help": "of the bootstrap"})
    flip: bool = False
    rate: float | None = None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["folder=a"], Options("a")),
        (["folder=a", "seed=7", "flip=true", "rate=1e-3"], Options("a", None, 7, True, 0.001)),
        (["folder=a", "runs=[a, b]"], Options("a", ["a", "b"])),
        (["folder=a", "runs=[a,", "b]", "seed=1"], Options("a", ["a", "b"], 1)),
        (["folder=a", "runs={x:", "1}"], Options("a", {"x": 1})),
        (["folder=~/nih"], Options(str(Path.home() / "nih"))),
        (["folder=a", "runs=[~/a,~/b]"], Options("a", [f"{Path.home()}/a", f"{Path.home()}/b"])),
        (["folder=a=b"], Options("a=b")),
        (["folder=/my images (2)/é's"], Options("/my images (2)/é's")),
        (["folder='a,b'"], Options("a,b")),
        (["folder=12"], Options("12")),
    ],
)
def test_words_are_read(words: list[str], expected: Options) -> None:
    assert cli.parse(Options, words) == expected


MISTAKES = [
    ("{}", "'{}' is not of the form key=value"),
    ("~/nih", "~/nih: "),
    ("=3", "'=3' is not of the form key=value"),
    ("sed=1", "this command has no 'sed' (did you mean 'seed'?); it has: "),
    ("+new=1", "this command has no 'new'"),
    ("seed=", "seed: no value is given; say seed=VALUE, or seed=null for none"),
    ("seed=x", "seed: Value 'x' of type 'str' could not be converted to Integer"),
    ("seed=1,2", "seed=1,2: several values; "),
    ("seed=[1", "seed=[1: the bracket is not closed; 'seed=[a, b]' in quotes is one word"),
    ("seed=[1;2]", "seed=[1;2]: "),
]


@pytest.mark.parametrize(("word", "message"), MISTAKES)
def test_a_mistake_is_one_line_of_the_same_form_for_all(
    word: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.run(Options, lambda options: None, None, ["folder=a", word])
    small = capsys.readouterr().err
    assert code == 2
    assert small.startswith(f"error: {message}")
    assert small.count("\n") == 1
    if word in ("+new=1", "seed=x"):  # train may be given what is not there; its types come later
        return
    with pytest.raises(UserError) as mistake:
        cli.compose(CONF_DIR, cli.read_words([word]))
    assert str(mistake.value).partition(";")[0] == small[7:].partition(";")[0].strip()


def test_a_required_word_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(Options, lambda options: None, None, []) == 2
    assert (
        capsys.readouterr().err
        == "error: folder: required but not given; say folder=... (--help)\n"
    )


def test_choices_that_are_not_there_are_named_with_those_that_are() -> None:
    with pytest.raises(
        UserError, match=r"^backbone has no 'resnet5' \(did you mean 'resnet50'\?\)"
    ):
        cli.compose(CONF_DIR, ["backbone=resnet5"])
    with pytest.raises(UserError, match=r"^head has no 'hiden' \(did you mean 'hidden'\?\)"):
        cli.compose(CONF_DIR, ["head=dense", "head.hiden=3"])
    with pytest.raises(UserError, match=r"To append to your default list use \+experiment=demo$"):
        cli.compose(CONF_DIR, ["experiment=demo"])


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    def mistake(options: Options) -> None:
        raise UserError(f"folder: {options.folder} is empty; give another")

    def bug(options: Options) -> None:
        raise ValueError("a bug")

    assert cli.run(Options, lambda options: None, None, ["folder=a"]) == 0
    assert cli.run(Options, lambda options: 7, None, ["folder=a"]) == 7
    assert cli.run(Options, mistake, None, ["folder=a"]) == 2
    assert capsys.readouterr().err == "error: folder: a is empty; give another\n"
    with pytest.raises(ValueError, match="a bug"):
        cli.run(Options, bug, None, ["folder=a"])


def test_help_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(Options, lambda options: None, "Does this.", ["seed=x", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Does this.\n")
    assert "  folder               of a run (required)\n" in out
    assert "  seed                 of the bootstrap (default 3)\n" in out


def python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [sys.executable, *words], env=os.environ | {"PYTHONWARNINGS": "ignore"} | environment,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("command", "typed", "completed"),
    [
        ("evaluate", "min", "minimum="),
        ("report", "swe", "sweep="),
        ("train", "backbone=mob", "backbone=mobilenetv1"),
        ("train", "trainer.pat", "trainer.patience="),
    ],
)
def test_shell_completion(command: str, typed: str, completed: str) -> None:
    line = {"COMP_LINE": f"cardiomegaly-{command} {typed}"}
    done = python("-m", f"cardiomegaly.{command}", "-sc", "query=bash", **line)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [completed]
    rule = python("-m", f"cardiomegaly.{command}", "-sc", "install=bash")
    assert "complete -o nospace" in rule.stdout


def test_the_package_lists_its_commands() -> None:
    done = python("-m", "cardiomegaly")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("  ")}
    package = Path(cli.__file__).parent
    commands = {path.stem for path in package.glob("*.py") if "def main(" in path.read_text()} - {
        "__main__"
    }
    assert set(lines) == commands
    assert "a sweep" in lines["train"]
    assert "report" in lines
    wrong = python("-m", "cardiomegaly", "trian")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: 'trian': say python -m cardiomegaly.COMMAND")


@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_help_ends_where_its_reader_does(command: str) -> None:
    words = [sys.executable, "-m", f"cardiomegaly.{command}", "--help"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # noqa: S603
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == -signal.SIGPIPE
