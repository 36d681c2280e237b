"""A download is whole and checked, is taken up where it broke off, and never hangs."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Timer

import pytest

from cardiomegaly import UserError
from cardiomegaly.data import transfer
from cardiomegaly.data.download import download
from tests.file_server import FileServer, closed_url, serving

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SIZE = len(CONTENT)
MD5 = f"md5:{hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()}"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PAGE = b"<!DOCTYPE html><title>Box</title>"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PATIENCE", 1)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "weights.h5"


def part_of(target: Path, content: bytes | None = None) -> Path:
    """The unfinished file; with content, it is written."""
    part = target.with_name("weights.h5.part")
    if content is not None:
        target.parent.mkdir(exist_ok=True)
        part.write_bytes(content)
    return part


def bring(server: FileServer, target: Path, **options: object) -> None:
    download(server.url, target, MD5, **{"pauses": (0, 0)} | options)  # type: ignore[arg-type]


def test_a_good_file_arrives_with_a_progress_bar(
    target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(FileServer(CONTENT)) as server:
        bring(server, target)
    assert target.read_bytes() == CONTENT
    assert not part_of(target).exists()
    assert "weights.h5: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("size", [None, SIZE])
def test_a_connection_cut_in_the_middle_is_resumed(target: Path, size: int | None) -> None:
    with serving(FileServer(CONTENT, cut_after=300_000, cuts=3)) as server:
        bring(server, target, size=size, pauses=(0,))
    assert server.ranges_asked == ["", "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    assert target.read_bytes() == CONTENT


def test_a_later_call_goes_on_from_the_part(target: Path) -> None:
    # Without ranges a further attempt gets no further than the first, so the call gives up.
    with serving(FileServer(CONTENT, cut_after=300_000, cuts=5, ranges=False)) as server:
        with pytest.raises(OSError, match="748576 bytes missing"):
            bring(server, target)
        assert not target.exists()
        assert part_of(target).stat().st_size == 300_000
        server.ranges = True
        bring(server, target)
    assert server.ranges_asked[-1] == "bytes=300000-"
    assert target.read_bytes() == CONTENT


def test_a_server_without_ranges_starts_again(target: Path) -> None:
    part_of(target, b"\0" * 1000)
    with serving(FileServer(CONTENT, ranges=False)) as server:
        bring(server, target)
    assert server.ranges_asked == ["bytes=1000-", ""]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("size", [None, SIZE])
@pytest.mark.parametrize("stale", [b"of another version", CONTENT + b"too long"])
def test_a_part_of_another_file_is_replaced(target: Path, stale: bytes, size: int | None) -> None:
    part_of(target, stale)
    with serving(FileServer(CONTENT)) as server:
        bring(server, target, size=size)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("size", [None, SIZE])
def test_a_whole_part_is_not_fetched_again(target: Path, size: int | None) -> None:
    part_of(target, CONTENT)
    with serving(FileServer(CONTENT)) as server:
        bring(server, target, size=size)
    assert server.ranges_asked == ([] if size else [f"bytes={SIZE}-"])
    assert target.read_bytes() == CONTENT


def test_a_file_that_is_there_is_checked_and_mended(target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT[:-1] + b"?")
    with serving(FileServer(CONTENT)) as server:
        bring(server, target, size=SIZE)
        assert target.read_bytes() == CONTENT
        bring(server, target, size=SIZE)
    assert len(server.asked) == 1


@pytest.mark.parametrize("resumed", [False, True])
def test_a_wrong_checksum_is_refused_and_nothing_kept(target: Path, resumed: bool) -> None:
    if resumed:
        part_of(target, b"some")
    with (
        serving(FileServer(b"something else")) as server,
        pytest.raises(UserError, match=rf"md5 checksum \w+, published is {MD5[4:]}; it was del"),
    ):
        bring(server, target)
    assert list(target.parent.iterdir()) == []


def test_the_checksum_may_stand_in_the_answer_that_redirects(target: Path) -> None:
    header = {"X-Linked-Etag": f'"{SHA256}"'}
    with serving(FileServer(CONTENT, redirects=True, headers=header)) as server:
        download(server.url, target, "x-linked-etag")
        assert target.read_bytes() == CONTENT
        server.headers = {}
        with pytest.raises(UserError, match="has the sha256 checksum .*, published is none"):
            download(server.url, target.with_name("other"), "x-linked-etag")


@pytest.mark.parametrize("size", [None, SIZE])
def test_a_length_that_is_too_great_is_seen_through(target: Path, size: int | None) -> None:
    with serving(FileServer(CONTENT, extra_length=5000, cuts=1)) as server:
        bring(server, target, size=size)
    assert target.read_bytes() == CONTENT


def test_a_length_that_is_too_small_is_seen_through_where_the_size_is_known(target: Path) -> None:
    with serving(FileServer(CONTENT, extra_length=-5000, cuts=1)) as server:
        bring(server, target, size=SIZE)
    assert target.read_bytes() == CONTENT


def test_more_than_was_published_is_not_stored(target: Path) -> None:
    with (
        serving(FileServer(CONTENT)) as server,
        pytest.raises(OSError, match=r"more than the published 1,000,000 bytes came"),
    ):
        bring(server, target, size=1_000_000)
    assert part_of(target).stat().st_size <= 1_000_000
    assert not target.exists()


def test_less_than_was_published_is_not_whole(target: Path) -> None:
    with (
        serving(FileServer(CONTENT)) as server,
        pytest.raises(OSError, match=r"1,048,576 bytes came, published are 2,000,000"),
    ):
        bring(server, target, size=2_000_000)
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "headers"), [(PAGE, {}), (CONTENT, {"Content-Type": "text/html; charset=utf-8"})]
)
@pytest.mark.parametrize("arrived", [0, 20])
def test_a_web_page_in_the_files_place_costs_nothing(
    target: Path, content: bytes, headers: dict[str, str], arrived: int
) -> None:
    part_of(target, CONTENT[:arrived])
    with (
        serving(FileServer(content, headers=headers, ranges=False)) as server,
        pytest.raises(OSError, match="a web page came instead of the file"),
    ):
        bring(server, target, size=SIZE)
    assert part_of(target).exists() == bool(arrived)
    assert not arrived or part_of(target).read_bytes() == CONTENT[:arrived]


@pytest.mark.parametrize(
    ("status", "kind"), [(403, PermissionError), (404, FileNotFoundError), (410, FileNotFoundError)]
)
def test_a_refusal_is_not_tried_again(target: Path, status: int, kind: type[OSError]) -> None:
    with (
        serving(FileServer(CONTENT, statuses=[status])) as server,
        pytest.raises(kind, match=f"{server.url}: the server answers {status}"),
    ):
        bring(server, target)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_after_the_time_it_wants(target: Path, status: int) -> None:
    with serving(FileServer(CONTENT, statuses=[status], retry_after=1)) as server:
        began = time.monotonic()
        bring(server, target)
    assert time.monotonic() - began >= 1
    assert target.read_bytes() == CONTENT


def test_a_server_that_wants_hours_is_left(target: Path) -> None:
    with (
        serving(FileServer(CONTENT, statuses=[429], retry_after=7200)) as server,
        pytest.raises(OSError, match="answers 429, to be asked again in 7200 s"),
    ):
        bring(server, target)


def test_a_server_that_stays_busy_is_left(target: Path) -> None:
    with (
        serving(FileServer(CONTENT, statuses=[503] * 9)) as server,
        pytest.raises(OSError, match="the server answers 503, it is busy"),
    ):
        bring(server, target)
    assert len(server.asked) == 3


def test_an_absent_server_is_named(target: Path) -> None:
    url = closed_url()
    with pytest.raises(OSError, match=f"{url}: .*Could not connect"):
        download(url, target, MD5, pauses=())


@pytest.mark.parametrize("faults", [{"silent": True}, {"trickle": 0.2}])
def test_a_server_that_stalls_or_trickles_is_left(target: Path, faults: dict[str, object]) -> None:
    with (
        serving(FileServer(CONTENT, **faults)) as server,  # type: ignore[arg-type]
        pytest.raises(OSError, match="Operation too slow. Less than 1000 bytes/sec"),
    ):
        bring(server, target, pauses=())
    assert not target.exists()


def test_a_download_stops_when_told(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PATIENCE", 60)
    stop = Event()
    Timer(0.2, stop.set).start()
    with (
        serving(FileServer(CONTENT, trickle=0.1)) as server,
        pytest.raises(OSError, match="stopped"),
    ):
        bring(server, target, stop=stop)
    assert part_of(target).stat().st_size > 0


def test_a_local_folder_serves_too(target: Path, tmp_path: Path) -> None:
    source = tmp_path / "a file#1"
    part_of(target, CONTENT[:1000])
    with pytest.raises(FileNotFoundError):
        download(source.as_uri(), target, MD5)
    source.write_bytes(CONTENT)
    download(source.as_uri(), target, MD5, SIZE)
    assert target.read_bytes() == CONTENT


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 512 KiB, where the tests may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(folder)]
    unmount = ["umount", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here ({error})")
    yield folder
    subprocess.run(unmount, check=True)  # noqa: S603


def test_a_full_disk_is_named_and_what_arrived_is_kept(small_disk: Path) -> None:
    target = small_disk / "weights.h5"
    with (
        serving(FileServer(CONTENT)) as server,
        pytest.raises(OSError, match=f"{server.url}: .*No space left on device"),
    ):
        bring(server, target)
    assert 0 < part_of(target).stat().st_size < SIZE
    assert not target.exists()
