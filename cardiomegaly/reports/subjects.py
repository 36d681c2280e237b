"""What an evaluation judges: predictions of runs, or of anybody, beside their labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from cardiomegaly import UserError
from cardiomegaly.data.labels import read_labels
from cardiomegaly.evaluation.comparison import common_images, refuse_repeats
from cardiomegaly.evaluation.fitting import Cohort, Predicted
from cardiomegaly.training.record import SPLIT, Run

OWN_COLUMNS = ["image", "patient_id", "target", "probability"]
TIME_COLUMNS = ["image", "patient_id", "follow_up", "target"]


@dataclass
class Subject:
    """Images and models to judge, the first model being the one judged in every way.

    `images` has image, patient_id and part (train, val, test; "all" where the training is unknown)
    of every image that the models may have seen.
    """

    name: str
    cohort: Cohort
    models: dict[str, Predicted]
    images: pd.DataFrame
    origin: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def name_runs(runs: list[Run]) -> dict[str, Run]:
    """Name runs by their folder, with as much of the path as tells them apart."""
    for depth in range(1, max(len(run.folder.resolve().parts) for run in runs) + 1):
        names = ["/".join(run.folder.resolve().parts[-depth:]) for run in runs]
        if len(set(names)) == len(runs):
            return dict(zip(names, runs, strict=True))
    raise UserError(f"run: each run may be given once, got {', '.join(names)}")


def average(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Average the probabilities of models on the same images.

    Raises:
        UserError: the models were not tested on the same images.
    """
    aligned = common_images(tables)
    mean = np.mean([table["probability"] for table in aligned.values()], axis=0)
    return next(iter(aligned.values())).assign(probability=mean)


def subject_of_runs(
    name: str, runs: list[Run], tables: Mapping[str, pd.DataFrame], labels: Path | None
) -> Subject:
    """Judge models by their prediction tables (validation and test rows), split as the runs were.

    Args:
        name: of the whole.
        runs: the runs behind the tables; the first gives split and origin.
        tables: by model name, the one to judge first.
        labels: NIH's label file; without it, only the columns of the predictions are known.

    Raises:
        UserError: as `common_images`; or no test images; or an image that the label file lacks.
    """
    tests, vals = ({name: _rows(name, table, part) for name, table in tables.items()}
                   for part in ("test", "val"))  # fmt: skip
    if len(tables) > 1:
        tests, vals = common_images(tests), common_images(vals)
    first, val = next(iter(tests.values())), next(iter(vals.values()))
    run, warnings, train, timeline = runs[0], [], None, None
    split = pd.read_csv(run.folder / SPLIT, dtype={"image": str, "split": str})
    shared = split.groupby("patient_id")["split"].nunique().gt(1).sum()
    if shared:
        warnings.append(
            f"{shared:,} patients stand in more than one part of the split: the network has seen "
            "patients that it is tested on, and every figure here is too favourable."
        )
    if run.meta.get("data") == "phantom":
        warnings.append(
            "These predictions are of the phantom cohort, which is generated: the figures show "
            "that the program works and say nothing about radiographs."
        )
    if labels is None:
        warnings.append("The label file is not at hand (say labels=FILE): parts are left out.")
    else:
        digest = hashlib.sha256(labels.read_bytes()).hexdigest()
        if run.label_file_sha256 not in (None, digest):
            warnings.append(f"{labels} is not the label file that the run was trained with.")
        table = read_labels(labels)
        first = join_labels(first, table, "predictions")
        train = join_labels(split[split["split"] == "train"][["image"]], table, SPLIT)
        timeline = table.loc[table["patient_id"].isin(first["patient_id"]), TIME_COLUMNS]
    models = {
        model: Predicted(tests[model]["probability"].to_numpy(), _probability(vals[model]))
        for model in tables
    }
    cohort = Cohort(first, val["target"].to_numpy() if len(val) else None, train, timeline)
    images = split[["image", "patient_id", "split"]].rename(columns={"split": "part"})
    return Subject(name, cohort, models, images, _origin(runs, labels), warnings)


def _rows(name: str, table: pd.DataFrame, part: str) -> pd.DataFrame:
    rows = table[table["split"] == part].drop(columns="split").reset_index(drop=True)
    refuse_repeats(name, rows["image"])
    if part == "test" and rows.empty:
        raise UserError(f"{name}: the run has no test images; train it with a test part")
    return rows


def _probability(table: pd.DataFrame) -> np.ndarray | None:
    return table["probability"].to_numpy() if len(table) else None


def _origin(runs: list[Run], labels: Path | None) -> dict[str, str]:
    meta = runs[0].meta
    found = {f"run {place}": str(run.folder) for place, run in enumerate(runs, 1)}
    kept = ("backbone", "head", "balance", "seed", "cohort", "split", "split_hash", "data_root")
    found |= {name: str(meta[name]) for name in kept if name in meta and len(runs) == 1}
    return found | {"label file": str(labels) if labels else "not at hand"}


def subject_of_csv(
    predictions: Path, labels: Path, image_column: str, probability_column: str
) -> Subject:
    """Judge anybody's predictions against NIH's label file.

    Raises:
        UserError: a file is missing.
        UserError: a column is missing, a probability is no number from 0 to 1, an image stands
            twice or is not in the label file.
    """
    if not predictions.is_file():
        raise UserError(f"predictions: {predictions} does not exist; give a CSV file")
    try:
        raw = pd.read_csv(predictions, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"predictions: {predictions} is not a readable CSV: {error}") from error
    wanted = {"image_column": image_column, "probability_column": probability_column}
    for option, column in wanted.items():
        if column not in raw:
            raise UserError(
                f"predictions: {predictions} has no column {column!r}; "
                f"say {option}=NAME, one of {', '.join(raw.columns)}"
            )
    if raw.empty:
        raise UserError(f"predictions: {predictions} has a header but no rows")
    probability = pd.to_numeric(raw[probability_column], errors="coerce")
    wrong = ~probability.between(0, 1).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"predictions: {predictions}, line {row + 2}: {probability_column} must be a number "
            f"from 0 to 1, got {raw[probability_column].iloc[row]!r} ({int(wrong.sum())} such rows)"
        )
    given = pd.DataFrame({"image": raw[image_column].str.strip(), "probability": probability})
    table = read_labels(labels)
    test = join_labels(given, table, str(predictions))
    refuse_repeats("predictions", test["image"])
    timeline = table.loc[table["patient_id"].isin(test["patient_id"]), TIME_COLUMNS]
    models = {predictions.stem: Predicted(test["probability"].to_numpy(np.float64), None)}
    origin = {"predictions": str(predictions), "label file": str(labels)}
    images = test[["image", "patient_id"]].assign(part="all")
    return Subject(predictions.stem, Cohort(test, labels=timeline), models, images, origin)


def join_labels(given: pd.DataFrame, labels: pd.DataFrame, name: str) -> pd.DataFrame:
    """Set the label file's columns beside images, whose names may lack or have a suffix or folder.

    Targets and patients that `given` has already stay as they are.

    Raises:
        UserError: an image that the label file lacks.
    """
    added = labels.drop(columns=[column for column in OWN_COLUMNS[1:3] if column in given])
    keep = [column for column in given if column in ("image", *OWN_COLUMNS)]
    joined = given[keep].assign(key=_key(given["image"])).drop(columns="image")
    joined = joined.merge(added.assign(key=_key(labels["image"])), on="key", how="left")
    lacking = joined["image"].isna()
    if lacking.any():
        raise UserError(
            f"labels: {int(lacking.sum())} of {len(given)} images of {name} are not in the label "
            f"file, {joined['key'][lacking].iloc[0]!r} for one; give the label file they belong to"
        )
    return joined.drop(columns="key")


def _key(images: pd.Series) -> pd.Series:
    names = images.str.replace(r"^.*[/\\]", "", regex=True)
    return names.str.replace(r"\.(?:png|jpe?g)$", "", regex=True, case=False)
