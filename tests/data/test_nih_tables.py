"""NIH's tables are brought, judged by their content, and asked for where they cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from cardiomegaly.data import nih_tables as tables
from tests.file_server import FileServer, serving
from tests.small_nih import pretend, small_nih


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FileServer:
    archives, files = small_nih()
    pretend(archives, monkeypatch)
    return FileServer(files)


def test_nihs_own_tables_are_as_published(nih_sample: Path) -> None:
    for name in tables.TABLES:
        tables.check_table(nih_sample / name, name)


def test_tables_are_brought_and_checked(server: FileServer, tmp_path: Path) -> None:
    with serving(server):
        source = server.url.rpartition("/")[0]
        assert tables.fetch_tables(tmp_path, source) is None
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(tables.TABLES)
        assert tables.fetch_tables(tmp_path, source) is None
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("test_list.txt", b"a.png\nb.png", "holds 2 names, must be 3"),
        ("test_list.txt", b"<!DOCTYPE html>", "a web page came instead of the file"),
        ("test_list.txt", b"\xff\xfe", "is no text"),
        ("Data_Entry_2017_v2020.csv", b"a,b\n1,2\n", "lacks the column"),
        ("BBox_List_2017.csv", b"a,b\n1,2\n", "must begin with Image Index"),
    ],
)
def test_a_wrong_table_is_not_kept_and_one_line_says_where_to_get_them(
    server: FileServer, tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    server.content = {**server.content, name: content}  # type: ignore[dict-item]
    with serving(server):
        problem = tables.fetch_tables(tmp_path, server.url.rpartition("/")[0]) or ""
    assert told in problem
    assert f"{name}" in problem.partition("; get ")[2]
    assert problem.endswith(f" at {tables.PAGE} and put them into {tmp_path}")
    assert not (tmp_path / name).exists()
    assert list(tmp_path.glob(".*")) == []


def test_another_revision_of_the_label_table_will_do(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "Data_Entry_2017.csv").write_bytes(server.content["Data_Entry_2017_v2020.csv"])  # type: ignore[index]
    with serving(server):
        assert tables.fetch_tables(tmp_path, server.url.rpartition("/")[0]) is None
    assert not (tmp_path / "Data_Entry_2017_v2020.csv").exists()


def test_a_table_that_is_there_is_checked_too(server: FileServer, tmp_path: Path) -> None:
    with serving(server):
        source = server.url.rpartition("/")[0]
        assert tables.fetch_tables(tmp_path, source) is None
        (tmp_path / "train_val_list.txt").write_text("a.png")
        told = tables.fetch_tables(tmp_path, source)
    assert told == f"{tmp_path}/train_val_list.txt: holds 1 names, must be 9"


def test_from_nih_itself_boxs_own_link_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(url: str, target: Path, checksum: str) -> None:
        asked.append(url)
        raise OSError(f"{url}: a web page came instead of the file")

    monkeypatch.setattr(tables, "download", refuse)
    told = tables.fetch_tables(tmp_path, tables.NIH) or ""
    assert asked == [
        "https://nihcc.app.box.com/index.php?rm=box_download_shared_file"
        "&vanity_name=ChestXray-NIHCC&file_id=f_219760887468"
    ]
    assert told.endswith(
        f"get Data_Entry_2017_v2020.csv, BBox_List_2017.csv, train_val_list.txt, test_list.txt at "
        f"https://nihcc.app.box.com/v/ChestXray-NIHCC and put them into {tmp_path}"
    )
