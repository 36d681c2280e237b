"""The command that brings NIH and checks it, from the first byte to the exit code."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cardiomegaly import download as command
from cardiomegaly.data import nih_archives as nih
from tests.file_server import FileServer, serving
from tests.small_nih import IMAGES, pretend, small_nih, unpacked

SCRIPT = """
import sys
from cardiomegaly.download import main
from tests.small_nih import pretend, small_nih
pretend(small_nih(filling=400_000)[0])
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FileServer:
    archives, files = small_nih()
    pretend(archives, monkeypatch)
    return FileServer(files)


def test_all_is_brought_and_the_exit_code_says_so(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "new" / "nih"
    with serving(server):
        words = [f"target={target}", f"source={server.url.rpartition('/')[0]}/"]
        assert command.main([*words, "archives=[1,3]"]) == 0
        assert unpacked(target) == IMAGES[:4] + IMAGES[8:]
        assert command.main(words) == 0
    told = capsys.readouterr()
    assert unpacked(target) == IMAGES
    assert f"complete: python -m cardiomegaly.train data=nih data.root={target}" in told.out
    assert re.search(r"GB of archives; on the disk .* GB are needed .* GB are free", told.out)
    assert "archives: 100%" in told.err
    assert command.main([f"verify={target}"]) == 0
    assert "12 of 12 images are there" in capsys.readouterr().out


def test_what_lacks_is_told_and_the_exit_code_says_so(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = dict(server.content)  # type: ignore[arg-type]
    del files["box2.gz"], files["test_list.txt"]
    server.content = files
    with serving(server):
        source = server.url.rpartition("/")[0]
        assert command.main([f"target={tmp_path}", f"source={source}"]) == 1
    told = capsys.readouterr()
    assert f"error: {source}/test_list.txt: the server answers 404; get test_list.txt" in told.err
    assert f"error: archive 2: {source} has no box2.gz or images_002" in told.err
    assert "archive 2: 4 of 4 images lack" in told.out
    assert unpacked(tmp_path) == IMAGES[:4] + IMAGES[8:]
    (tmp_path / "images_001" / f"{IMAGES[0]}.png").write_bytes(b"damaged")
    assert command.main([f"verify={tmp_path}"]) == 1
    told = capsys.readouterr()
    assert "8 of 12 images are there" in told.out
    assert "archive 2: 4 images are missing" in told.out
    assert f"1 are unreadable: {tmp_path}/images_001/{IMAGES[0]}.png" in told.out


def test_a_local_folder_is_a_mirror(server: FileServer, tmp_path: Path) -> None:
    mirror, target = tmp_path / "my mirror", tmp_path / "target"
    mirror.mkdir()
    for name, content in server.content.items():  # type: ignore[union-attr]
        (mirror / name).write_bytes(content)
    words = [f"target={target}", f"source='{mirror}'", "keep_archives=true", "parallel=1"]
    assert command.main(words) == 0
    assert unpacked(target) == IMAGES
    assert len(list((target / "archives").iterdir())) == 3
    assert (mirror / "box1.gz").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "say target=FOLDER to download, or verify=FOLDER to check"),
        (["target=a", "verify=a"], "say target=FOLDER to download, or verify=FOLDER to check"),
        (["target=a", "parallel=0"], "parallel: must be at least 1, got 0"),
        (["target=a", "source=gone"], "source=gone: must be a URL or a folder; there is no such"),
        (["target=a", "archives=[4]"], r"archives: must be of 1 to 3, got \[4\]"),
        (["verify=gone"], "no folder 'gone'"),
    ],
)
def test_a_mistake_is_one_line(
    server: FileServer, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(words) == 2
    error = capsys.readouterr().err
    assert re.search(told, error)
    assert error.count("\n") == 1
    assert not Path("a").exists()


def test_a_disk_without_room_is_refused_before_anything_is_brought(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nih.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with serving(server):
        words = [f"target={tmp_path}", f"source={server.url.rpartition('/')[0]}"]
        assert command.main(words) == 2
    assert not any(path.endswith(".gz") for path, _ in server.asked)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_at_any_moment_it_goes_on(tmp_path: Path, how: signal.Signals) -> None:
    """Five kills after so many bytes, then whole; an image that is there is whole at any time."""
    files = small_nih(filling=400_000)[1]
    server = FileServer(files, trickle=0.01, piece=10_000)
    total = sum(len(content) for content in files.values())
    moments = sorted(np.random.default_rng(int(how)).uniform(0, total, 5))
    with serving(server):
        words = [f"target={tmp_path}", f"source={server.url.rpartition('/')[0]}"]
        run = [sys.executable, "-c", SCRIPT, *words]
        for moment in moments:
            asked = len(server.asked)
            with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # noqa: S603
                while len(server.asked) == asked or server.sent < moment:
                    if process.poll() is not None:
                        break
                    time.sleep(0.005)
                process.send_signal(how)
                told = process.communicate()[1].decode()
                assert "Traceback" not in told
            unpacked(tmp_path)
        done = subprocess.run(run, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert unpacked(tmp_path) == IMAGES
    assert list(tmp_path.rglob("*.part*")) == []
    assert any(server.ranges_asked), "nothing was taken up where it broke off"
