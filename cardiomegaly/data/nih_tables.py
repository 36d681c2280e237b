"""NIH's label table, official lists and heart boxes: brought where Box allows it, else asked for.

Box gives these files no stable address, only a link of its own that now and then answers with a
page; what arrives is therefore judged by its content.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from pathlib import Path

from cardiomegaly import UserError
from cardiomegaly.config import read_data
from cardiomegaly.data.boxes import read_boxes
from cardiomegaly.data.download import download
from cardiomegaly.data.nih_archives import NIH
from cardiomegaly.data.tables import read_labels

PAGE = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
BOX_FILE = (
    "https://nihcc.app.box.com/index.php?rm=box_download_shared_file"
    "&vanity_name=ChestXray-NIHCC&file_id=f_"
)


def _read_names(path: Path) -> list[str]:
    return path.read_text().split()


def _read_rows(path: Path) -> Sized:
    return read_labels(path, read_data("nih"))


TABLES: dict[str, tuple[int, Callable[[Path], Sized], str, int]] = {  # Box's number, what it holds
    "Data_Entry_2017_v2020.csv": (219760887468, _read_rows, "rows", 112_120),
    "BBox_List_2017.csv": (219760940956, read_boxes, "boxes", 984),
    "train_val_list.txt": (256056636701, _read_names, "names", 86_524),
    "test_list.txt": (256055473534, _read_names, "names", 25_596),
}


def fetch_tables(target: Path, source: str) -> str | None:
    """Bring the tables that are not in a folder, and check them all.

    Returns:
        A line that says what is wrong and where to get what is not there; None if all is well.
    """
    there = {name: target / name for name in TABLES if (target / name).exists()}
    for other in target.glob("Data_Entry_2017*.csv"):
        there.setdefault("Data_Entry_2017_v2020.csv", other)
    absent = [name for name in TABLES if name not in there]
    try:
        for name, path in there.items():
            check_table(path, name)
        for name in absent.copy():
            _bring(name, target, source)
            absent.remove(name)
    except (OSError, UserError) as error:
        get = f"; get {', '.join(absent)} at {PAGE} and put them into {target}" if absent else ""
        return f"{error}{get}"
    return None


def _bring(name: str, target: Path, source: str) -> None:
    arriving = target / f".{name}"
    url = f"{BOX_FILE}{TABLES[name][0]}" if source == NIH else f"{source}/{name}"
    try:
        download(url, arriving, "")
        check_table(arriving, name)
        arriving.replace(target / name)
    finally:
        arriving.unlink(missing_ok=True)


def check_table(path: Path, name: str) -> None:
    """Look whether a table holds what NIH's of that name does.

    Raises:
        UserError: it does not.
    """
    _, read, noun, expected = TABLES[name]
    try:
        count = len(read(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no text") from error
    if count != expected:
        raise UserError(f"{path}: holds {count:,} {noun}, must be {expected:,}")
