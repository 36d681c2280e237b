"""NIH's archives are brought, checked, unpacked whole, and refused where they are hostile."""

from __future__ import annotations

import hashlib
import tarfile
from collections import Counter
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest
from filelock import FileLock

from cardiomegaly import UserError
from cardiomegaly.config import read_data
from cardiomegaly.data import nih_archives as nih
from cardiomegaly.data import transfer
from cardiomegaly.data.tables import read_labels
from tests.file_server import FileServer, serving
from tests.small_nih import IMAGES, image, packed, pretend, small_nih, unpacked

ALL = (1, 2, 3)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FileServer:
    archives, files = small_nih()
    pretend(archives, monkeypatch)
    return FileServer(files)


def fetch(
    server: FileServer, target: Path, numbers: tuple[int, ...] = ALL, keep: bool = False
) -> list[str]:
    target.mkdir(exist_ok=True)
    source = server.url.rpartition("/")[0]
    missing = nih.missing_archives(target, numbers)
    return nih.fetch_archives(target, missing, source, 2, keep)


def test_the_published_table_is_whole() -> None:
    assert [archive.number for archive in nih.ARCHIVES] == list(range(1, 13))
    assert sum(archive.bytes for archive in nih.ARCHIVES) == 45_079_862_784
    assert sum(archive.images for archive in nih.ARCHIVES) == 112_120
    assert all(len(a.md5) == 32 and len(a.box_name) == 32 for a in nih.ARCHIVES)


def test_images_are_told_to_archives_by_their_names(nih_sample: Path) -> None:
    table = read_labels(nih_sample / "Data_Entry_2017_v2020.csv", read_data("nih"))
    counts = Counter(nih.archive_of(name.removesuffix(".png")) for name in table["image"])
    assert counts == {archive.number: archive.images for archive in nih.ARCHIVES}


def test_archives_are_brought_unpacked_and_removed(server: FileServer, tmp_path: Path) -> None:
    with serving(server):
        assert fetch(server, tmp_path) == []
        assert unpacked(tmp_path) == IMAGES
        assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {
            *("images_001", "images_002", "images_003", "archives")
        }
        assert list((tmp_path / "archives").iterdir()) == []
        asked = len(server.asked)
        assert fetch(server, tmp_path) == []
    assert len(server.asked) == asked == 3


def test_only_what_is_missing_is_brought(server: FileServer, tmp_path: Path) -> None:
    with serving(server):
        fetch(server, tmp_path, (1, 3))
        assert unpacked(tmp_path) == IMAGES[:4] + IMAGES[8:]
        kept = tmp_path / "images_003" / f"{IMAGES[8]}.png"
        before = kept.stat()
        (tmp_path / "images_003" / f"{IMAGES[9]}.png").unlink()
        server.asked.clear()
        fetch(server, tmp_path, (1, 3))
    assert [path for path, _ in server.asked] == ["box3.gz"]
    assert unpacked(tmp_path) == IMAGES[:4] + IMAGES[8:]
    assert kept.stat().st_ino == before.st_ino


def test_images_that_lie_elsewhere_stay_there(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in IMAGES[:6]:
        (tmp_path / "images" / f"{name}.png").write_bytes(image(name))
    with serving(server):
        fetch(server, tmp_path)
    assert sorted(path for path, _ in server.asked) == ["box2.gz", "box3.gz"]
    assert unpacked(tmp_path) == IMAGES


def test_a_killed_download_goes_on(server: FileServer, tmp_path: Path) -> None:
    content = server.content["box1.gz"]  # type: ignore[index]
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "images_001.tar.gz.part").write_bytes(content[:100])
    (tmp_path / "archives" / "images_002.tar.gz").write_bytes(server.content["box2.gz"])  # type: ignore[index]
    (tmp_path / "images_002").mkdir()
    (tmp_path / "images_002" / f"{IMAGES[4]}.part").write_bytes(b"half")
    with serving(server):
        fetch(server, tmp_path, (1, 2))
    assert server.asked == [("box1.gz", "bytes=100-")]
    assert unpacked(tmp_path) == IMAGES[:8]
    assert list(tmp_path.rglob("*.part")) == []


def test_kept_archives_are_used_again(server: FileServer, tmp_path: Path) -> None:
    with serving(server):
        fetch(server, tmp_path, keep=True)
        archive = tmp_path / "archives" / "images_002.tar.gz"
        assert archive.read_bytes() == server.content["box2.gz"]  # type: ignore[index]
        (tmp_path / "images_002" / f"{IMAGES[5]}.png").unlink()
        server.asked.clear()
        fetch(server, tmp_path, keep=True)
    assert server.asked == []
    assert unpacked(tmp_path) == IMAGES


@pytest.mark.parametrize("name", ["images_002.tar.gz", "images_02.tar.gz"])
def test_a_mirror_may_use_nihs_own_names(server: FileServer, tmp_path: Path, name: str) -> None:
    server.content = {name: server.content["box2.gz"]}  # type: ignore[index]
    with serving(server):
        problems = fetch(server, tmp_path, (2, 3))
    assert unpacked(tmp_path) == IMAGES[4:8]
    source = server.url.rpartition("/")[0]
    assert problems == [
        f"archive 3: {source} has no box3.gz or images_003.tar.gz or images_03.tar.gz"
    ]


def test_a_wrong_archive_is_not_unpacked_and_the_others_are(
    server: FileServer, tmp_path: Path
) -> None:
    size = nih.ARCHIVES[0].bytes
    server.content = {**server.content, "box1.gz": bytes(size)}  # type: ignore[dict-item]
    with serving(server):
        problems = fetch(server, tmp_path)
    assert len(problems) == 1
    assert f"the md5 checksum {hashlib.md5(bytes(size)).hexdigest()}, published is" in problems[0]  # noqa: S324
    assert unpacked(tmp_path) == IMAGES[4:]
    assert list((tmp_path / "archives").iterdir()) == []


def test_without_a_server_one_try_is_enough(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PATIENCE", 1)
    server.statuses = [403] * 9
    with serving(server):
        tmp_path.mkdir(exist_ok=True)
        source = server.url.rpartition("/")[0]
        missing = nih.missing_archives(tmp_path, ALL)
        problems = nih.fetch_archives(tmp_path, missing, source, 1, False)
    assert problems == [f"archive 1: {source}/box1.gz: the server answers 403"]
    assert len(server.asked) == 1


def test_a_second_download_into_the_folder_is_refused(server: FileServer, tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".download.lock"),
        pytest.raises(UserError, match="target=.*: another download is at work there"),
    ):
        fetch(server, tmp_path)


def test_the_room_is_told_and_must_be_there(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    missing = nih.missing_archives(tmp_path, range(1, 13))
    monkeypatch.setattr(nih.shutil, "disk_usage", lambda _: SimpleNamespace(free=int(54.4e9)))
    told = nih.check_room(tmp_path, missing, 2, False)
    # 45.08 GB x 1.02 of images and the two largest archives, 4.187 + 4.182 GB
    assert told == (
        "45.1 GB of archives; on the disk 54.4 GB are needed (8.4 of it for archives on their "
        "way), 54.4 GB are free"
    )
    monkeypatch.setattr(nih.shutil, "disk_usage", lambda _: SimpleNamespace(free=int(54.3e9)))
    with pytest.raises(UserError, match=r"target=.*54\.3 GB are free; parallel=1 needs less, arch"):
        nih.check_room(tmp_path, missing, 2, False)
    nih.check_room(tmp_path, missing, 1, False)
    with pytest.raises(UserError, match=r"91\.1 GB are needed \(45\.1 of it for archives kept"):
        nih.check_room(tmp_path, missing, 1, True)
    (tmp_path / "archives").mkdir()
    with (tmp_path / "archives" / "images_001.tar.gz.part").open("wb") as part:
        part.truncate(200_000_000)  # has arrived already
    nih.check_room(tmp_path, missing, 2, False)


def test_an_unknown_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"archives: must be of 1 to 12, got \[0, 13\]"):
        nih.missing_archives(tmp_path, [0, 1, 13])


# Unpacking


def hostile(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize(
    "member",
    [
        hostile("../00000009_000.png"),
        hostile("images/../../00000009_000.png"),
        hostile("/00000009_000.png"),
        hostile("images/00000009_000.png", tarfile.SYMTYPE, "/etc/passwd"),
        hostile("images/00000009_000.png", tarfile.SYMTYPE, "00000001_000.png"),
        hostile("images/00000009_000.png", tarfile.LNKTYPE, "../outside"),
        hostile("images/00000009_000.png", tarfile.CHRTYPE),
        hostile("images/00000009_000.png", tarfile.FIFOTYPE),
    ],
    ids=lambda member: f"{member.type.decode()} {member.name} {member.linkname}",
)
def test_a_hostile_member_is_refused(member: tarfile.TarInfo, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    path = tmp_path / "a.tar.gz"
    good = tarfile.TarInfo("images/00000001_000.png")
    path.write_bytes(packed([(good, image("00000001_000")), (member, b"")]))
    with pytest.raises(UserError, match=r"a\.tar\.gz: not unpacked further: '"):
        nih.unpack(path, target / "images_001", set(), Event())
    assert sorted(p.name for p in tmp_path.rglob("*")) == [
        "00000001_000.png", "a.tar.gz", "images_001", "target"
    ]  # fmt: skip


@pytest.mark.parametrize("length", [0, 40, -40])
def test_a_truncated_archive_is_refused(length: int, tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    members = [(tarfile.TarInfo(f"images/{name}.png"), image(name)) for name in IMAGES]
    path.write_bytes(packed(members)[:length])
    with pytest.raises(UserError, match=r"a\.tar\.gz: not unpacked further: "):
        nih.unpack(path, tmp_path / "images_001", set(), Event())
    unpacked(tmp_path)  # what is there is whole


def test_unpacking_stops_when_told(tmp_path: Path) -> None:
    stop = Event()
    stop.set()
    path = tmp_path / "a.tar.gz"
    path.write_bytes(packed([(tarfile.TarInfo("images/00000001_000.png"), b"png")]))
    with pytest.raises(OSError, match="stopped"):
        nih.unpack(path, tmp_path / "images_001", set(), stop)
