"""The command that lists, fetches and converts pretrained weights."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cardiomegaly import weights as command
from cardiomegaly.config import backbones
from cardiomegaly.model.weights import cache_folder
from tests.file_server import closed_url, weights_from
from tests.keras_files import resnet152v2_shapes, write_keras_file

MOBILENET = "mobilenetv1_100.ra4_e3600_r224_in1k"
BACKBONES = list(backbones())


@pytest.fixture(autouse=True)
def placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network, empty caches but for one file, which is returned."""
    weights_from(closed_url().rpartition("/")[0], tmp_path / "cache", monkeypatch)
    path = cache_folder() / f"{MOBILENET}.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(3_000_000))
    return path


def test_list_says_what_is_needed_and_what_is_here(
    placed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == BACKBONES
    by_name = dict(zip(BACKBONES, lines, strict=False))
    assert re.search(rf"{MOBILENET} +3 MB  {placed}", by_name["mobilenetv1"])
    assert re.search(r"resnet152v2\.keras_in1k +233 MB  missing; http", by_name["resnet152v2"])
    assert str(cache_folder()) in lines[-1]


def test_alone_the_command_knows_every_network(placed: Path) -> None:
    """In a process of its own, where nothing but the command registers networks with timm."""
    run = [sys.executable, "-m", "cardiomegaly.weights", "list"]
    done = subprocess.run(run, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(BACKBONES) + 1


def test_fetch_goes_on_where_one_cannot_be_had(
    placed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "download", _refuse)
    assert command.main(["fetch", "backbone=mobilenetv1"]) == 0
    assert command.main(["fetch", "backbone=all"]) == 2
    told = capsys.readouterr()
    assert told.out.count(str(placed)) == 2
    assert told.err.count("error: ") == len(BACKBONES) - 1
    assert "Traceback" not in told.err


def _refuse(url: str, target: Path, checksum: str) -> None:
    raise OSError(f"{url}: no network for {target.name}, {checksum}")


def test_convert_writes_the_file(tmp_path: Path) -> None:
    source, target = tmp_path / "notop.h5", tmp_path / "new" / "out.safetensors"
    write_keras_file(source, resnet152v2_shapes())
    assert command.main(["convert", f"source={source}", f"target={target}"]) == 0
    assert target.stat().st_size > 4 * 58_331_648
    target.unlink()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["lst"], "error: action: must be list, fetch or convert, got 'lst'"),
        (["fetch", "backbone=vgg61"], r"backbone\.model=vgg61: timm has no .* you mean .*vgg16"),
        (["fetch", "backbon=all"], "did you mean 'backbone'"),
        (["convert", "target=a"], "source: required but not given"),
        (["convert", "source=gone.h5", "target=a"], "source=gone.h5: there is no such file"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(words) == 2
    assert re.search(told, capsys.readouterr().err)


def test_help_names_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["fetch", "--help"]):
        assert command.main(words) == 0
        assert "fetch [backbone=all|NAME]" in capsys.readouterr().out
