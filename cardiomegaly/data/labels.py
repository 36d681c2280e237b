"""The NIH ChestX-ray14 label file, and the images that lie beside it.

Reads `Data_Entry_2017.csv` and its revisions of 2020 as they are released: trailing empty columns,
`Patient Gender` or `Patient Sex`, ages over 100 or written `058Y`, findings joined by `|`.

Source: Wang et al., ChestX-ray8, CVPR 2017; https://nihcc.app.box.com/v/ChestXray-NIHCC
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd

from cardiomegaly import UserError
from cardiomegaly.data.image_folder import ImageFolder

FINDING = "Cardiomegaly"
FINDINGS = (
    "No Finding", "Atelectasis", FINDING, "Consolidation", "Edema", "Effusion", "Emphysema",
    "Fibrosis", "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia",
    "Pneumothorax",
)  # fmt: skip
OLDEST_AGE = 100.0  # years; the 2017 file holds ages up to 414
YEARS_PER_UNIT = {"Y": 1.0, "M": 1 / 12, "W": 1 / 52, "D": 1 / 365.25, "": 1.0}
LARGEST_NUMBER = 2**53  # up to which a float tells whole numbers apart

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
OTHER_NAMES = {"Patient Sex": "Patient Gender"}
WHOLE_NUMBERS = ("patient_id", "follow_up")
NUMBERS = ("width", "height", "spacing_x", "spacing_y")


@dataclass(frozen=True)
class LabelledImages:
    """The rows of the label file whose image was found, and what was not."""

    table: pd.DataFrame  # the columns of `read_labels`, path and key (of `images.ImageFile`)
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
        UserError: no such file, not a readable CSV, a column is missing, a value cannot be read, a
            finding is blank or unknown, or an image is listed twice.
    """
    raw = read_csv(path, "label file").rename(columns=OTHER_NAMES)
    absent = [name for name in COLUMNS if name not in raw.columns]
    if absent:
        raise UserError(
            f"label file {path} lacks the column {absent[0]!r}; it needs "
            f"{', '.join(COLUMNS)}; it has {', '.join(raw.columns[:12])}"
        )
    table = raw[list(COLUMNS)].rename(columns=COLUMNS)
    if table.empty:
        raise UserError(f"label file {path} has a header but no rows")
    for column in WHOLE_NUMBERS + NUMBERS:
        table[column] = _numbers(table[column], path, column)
    table = table.astype(dict.fromkeys(WHOLE_NUMBERS, "int64"))
    table["age"] = parse_age(table["age"])
    for column, allowed in (("sex", ("M", "F")), ("view_position", ("PA", "AP"))):
        _refuse(
            ~table[column].isin(allowed), table[column], path,
            f"{column} must be one of {', '.join(allowed)}",
        )  # fmt: skip
    twice = table["image"][table["image"].duplicated()]
    if len(twice):
        raise UserError(
            f"label file {path} lists {len(twice)} images more than once, first {twice.iloc[0]!r}; "
            "every image needs one row"
        )
    table.insert(2, "target", _target(table["findings"], path))
    return table


def read_csv(path: Path, what: str) -> pd.DataFrame:
    """Read a CSV of somebody else's as text, with the blanks around its column names removed.

    Raises:
        UserError: no such file, or not a readable CSV.
    """
    if not path.is_file():
        raise UserError(f"{what} {path} does not exist")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {path} is not a readable CSV: {error}") from error
    table.columns = table.columns.str.strip()
    return table


def parse_age(text: pd.Series) -> pd.Series:
    """Ages in years from numbers or DICOM age strings (`058Y`, `006M`); NaN where over 100."""
    parts = text.str.strip().str.upper().str.extract(r"^(\d+(?:\.\d+)?)\s*([YMWD]?)$")
    years = pd.to_numeric(parts[0]) * parts[1].map(YEARS_PER_UNIT)
    return years.where(years <= OLDEST_AGE).astype("float64")


def find_label_file(root: Path, name: str | None = None) -> Path:
    """Find the label file in `root`: `name`, or the one file `Data_Entry_2017*.csv`.

    Raises:
        UserError: no such folder, no label file in it, or several and no name.
    """
    if not root.is_dir():
        raise UserError(
            f"data.root: no folder {str(root)!r}; it must hold {name or 'Data_Entry_2017*.csv'} "
            "and the images; say data.root=FOLDER"
        )
    if name is not None:
        return root / name
    paths = sorted(root.glob("Data_Entry_2017*.csv"))
    if not paths:
        raise UserError(
            f"data.root: {str(root)!r} holds no Data_Entry_2017*.csv; put NIH's label file there, "
            "say data.labels=FILE if it has another name, or try data=phantom"
        )
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise UserError(f"data.labels: {str(root)!r} holds {names}; choose one by data.labels=NAME")
    return paths[0]


def load_labelled_images(root: Path, labels: str | None = None) -> LabelledImages:
    """Read the label file of a folder and keep the rows whose image is there.

    Raises:
        UserError: no folder, no label file, none of its images, or one file for two rows.
        UserError: as in `read_labels` and `ImageFolder.find`.
    """
    label_file = find_label_file(root, labels)
    table = read_labels(label_file)
    folder = ImageFolder(root)
    files = [folder.find(image) for image in table["image"]]
    joined = table[[file is not None for file in files]].reset_index(drop=True)
    if joined.empty:
        raise UserError(
            f"data.root: none of the {len(table):,} images of {label_file.name} lies below "
            f"{str(root)!r} ({len(folder.files):,} other PNG or JPEG files do); unpack NIH's "
            "images_*.tar.gz there"
        )
    joined["path"] = [file.path for file in files if file is not None]
    joined["key"] = np.array([file.key for file in files if file is not None], np.uint64)
    shared = joined[joined["path"].duplicated(keep=False)]
    if len(shared):
        first, second = shared["image"][shared["path"] == shared["path"].iloc[0]].iloc[:2]
        raise UserError(
            f"label file {label_file} lists {first!r} and {second!r}, and {shared['path'].iloc[0]} "
            "is the only file for both; every row needs an image of its own"
        )
    digest = hashlib.sha256(label_file.read_bytes()).hexdigest()
    return LabelledImages(joined, label_file, digest, len(table))


def _target(findings: pd.Series, path: Path) -> pd.Series:
    """1 where the findings name cardiomegaly; each of them must be known."""
    names = {text: [name.strip() for name in text.split("|")] for text in findings.unique()}
    wrong = findings.map({text: not set(names[text]) <= set(FINDINGS) for text in names})
    hint = ""
    if wrong.any():
        first = next(name for name in names[findings[wrong].iloc[0]] if name not in FINDINGS)
        near = get_close_matches(first.title(), FINDINGS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
    rule = f"findings must be some of {', '.join(FINDINGS)}, joined by '|' and never blank"
    _refuse(wrong, findings, path, rule, hint)
    return findings.map({text: FINDING in names[text] for text in names}).astype("int8")


def _numbers(text: pd.Series, path: Path, column: str) -> pd.Series:
    numbers = pd.to_numeric(text, errors="coerce")
    _refuse(numbers.isna(), text, path, f"{column} must be a number")
    if column in WHOLE_NUMBERS:
        fits = (numbers >= 0) & (numbers <= LARGEST_NUMBER) & (numbers % 1 == 0)
        _refuse(~fits, text, path, f"{column} must be a whole number of at most {LARGEST_NUMBER:,}")
    return numbers


def _refuse(wrong: pd.Series, text: pd.Series, path: Path, rule: str, hint: str = "") -> None:
    """Name the first row that breaks a rule, and count them."""
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        count = int(wrong.sum())
        others = f"; {count:,} rows are like it" if count > 1 else ""
        raise UserError(
            f"label file {path}, line {row + 2}: {rule}, got {text.iloc[row]!r}{hint}{others}"
        )
