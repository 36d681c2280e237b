"""A download is whole and checked, is taken up where it broke off, and never hangs."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from cardiomegaly import UserError
from cardiomegaly.model import download as module
from cardiomegaly.model.download import digest, download, within
from tests.file_server import FileServer, closed_url, serving

CONTENT = bytes(range(256)) * 4096  # 1 MiB
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "weights.h5"


def part_of(target: Path) -> Path:
    return target.with_name("weights.h5.part")


def test_a_good_file_arrives_with_a_progress_bar(
    target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(FileServer(CONTENT)) as server:
        download(server.url, target, MD5)
    assert target.read_bytes() == CONTENT
    assert not part_of(target).exists()
    assert "weights.h5: 100%" in capsys.readouterr().err


def test_a_connection_cut_in_the_middle_is_resumed(target: Path) -> None:
    with serving(FileServer(CONTENT, cut_after=300_000, cuts=2)) as server:
        download(server.url, target, MD5)
    assert server.asked == ["", "bytes=300000-", "bytes=600000-"]
    assert target.read_bytes() == CONTENT


def test_a_later_call_goes_on_from_the_part(target: Path) -> None:
    # Without ranges the second attempt gets no further than the first, so the call gives up.
    with serving(FileServer(CONTENT, cut_after=300_000, cuts=2, ranges=False)) as server:
        with pytest.raises(OSError, match="closed before the end of the file"):
            download(server.url, target, MD5)
        assert not target.exists()
        assert part_of(target).stat().st_size == 300_000
        server.ranges = True
        download(server.url, target, MD5)
    assert server.asked[-1] == "bytes=300000-"
    assert target.read_bytes() == CONTENT


def test_a_server_without_ranges_starts_again(target: Path) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT[:1000])
    with serving(FileServer(CONTENT, ranges=False)) as server:
        download(server.url, target, MD5)
    assert server.asked == ["bytes=1000-"]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("stale", [b"of another version", CONTENT + b"too long"])
def test_a_part_of_another_file_is_replaced(target: Path, stale: bytes) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(stale)
    with serving(FileServer(CONTENT)) as server:
        download(server.url, target, MD5)
    assert target.read_bytes() == CONTENT


def test_a_whole_part_is_not_fetched_again(target: Path) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT)
    with serving(FileServer(CONTENT)) as server:
        download(server.url, target, MD5)
    assert server.asked == [f"bytes={len(CONTENT)}-"]
    assert target.read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_nothing_kept(target: Path) -> None:
    with (
        serving(FileServer(b"a proxy's log-in page")) as server,
        pytest.raises(UserError, match=rf"md5 checksum \w+, published is {MD5}; it was deleted"),
    ):
        download(server.url, target, MD5)
    assert list(target.parent.iterdir()) == []


def test_an_absent_server_is_named(target: Path) -> None:
    url = closed_url()
    with pytest.raises(OSError, match=f"{url}: .*refused"):
        download(url, target, MD5)


def test_a_silent_server_is_left(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    with (
        serving(FileServer(CONTENT, silent=True)) as server,
        pytest.raises(OSError, match="timed out|no answer in 0.2 seconds"),
    ):
        download(server.url, target, MD5)


def test_within_hands_on_results_and_errors_and_stops_waiting() -> None:
    assert within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 / 0)
    with pytest.raises(TimeoutError, match=r"no answer in 0\.01 seconds"):
        within(0.01, lambda: time.sleep(0.5))


def test_digest_is_the_checksum_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    assert digest(tmp_path / "file", "md5") == MD5
    assert digest(tmp_path / "file", "sha256") == hashlib.sha256(CONTENT).hexdigest()
