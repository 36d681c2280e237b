"""Objects from configurations: what is built, and that nothing else is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cardiomegaly import UserError
from cardiomegaly.model.building import build, check_trusted
from cardiomegaly.model.heads import GAPHead

GAP = {"_target_": "cardiomegaly.model.heads.GAPHead", "hidden": 4, "dropout": 0.0}
OWN_HEAD = """
import torch
from cardiomegaly.model.heads import HeadOutput

class MyHead(torch.nn.Module):
    def __init__(self, in_features, feature_size, width=3):
        super().__init__()
        self.width = width

    def forward(self, features):
        return HeadOutput(features.mean((1, 2, 3)), None)

def make(**options):
    return MyHead(**options)
"""


def head(settings: dict[str, Any]) -> torch.nn.Module:
    return build(settings, "head", torch.nn.Module, {"in_features": 8, "feature_size": (2, 2)})


@pytest.fixture
def my_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where one stands, with a module of one's own."""
    (tmp_path / "my_own_file.py").write_text(OWN_HEAD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_a_class_is_built_with_its_options() -> None:
    built = head(GAP)
    assert isinstance(built, GAPHead)
    assert built.classify[1].weight.shape == (4, 8)  # type: ignore[union-attr]


def test_a_class_of_ones_own_is_found_where_one_stands(my_folder: Path) -> None:
    assert head({"_target_": "my_own_file.MyHead"}).width == 3
    assert head({"_target_": "my_own_file.MyHead", "width": 5}).width == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"_target_": "my_own_file.make"}, "must be a class of torch.nn.Module, got <function"),
        ({"_target_": "my_own_file.Absent"}, "must be a class of torch.nn.Module, got None"),
        ({"_target_": "pathlib.Path"}, "must be a class of torch.nn.Module, got <class 'pathlib"),
        ({"_target_": "no_such_file.MyHead"}, r"no module 'no_such_file' to import .* looked for"),
        ({"_target_": "cardiomegaly.model.heads.torch.nn.ReLU"}, "there is no module"),
        ({"_target_": "MyHead"}, "must be MODULE.CLASS, such as myfile.MyHead; got 'MyHead'"),
        ({"hidden": 4}, "must be the dotted name of a class, got None"),
        ({**GAP, "_partial_": True}, r"^head\._partial_: is refused"),
        ({**GAP, "_args_": [1]}, r"^head\._args_: is refused"),
        ({**GAP, "hidden": {"_target_": "os.getcwd"}}, r"^head\.hidden\._target_: is refused"),
        ({**GAP, "a": [1, {"b": {"_target_": "x"}}]}, r"^head\.a\[1\]\.b\._target_: is refused"),
        ({**GAP, "width": 1}, r"takes hidden, dropout; got hidden, dropout, width .*unexpected"),
        ({**GAP, "in_features": 3}, "head: .*in_features"),
        ({"_target_": "my_own_file.MyHead", "w": 1}, r"takes \[width\]; got w \(got an unexp"),
    ],
)
def test_what_cannot_be_built_is_named(
    my_folder: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        head(settings)


def test_a_bug_in_ones_own_file_keeps_its_traceback(my_folder: Path) -> None:
    (my_folder / "my_broken_file.py").write_text("import a_package_that_is_not_installed\n")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_installed"):
        head({"_target_": "my_broken_file.MyHead"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"_target_": "os.system"}, r"head\._target_: 'os\.system' is none of .* say trust=os"),
        ({"_target_": "cardiomegaly.config.load"}, "is none of this program's classes"),
        ({"_target_": 3}, "must be a mapping with the name of a class"),
        ([GAP], "must be a mapping with the name of a class"),
        (None, "must be a mapping with the name of a class"),
    ],
)
def test_what_a_file_says_is_not_trusted(settings: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_trusted(settings, "head")


def test_what_the_user_names_is_trusted() -> None:
    check_trusted(GAP, "head")
    check_trusted({"_target_": "mine.MyHead"}, "head", ["mine"])
    with pytest.raises(UserError, match="say trust=mine.deeper"):
        check_trusted({"_target_": "mine.deeper.MyHead"}, "head", ["mine"])
