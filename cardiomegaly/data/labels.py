"""The NIH ChestX-ray14 label file, and the images that lie beside it.

Reads `Data_Entry_2017.csv` and its 2020 revision as they are released: trailing empty columns,
ages over 100 or written `058Y`, findings joined by `|`.

Source: Wang et al., ChestX-ray8, CVPR 2017; https://nihcc.app.box.com/v/ChestXray-NIHCC
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cardiomegaly import UserError

FINDING = "Cardiomegaly"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
OLDEST_AGE = 100.0  # years; the 2017 file holds ages up to 414
YEARS_PER_UNIT = {"Y": 1.0, "M": 1 / 12, "W": 1 / 52, "D": 1 / 365.25, "": 1.0}

COLUMNS = {
    "Image Index": "image",
    "Patient ID": "patient_id",
    "Finding Labels": "findings",
    "Follow-up #": "follow_up",
    "Patient Age": "age",
    "Patient Gender": "sex",
    "View Position": "view_position",
    "OriginalImage[Width": "width",
    "Height]": "height",
    "OriginalImagePixelSpacing[x": "spacing_x",
    "y]": "spacing_y",
}
INTEGERS = ("patient_id", "follow_up")
NUMBERS = ("width", "height", "spacing_x", "spacing_y")


@dataclass(frozen=True)
class LabelledImages:
    """The rows of the label file whose image was found, and what was not."""

    table: pd.DataFrame  # the columns of `read_labels` and path, bytes, mtime_ns, row
    label_file: Path
    label_file_sha256: str
    n_rows: int

    @property
    def n_missing(self) -> int:
        """Rows of the label file without an image in the folder."""
        return self.n_rows - len(self.table)


def read_labels(path: Path) -> pd.DataFrame:
    """Read an NIH label file into one row an image.

    Returns:
        Columns image, patient_id, target (1 = cardiomegaly), findings, follow_up, age (years, NaN
        where impossible), sex (M, F), view_position (PA, AP), width and height (original pixels),
        spacing_x and spacing_y (mm).

    Raises:
        UserError: no such file.
        UserError: not a readable CSV, a column is missing, a value cannot be read, or an image
            is listed twice.
    """
    if not path.is_file():
        raise UserError(f"label file {path} does not exist")
    try:
        raw = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"label file {path} is not a readable CSV: {error}") from error
    raw.columns = raw.columns.str.strip()
    absent = [name for name in COLUMNS if name not in raw.columns]
    if absent:
        raise UserError(
            f"label file {path} lacks the column {absent[0]!r}; it needs "
            f"{', '.join(COLUMNS)}; it has {', '.join(raw.columns[:12])}"
        )
    table = raw[list(COLUMNS)].rename(columns=COLUMNS)
    if table.empty:
        raise UserError(f"label file {path} has a header but no rows")
    for column in INTEGERS + NUMBERS:
        table[column] = _numbers(table[column], path, column)
    table = table.astype(dict.fromkeys(INTEGERS, "int64"))
    table["age"] = parse_age(table["age"])
    for column, allowed in (("sex", ("M", "F")), ("view_position", ("PA", "AP"))):
        _check_values(table[column], allowed, path, column)
    twice = table["image"][table["image"].duplicated()]
    if len(twice):
        raise UserError(
            f"label file {path} lists {len(twice)} images more than once, first {twice.iloc[0]!r}; "
            "every image needs one row"
        )
    target = table["findings"].str.contains(rf"(?:^|\|)\s*{FINDING}\s*(?:\||$)", regex=True)
    table.insert(2, "target", target.astype("int8"))
    return table


def parse_age(text: pd.Series) -> pd.Series:
    """Ages in years from numbers or DICOM age strings (`058Y`, `006M`); NaN where over 100."""
    parts = text.str.strip().str.upper().str.extract(r"^(\d+(?:\.\d+)?)\s*([YMWD]?)$")
    years = pd.to_numeric(parts[0]) * parts[1].map(YEARS_PER_UNIT)
    return years.where(years <= OLDEST_AGE).astype("float64")


def find_label_file(root: Path, name: str | None = None) -> Path:
    """Find the label file in `root`: `name`, or the one file `Data_Entry_2017*.csv`.

    Raises:
        UserError: no such folder or no label file in it.
        UserError: several label files and no name.
    """
    if not root.is_dir():
        raise UserError(
            f"data.root: no folder {str(root)!r}; it must hold {name or 'Data_Entry_2017*.csv'} "
            "and the images; say data.root=FOLDER"
        )
    if name is not None:
        return root / name
    found = sorted(root.glob("Data_Entry_2017*.csv"))
    if not found:
        raise UserError(
            f"data.root: {str(root)!r} holds no Data_Entry_2017*.csv; put NIH's label file there, "
            "say data.labels=FILE if it has another name, or try data=phantom"
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"data.labels: {str(root)!r} holds {names}; choose one by data.labels=NAME")
    return found[0]


def find_images(root: Path) -> pd.DataFrame:
    """List every PNG and JPEG below `root` in one walk.

    Where a name occurs twice, the file in a folder called `images*` (as in the official archives)
    is the one meant.

    Returns:
        Index: file name without suffix; columns path, bytes, mtime_ns.

    Raises:
        UserError: a name occurs twice and the folders do not tell which is meant.
    """
    records = []
    folders = [(str(root.resolve()), False)]
    while folders:
        folder, official = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append((entry.path, official or entry.name.startswith("images")))
                    continue
                stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122 (112,120 times)
                if suffix.lower() in IMAGE_SUFFIXES:
                    stat = entry.stat()
                    records.append((stem, entry.path, stat.st_size, stat.st_mtime_ns, official))
    found = pd.DataFrame(records, columns=["stem", "path", "bytes", "mtime_ns", "official"])
    found = found.sort_values(["official", "path"], ascending=[False, True])
    best = ~found.duplicated("stem")
    unclear = found[found.duplicated(["stem", "official"]) & found["official"]]
    if unclear.empty and not found["official"].any():
        unclear = found[~best]
    if len(unclear):
        first = unclear.iloc[0]
        other = found[best & (found["stem"] == first["stem"])].iloc[0]
        raise UserError(
            f"data.root: {len(unclear)} image names occur more than once below {root}, first "
            f"{other['path']} and {first['path']}; keep one of each"
        )
    return found[best].set_index("stem").drop(columns="official")


def load_labelled_images(root: Path, labels: str | None = None) -> LabelledImages:
    """Read the label file of a folder and keep the rows whose image is there.

    Raises:
        UserError: no folder, no label file, or none of its images.
        UserError: as in `read_labels` and `find_images`.
    """
    label_file = find_label_file(root, labels)
    table = read_labels(label_file)
    images = find_images(root)
    table["stem"] = table["image"].str.replace(r"\.[^.]*$", "", regex=True)
    joined = table.join(images, on="stem", how="inner").drop(columns="stem").reset_index(drop=True)
    joined["row"] = joined.index  # the row in the image cache
    if joined.empty:
        raise UserError(
            f"data.root: none of the {len(table):,} images of {label_file.name} lies below "
            f"{str(root)!r} ({len(images):,} other PNG or JPEG files do); unpack NIH's "
            "images_*.tar.gz there"
        )
    digest = hashlib.sha256(label_file.read_bytes()).hexdigest()
    return LabelledImages(joined, label_file, digest, len(table))


def _numbers(text: pd.Series, path: Path, column: str) -> pd.Series:
    numbers = pd.to_numeric(text, errors="coerce")
    wrong = numbers.isna()
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise UserError(
            f"label file {path}, line {row + 2}: {column} must be a number, got {text[row]!r}"
        )
    return numbers


def _check_values(text: pd.Series, allowed: tuple[str, ...], path: Path, column: str) -> None:
    wrong = ~text.isin(allowed)
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise UserError(
            f"label file {path}, line {row + 2}: {column} must be one of {', '.join(allowed)}, "
            f"got {text[row]!r}"
        )
