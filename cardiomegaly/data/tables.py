"""One reader for the label tables of all data sets: `conf/data` says what their columns mean.

A table names a class in a cell of its own (`Cardiomegaly` is 1, 0, -1 or blank) or in a list
(`Cardiomegaly|Effusion`, `['cardiomegaly']`); a single value is a list of one.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd

from cardiomegaly import UserError
from cardiomegaly.config import DataConfig

NO_FINDING = "No Finding"
OLDEST_AGE = 100.0  # years; NIH's file of 2017 holds ages up to 414
YEARS_PER_UNIT = {"Y": 1.0, "M": 1 / 12, "W": 1 / 52, "D": 1 / 365.25, "": 1.0}
LARGEST_NUMBER = 2**53  # up to which a float tells whole numbers apart
NUMBERS = ("follow_up", "width", "height", "spacing_x", "spacing_y")
LIST_MARKS = re.compile(r"[|;,+\[\]'\"]+")
WHOLE = re.compile(r"(-?\d+)\.0+")  # 1.0 is 1
POSITIVE, UNCERTAIN = "1", "-1"  # where each finding has a column


def read_labels(path: Path, data: DataConfig) -> pd.DataFrame:
    """Read a label table into one row an image.

    Args:
        path: the table, a CSV that may be compressed.
        data: what its columns mean.

    Returns:
        Columns image, patient_id, label (positive, negative, uncertain, blank), target (1 =
        positive; NaN where `data.uncertain` or `data.blank` ignore the row), findings (joined by
        |), view_position (PA, AP, lateral, other), sex (M, F), age (years, NaN where impossible),
        follow_up (0 = first); what is not known is missing. Year of the study, sizes and spacings
        of the original image where the table has them.

    Raises:
        UserError: no such file, not a readable CSV, a column is missing, a value cannot be read or
            is unknown, the finding is in no row, or an image is listed twice.
    """
    raw = _raw_rows(path, data)
    cells = _named_columns(raw, path, data)
    image, target = cells["image"], cells["target"]
    _refuse(image.eq(""), image, path, "image must not be blank")
    _check_numbers_of_patients(cells["patient_id"], path)
    twice = image[image.duplicated()]
    if len(twice):
        raise UserError(
            f"label file {path} lists {len(twice)} images more than once, first {twice.iloc[0]!r}; "
            "every image needs one row"
        )
    label = _labels(target, path, data)
    target_of = {"positive": 1, "negative": 0, "ignore": np.nan}
    target_of |= {"uncertain": target_of[data.uncertain], "blank": target_of[data.blank]}
    table = pd.DataFrame(
        {
            "image": image,
            "patient_id": patient_ids(cells["patient_id"]),
            "label": label,
            "target": label.map(target_of),
            "findings": _findings(raw, data),
            "view_position": _view(cells, data),
            "sex": cells["sex"].map(data.codings["sex"]),
            "age": _age(cells),
        }
    )
    for name in NUMBERS:
        if name == "follow_up" or data.columns[name] is not None:
            table[name] = _numbers(cells[name], path, name)
    if data.columns["date"] is not None:
        table["year"] = pd.to_numeric(cells["date"].str[:4], errors="coerce").astype("Int64")
    if data.columns["date"] is not None and data.columns["follow_up"] is None:
        date = pd.to_numeric(cells["date"], errors="coerce")
        table["follow_up"] = date.groupby(cells["patient_id"]).rank("dense") - 1
    if table["target"].notna().all():
        table["target"] = table["target"].astype("int8")
    return table


def read_csv(path: Path, what: str, hint: str = "") -> pd.DataFrame:
    """Read a CSV of somebody else's as text, with the blanks around its column names removed.

    Args:
        path: of the file.
        what: it is, for messages.
        hint: what to do where there is no such file.

    Raises:
        UserError: no such file, or not a readable CSV.
    """
    if not path.is_file():
        raise UserError(f"{what} {path} does not exist{hint}")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {path} is not a readable CSV: {error}") from error
    table.columns = table.columns.str.strip()
    return table


def parse_age(text: pd.Series) -> pd.Series:
    """Ages in years from numbers, DICOM's `058Y` or `006M`, or `85 or more`; NaN where over 100."""
    given = pd.Series(text.unique(), dtype="string")  # few, of many rows
    parts = given.str.strip().str.upper().str.extract(r"^(\d+(?:\.\d+)?)\s*([YMWD]?)(?: OR MORE)?$")
    years = pd.to_numeric(parts[0]) * parts[1].map(YEARS_PER_UNIT)
    known = years.where(years <= OLDEST_AGE).astype("float64")
    return text.map(dict(zip(given, known, strict=True))).astype("float64")


def patient_ids(text: pd.Series) -> pd.Series:
    """Whole numbers where all identifiers are, else text; missing where one is blank."""
    known = text.where(text.notna() & text.ne(""))
    numbers = pd.to_numeric(known, errors="coerce")
    if known.notna().all() and numbers.between(0, LARGEST_NUMBER).all() and not (numbers % 1).any():
        return numbers.astype("int64")
    return known


def _check_numbers_of_patients(text: pd.Series, path: Path) -> None:
    """Refuse 1.7 and 1e20 where every patient has a number."""
    numbers = pd.to_numeric(text, errors="coerce")
    if numbers.notna().all():
        small = numbers.le(LARGEST_NUMBER) & numbers.mod(1).eq(0)
        whole = numbers.ge(0) & (small | text.str.isdigit())
        _refuse(~whole, text, path, "patient_id must be a whole number, as all others are")


def _raw_rows(path: Path, data: DataConfig) -> pd.DataFrame:
    """The rows of a table, joined to another, chosen and voted on where that is configured."""
    raw = read_csv(path, "label file")
    if data.join is not None:
        other = find_file(path.parent, data.join.file)
        raw = raw.merge(read_csv(other, "table"), on=data.join.by, suffixes=("", " (joined)"))
    for column, value in data.where.items():
        _require_column(raw, column, path, f"data.where.{column}")
        if value is not None:
            raw = raw[raw[column] == str(value)]
    if data.votes is not None:
        raw = _vote(raw, path, data)
    if raw.empty:
        raise UserError(f"label file {path} has a header but no rows")
    return raw.reset_index(drop=True)


def find_file(folder: Path, name: str) -> Path:
    """The one file of a name, or of a pattern such as `Data_Entry_2017*.csv`, in a folder.

    Raises:
        UserError: none, or several.
    """
    paths = [folder / name] if (folder / name).is_file() else sorted(folder.glob(name))
    if not paths:
        raise UserError(f"{str(folder)!r} holds no {name}")
    if len(paths) > 1:
        raise UserError(f"{str(folder)!r} holds {', '.join(path.name for path in paths)}")
    return paths[0]


def _vote(raw: pd.DataFrame, path: Path, data: DataConfig) -> pd.DataFrame:
    """One row an image, with the list of what at least `data.votes` readers name."""
    image, finding, reader = (str(data.columns[name]) for name in ("image", "target", "reader"))
    for column in (image, finding, reader):
        _require_column(raw, column, path, "data.columns")
    named = raw.drop_duplicates([image, finding, reader]).groupby([image, finding], sort=False)
    votes = named.size().rename("votes").reset_index()
    agreed = votes[votes["votes"] >= data.votes].groupby(image)[finding].agg("|".join)
    images = pd.Index(raw[image].unique(), name=image)
    return agreed.reindex(images, fill_value=NO_FINDING).reset_index()


def _named_columns(raw: pd.DataFrame, path: Path, data: DataConfig) -> dict[str, pd.Series]:
    """The text of every column by our name for it; missing where the table has none."""
    cells: dict[str, pd.Series] = {}
    for name, column in data.columns.items():
        if name in ("findings", "reader"):  # read apart
            continue
        if name in ("image", "target") and column is None:
            raise UserError(
                f"data.columns.{name}: names the column of the {name}; {path} has "
                f"{', '.join(raw.columns[:12])}"
            )
        if column is None or (name in data.optional and column not in raw):
            cells[name] = pd.Series(np.nan, raw.index, dtype=object)
            continue
        column = next((one for one in column.split("|") if one in raw), column)
        _require_column(raw, column, path, f"data.columns.{name}")
        cells[name] = raw[column].str.strip()
        if name in data.patterns:
            cells[name] = cells[name].str.extract(data.patterns[name], expand=False)
            wrong = cells[name].isna()
            _refuse(wrong, raw[column], path, f"{column} must contain {data.patterns[name]}")
    return cells


def _require_column(raw: pd.DataFrame, column: str, path: Path, field: str) -> None:
    if column not in raw:
        near = get_close_matches(column, raw.columns, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UserError(
            f"label file {path} lacks the column {column!r}{hint} of {field}; it has "
            f"{', '.join(raw.columns[:25])}"
        )


def _items(text: str) -> list[str]:
    """What a cell lists."""
    names = [name.strip() for name in LIST_MARKS.split(text)]
    return [WHOLE.sub(r"\1", name) for name in names if name]


def _labels(cells: pd.Series, path: Path, data: DataConfig) -> pd.Series:
    """positive, negative, uncertain or blank, by what a cell lists."""
    items = {text: _items(text) for text in cells.unique()}
    if data.vocabulary is not None:
        _check_vocabulary(cells, items, path, data.vocabulary)
    positive = WHOLE.sub(r"\1", str(data.positive)).casefold()
    names = {}
    for text, listed in items.items():
        if positive in [name.casefold() for name in listed]:
            names[text] = "positive"
        elif not listed:
            names[text] = "blank"
        else:
            names[text] = "uncertain" if listed == [UNCERTAIN] else "negative"
    known = data.vocabulary or list({name: None for listed in items.values() for name in listed})
    if positive not in [name.casefold() for name in known]:
        near = get_close_matches(str(data.positive), known, n=3, cutoff=0.4) or known[:12]
        raise UserError(
            f"label file {path}: no image can have {str(data.positive)!r} in the column "
            f"{data.columns['target']!r}; it has {', '.join(near)} (data.finding, data.positive)"
        )
    return cells.map(names)


def _check_vocabulary(
    cells: pd.Series, items: dict[str, list[str]], path: Path, vocabulary: list[str]
) -> None:
    """Each item must be known; a blank one only where blank is."""
    known = set(vocabulary)
    blanks = {text: len(text.split("|")) > len(listed) for text, listed in items.items()}
    wrong = cells.map(
        {
            text: (blanks[text] and "" not in known) or not set(items[text]) <= known
            for text in items
        }
    )
    hint = ""
    if wrong.any():
        first = next((name for name in items[cells[wrong].iloc[0]] if name not in known), "")
        near = get_close_matches(first.title(), vocabulary, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
    named = [name or "blank" for name in vocabulary]
    also = "" if "" in known else ", joined by '|' and never blank"
    _refuse(wrong, cells, path, f"findings must be some of {', '.join(named)}{also}", hint)


def _findings(raw: pd.DataFrame, data: DataConfig) -> pd.Series:
    """All findings of an image joined by |; `No Finding` by this name."""
    columns = data.columns["findings"]
    if columns is None:
        return pd.Series(np.nan, raw.index, dtype=object)
    if isinstance(columns, str):
        text = raw[columns]
        lists = {cell: _items(cell) for cell in text.unique()}
    else:
        there = [column for column in columns if column in raw]
        text = raw[there[0]].str.cat([raw[column] for column in there[1:]], sep=",")
        lists = {  # many rows, few combinations
            cell: [
                name
                for name, value in zip(there, cell.split(","), strict=True)
                if WHOLE.sub(r"\1", value) == POSITIVE
            ]
            for cell in text.unique()
        }
    normal = data.normal.casefold()
    joined = {}
    for cell, names in lists.items():
        ill = [name for name in names if name.casefold() != normal]
        joined[cell] = "|".join(ill) or (NO_FINDING if names else "")
    return text.map(joined)


def _view(cells: dict[str, pd.Series], data: DataConfig) -> pd.Series:
    """PA, AP, lateral or other; missing where nothing is said."""
    codes, given = data.codings["view_position"], cells["view_position"]
    view = given.map(lambda code: codes.get(code, "other"), na_action="ignore")
    view = view.where(given.ne("") & view.notna(), None)
    projection = cells["projection"].map(data.codings["projection"])
    return view.where(projection.ne("lateral"), "lateral")


def _age(cells: dict[str, pd.Series]) -> pd.Series:
    """Age in years, or the years from birth to the study."""
    if cells["birth"].isna().all():
        return parse_age(cells["age"].astype("string"))
    year = [pd.to_numeric(cells[name].str[:4], errors="coerce") for name in ("date", "birth")]
    years = year[0] - year[1]
    return years.where(years.between(0, OLDEST_AGE))


def _numbers(text: pd.Series, path: Path, column: str) -> pd.Series:
    numbers = pd.to_numeric(text.where(text.ne("")), errors="coerce")
    wrong = numbers.isna() & text.notna() & text.ne("")
    _refuse(wrong, text, path, f"{column} must be a number or blank")
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
