"""The label table of a data folder, and the images that lie below it."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cardiomegaly import UserError
from cardiomegaly.config import DataConfig
from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.data.tables import find_file, read_labels

OPTIONAL = ("view_position", "sex", "age", "follow_up", "findings")


@dataclass(frozen=True)
class LabelledImages:
    """The rows of a label table that have a label and an image, and what was left out.

    Attributes:
        table: the columns of `tables.read_labels`, path and key (of `image_folder.ImageFile`).
            Where patients are not known, or `data.patient=image`, each image is a patient.
        label_file: the table.
        label_file_sha256: its hash.
        n_rows: images that the table lists.
        n_ignored: those whose label is uncertain or blank and ignored.
        label_counts: positive, negative, uncertain and blank among all that the table lists.
        patients_known: whether images of the same person can be told.
        unknown: columns that the table says nothing of.
    """

    table: pd.DataFrame
    label_file: Path
    label_file_sha256: str
    n_rows: int
    n_ignored: int
    label_counts: Counter[str]
    patients_known: bool
    unknown: list[str]

    @property
    def n_missing(self) -> int:
        """Labelled rows of the table without an image in the folder."""
        return self.n_rows - self.n_ignored - len(self.table)


def find_label_file(data: DataConfig) -> Path:
    """Find the label table in `data.root`.

    Raises:
        UserError: no such folder, no label table in it, or several that fit `data.labels`.
    """
    root = Path(data.root)
    if not root.is_dir():
        raise UserError(
            f"data.root: no folder {str(root)!r}; it must hold {data.labels} and the images; say "
            "data.root=FOLDER"
        )
    try:
        return find_file(root, data.labels)
    except UserError as mistake:
        raise UserError(
            f"data.root: {mistake}; say data.labels=NAME for the label table there, data=NAME for "
            "another data set, or try data=phantom"
        ) from mistake


def labelled_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows whose label counts, without the columns that nothing is known of."""
    known = table[table["target"].notna()].astype({"target": "int8"}).reset_index(drop=True)
    empty = [name for name in OPTIONAL if table[name].isna().all()]
    return known.drop(columns=["label", *empty])


def load_labelled_images(data: DataConfig) -> LabelledImages:
    """Read the label table of a folder and keep the rows that have a label and an image.

    Raises:
        UserError: as in `find_label_file`, `tables.read_labels` and `ImageFolder.find`.
        UserError: none of its images is there, or one file for two rows.
    """
    label_file = find_label_file(data)
    listed = read_labels(label_file, data)
    table = labelled_rows(listed)
    joined = _with_files(table, ImageFolder(Path(data.root)), label_file)
    patients_known = bool(listed["patient_id"].notna().all())
    if data.patient == "image" or not patients_known:
        joined["patient_id"] = joined["image"]
    return LabelledImages(
        table=joined,
        label_file=label_file,
        label_file_sha256=hashlib.sha256(label_file.read_bytes()).hexdigest(),
        n_rows=len(listed),
        n_ignored=len(listed) - len(table),
        label_counts=Counter(listed["label"]),
        patients_known=patients_known or data.patient == "image",
        unknown=[name for name in OPTIONAL if name not in table],
    )


def _with_files(table: pd.DataFrame, folder: ImageFolder, label_file: Path) -> pd.DataFrame:
    """The rows whose image is there, with path and key."""
    files = [folder.find(image) for image in table["image"]]
    joined = table[[file is not None for file in files]].reset_index(drop=True)
    if joined.empty:
        raise UserError(
            f"data.root: none of the {len(table):,} images of {label_file.name} lies below "
            f"{str(folder.root)!r} ({len(folder.files):,} other PNG, JPEG or DICOM files do); "
            f"unpack {table['image'].iloc[0]} and the others there"
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
    return joined
