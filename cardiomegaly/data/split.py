"""Which images take part, and in which part each of them stands.

The cohort is drawn first, then split, and only then is the training part balanced: a patient
stands in one part alone, except where `split=image` repeats what the Keras study did.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cardiomegaly import UserError
from cardiomegaly.config import FRONTAL

PARTS = ("train", "val", "test")
PART_NAMES = {"validate": "val", "valid": "val", "validation": "val", "dev": "val"}  # of others

OFFICIAL_LISTS = ("train_val_list.txt", "test_list.txt")


def draw_cohort(
    labels: pd.DataFrame,
    name: str,
    views: tuple[str, ...] = FRONTAL,
    negatives_per_positive: int = 4,
    seed: int = 0,
) -> pd.DataFrame:
    """Choose the images that take part.

    Args:
        labels: columns image and target; sex and view_position where they are known.
        name: `study` (every positive and, for each sex, at most `negatives_per_positive` times
            half the positives drawn at random; where sex is not known, that many times all
            positives) or `all`.
        views: the view positions that may take part; so do images of which none is known.
        negatives_per_positive: negatives drawn for one positive under `study`.
        seed: of the draw.

    Raises:
        UserError: unknown name, or no image is left.
    """
    if name not in ("study", "all"):
        raise UserError(f"cohort: must be study or all, got {name!r}")
    seen = labels
    if "view_position" in labels:
        view = labels["view_position"]
        seen = labels[view.isin(views) | view.isna()]
    if seen.empty:
        raise UserError(f"cohort.views={list(views)} leaves no image of {len(labels):,}")
    if name == "all":
        return seen.reset_index(drop=True)
    rng = np.random.default_rng(seed)
    chosen = [seen.index[seen["target"] == 1].to_numpy()]
    most = negatives_per_positive * len(chosen[0])
    negatives = seen[seen["target"] == 0]
    if "sex" in seen:
        groups = [
            negatives.index[negatives["sex"] == sex]
            for sex in sorted(seen["sex"].dropna().unique())
        ]
        most //= 2
    else:
        groups = [negatives.index]
    for candidates in groups:
        chosen.append(rng.permutation(candidates.to_numpy())[:most])
    return seen.loc[np.sort(np.concatenate(chosen))].reset_index(drop=True)


def split_cohort(
    cohort: pd.DataFrame,
    name: str,
    fractions: Sequence[float],
    seed: int,
    root: Path | None = None,
) -> pd.Series:
    """Assign every image of the cohort to train, val or test.

    Args:
        cohort: columns image, patient_id, target, and sex where it is known.
        name: `patient` (a patient stands in one part, parts alike in prevalence and sex),
            `image` (stratified by target and sex; patients leak) or `official` (NIH's lists in
            `root`; the validation part is taken from train_val by patient).
        fractions: of train, val and test; they sum to 1.
        seed: of the draw.
        root: the folder of the official lists.

    Returns:
        One of train, val, test for each row, in the cohort's order.

    Raises:
        UserError: unknown name, bad fractions, or the official lists do not cover the cohort.
        UserError: an official list is absent.
    """
    if len(fractions) != len(PARTS) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(
            f"split.fractions: must be three shares (train, val, test) that sum to 1, "
            f"got {list(fractions)}"
        )
    if name == "patient":
        return _by_patient(cohort, fractions, seed)
    if name == "image":
        singles = cohort.assign(patient_id=np.arange(len(cohort)))
        return _by_patient(singles, fractions, seed)
    if name == "official":
        return _official(cohort, fractions, seed, root or Path())
    raise UserError(f"split: must be patient, image or official, got {name!r}")


def read_split(path: Path, cohort: pd.DataFrame, column: str = "image") -> pd.Series:
    """Take the parts from a table such as `split.csv`; images it lacks get a NaN.

    Args:
        path: a table with a column `split` (train, val, test or another word for them).
        cohort: column image.
        column: the table's column of the images.

    Raises:
        UserError: no such file.
        UserError: a column is missing, a part is unknown, an image is listed twice, or no image
            of the cohort is in it.
    """
    if not path.is_file():
        raise UserError(f"split.file: {path} does not exist")
    given = pd.read_csv(path, dtype=str)
    for name in (column, "split"):
        if name not in given.columns:
            raise UserError(
                f"split.file: {path} lacks the column {name!r}; it needs {column} and split, "
                f"it has {', '.join(given.columns)}"
            )
    given["split"] = given["split"].replace(PART_NAMES)
    unknown = sorted(set(given["split"].dropna()) - set(PARTS))
    if unknown:
        raise UserError(f"split.file: split must be one of {', '.join(PARTS)}, got {unknown[0]!r}")
    twice = int(given[column].duplicated().sum())
    if twice:
        raise UserError(f"split.file: {path} lists {twice} images twice; keep one row of each")
    parts = cohort["image"].map(given.set_index(column)["split"])
    if parts.notna().sum() == 0:
        raise UserError(f"split.file: {path} holds none of the {len(cohort):,} images found")
    return parts


def read_lists(files: Mapping[str, str | None], cohort: pd.DataFrame) -> pd.Series:
    """Take the parts from a list of images each; images in no list get a NaN.

    Args:
        files: by part; the first word of each line is an image, with or without folders.
        cohort: column image.

    Raises:
        UserError: no such file, a list of none of the images, or an image in two lists.
    """
    parts = pd.Series(pd.NA, cohort.index, dtype="object")
    for part, file in files.items():
        if file is None or not Path(file).is_file():
            raise UserError(f"split.files.{part}: {file} does not exist; name a list of images")
        path = Path(file)
        names = {re.split(r"[\s,]", line, maxsplit=1)[0] for line in path.read_text().splitlines()}
        inside = cohort["image"].isin(names | {name.rpartition("/")[2] for name in names})
        if not inside.any():
            raise UserError(f"split.files.{part}: {path} lists none of the {len(cohort):,} images")
        twice = cohort["image"][inside & parts.notna()]
        if len(twice):
            raise UserError(f"split.files.{part}: {twice.iloc[0]!r} is in another list as well")
        parts[inside] = part
    return parts


def fold_cohort(
    cohort: pd.DataFrame, folds: int, fold: int, fractions: Sequence[float], seed: int
) -> pd.Series:
    """Test one of several folds of patients, which are alike in prevalence and sex.

    Args:
        cohort: as in `split_cohort`.
        folds: how many; their test parts hold every image once.
        fold: which of them is the test part, from 0.
        fractions: of train, val and test; of these, only train : val matters.
        seed: of the draw.
    """
    fold_of = _by_patient(cohort, [1 / folds] * folds, seed, range(folds))
    return _val_from_rest(cohort, fold_of == fold, fractions, seed)


def shared_patients(split: pd.DataFrame) -> int:
    """Count the patients who stand in more than one part (columns patient_id, split)."""
    return int(split.drop_duplicates(["patient_id", "split"])["patient_id"].duplicated().sum())


def check_split(split: pd.DataFrame, leaks_allowed: bool) -> None:
    """Refuse a split that cannot be trained on (columns patient_id, split, target).

    Raises:
        UserError: a patient stands in two parts, a part is empty, or a part lacks one class.
    """
    leaking = shared_patients(split)
    if leaking and not leaks_allowed:
        raise UserError(
            f"split: {leaking:,} patients stand in more than one part, so the test would be of "
            "patients seen in training; use split=patient (split=image repeats the study's leak)"
        )
    for part in PARTS:
        target = split.loc[split["split"] == part, "target"]
        if target.nunique() < 2:
            raise UserError(
                f"split: the {part} part holds {int((target == 1).sum())} images with and "
                f"{int((target == 0).sum())} without the finding; both are needed: use more data "
                "or other split.fractions"
            )


def split_hash(split: pd.DataFrame) -> str:
    """SHA-256 of the sorted `image,split` lines: equal for runs on the same split."""
    lines = sorted(split["image"] + "," + split["split"])
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _by_patient(
    cohort: pd.DataFrame,
    fractions: Sequence[float],
    seed: int,
    names: Sequence[Hashable] = PARTS,
) -> pd.Series:
    """Deal patients out like cards, within strata of sex and of ever having been positive.

    A stratum is sorted so that like patients follow each other (ties at random), and each patient
    goes to the part that lags furthest behind its share: of the positives where the patient has
    any, else of the images. The parts end alike in prevalence, sex and images a patient.
    """
    sex = cohort["sex"].fillna("unknown") if "sex" in cohort else "unknown"
    patients = (
        cohort.assign(sex=sex)
        .groupby("patient_id")
        .agg(positives=("target", "sum"), images=("target", "size"), sex=("sex", "first"))
    )
    rng = np.random.default_rng(seed)
    patients["tie"] = rng.permutation(len(patients))
    patients = patients.sort_values(["positives", "images", "tie"])
    share = np.asarray(fractions)
    part_of: dict[Hashable, Hashable] = {}
    for (positive, _), stratum in patients.groupby([patients["positives"] > 0, "sex"]):
        sizes = stratum["positives" if positive else "images"]
        lag = rng.uniform(0, 1, len(share)) * share  # where to begin is random as well
        for patient, size in zip(stratum.index.tolist(), sizes.tolist(), strict=True):
            lag += share * size
            part = int(np.argmax(np.where(share > 0, lag, -np.inf)))
            lag[part] -= size
            part_of[patient] = names[part]
    return cohort["patient_id"].map(part_of)


def _official(cohort: pd.DataFrame, fractions: Sequence[float], seed: int, root: Path) -> pd.Series:
    listed = {}
    for file_name in OFFICIAL_LISTS:
        path = root / file_name
        if not path.is_file():
            raise UserError(
                f"split=official: {path} does not exist; put NIH's {' and '.join(OFFICIAL_LISTS)} "
                "in data.root, or use split=patient"
            )
        listed.update(dict.fromkeys(path.read_text().split(), file_name))
    source = cohort["image"].map(listed)
    if source.isna().any():
        raise UserError(
            f"split=official: {int(source.isna().sum()):,} images are in neither list, first "
            f"{cohort['image'][source.isna()].iloc[0]!r}"
        )
    return _val_from_rest(cohort, source != OFFICIAL_LISTS[0], fractions, seed)


def _val_from_rest(
    cohort: pd.DataFrame, tested: pd.Series, fractions: Sequence[float], seed: int
) -> pd.Series:
    """Split what is not tested into train and val, by patient."""
    parts = pd.Series("test", index=cohort.index)
    rest = ~tested
    train, val, _ = fractions
    if train + val <= 0:
        raise UserError("split.fractions: train and val must not both be 0 where test is given")
    within = (train / (train + val), val / (train + val), 0.0)
    parts[rest] = _by_patient(cohort[rest], within, seed)
    return parts
