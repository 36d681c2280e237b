"""What an evaluation judges: predictions of runs, or of anybody, beside their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cardiomegaly import UserError
from cardiomegaly.config import DataConfig
from cardiomegaly.data.labels import OPTIONAL, labelled_rows
from cardiomegaly.data.tables import read_csv, read_labels
from cardiomegaly.evaluation.comparison import common_images, refuse_repeats
from cardiomegaly.evaluation.fitting import Cohort, Predicted
from cardiomegaly.reports.ensemble import average
from cardiomegaly.reports.run_description import data_config, read_split, weights_of
from cardiomegaly.training.files import sha256
from cardiomegaly.training.record import SPLIT, Run

OWN_COLUMNS = ["image", "patient_id", "target", "probability", "logit"]
TIME_COLUMNS = ["image", "patient_id", "follow_up", "target"]
ORIGIN = (
    "backbone", "model", "head", "balance", "seed", "cohort", "split", "split_hash", "finding",
    "uncertain", "blank", "patients", "fit",
)  # fmt: skip


@dataclass
class Inputs:
    """Images and models to judge, the first model being the one judged in every way.

    `images` has image, patient_id and part (train, val, test; "all" where the training is unknown)
    of every image that the models may have seen; `runs` are those behind the models, if any;
    `leaking` counts the patients who stand in more than one part; `other_labels` says that the
    label file is not the one of the training. Of another cohort than the training's, there are its
    name and the figures of `evaluation.external_validation`.
    """

    name: str
    cohort: Cohort
    models: dict[str, Predicted]
    images: pd.DataFrame
    runs: list[Run] = field(default_factory=list)
    leaking: int = 0
    other_labels: bool = False
    origin: dict[str, str] = field(default_factory=dict)
    cohort_name: str = ""
    transfer: pd.DataFrame | None = None


def name_runs(runs: Sequence[Run]) -> dict[str, Run]:
    """Name runs by their folder, with as much of the path as tells them apart."""
    paths = [run.folder.resolve().parts for run in runs]
    for depth in range(1, max(map(len, paths), default=1) + 1):
        names = ["/".join(path[-depth:]) for path in paths]
        if len(set(names)) == len(runs):
            return dict(zip(names, runs, strict=True))
    raise UserError(f"run: each run may be given once, got {', '.join(names)}")


def inputs_of_runs(
    runs: Mapping[str, Run],
    labels: Path | None,
    flipped: Mapping[str, pd.DataFrame] | None = None,
) -> Inputs:
    """Judge runs by their predictions, several also by their mean, which is then judged first.

    Args:
        runs: by name; the first gives split and origin.
        labels: NIH's label file; without it, only the columns of the predictions are known.
        flipped: by name of the run, its predictions averaged over flips; these are judged first.

    Raises:
        UserError: as `common_images`; no test images; an image that the label file lacks; or a
            split that cannot be read.
    """
    plain = {name: run.predictions for name, run in runs.items()}
    best = {f"{name}, flips averaged": table for name, table in (flipped or {}).items()} or plain
    if len(best) > 1:
        suffix = " with flips" if flipped else ""
        best = {f"mean of {len(best)} runs{suffix}": average(best)}
    tests, vals = (
        {name: _rows(name, table, part) for name, table in (best | plain).items()}
        for part in ("test", "val")
    )
    if len(tests) > 1:
        tests, vals = common_images(tests), common_images(vals)
    models = {name: _predicted(tests[name], vals[name]) for name in tests}
    name, run = next(iter(tests)), next(iter(runs.values()))
    test, val, split = tests[name], vals[name], read_split(run)
    train = timeline = None
    if labels is not None:
        table = labelled_rows(read_labels(labels, data_config(run)))
        test = join_labels(test, table, "predictions")
        train = join_labels(split.loc[split["part"] == "train", ["image"]], table, SPLIT)
        timeline = _timeline(table, test)
    leaking = int(split.groupby("patient_id")["part"].nunique().gt(1).sum())
    origin = {f"run {place}": str(each.folder) for place, each in enumerate(runs.values(), 1)}
    if len(runs) == 1:
        origin |= {key: str(run.meta[key]) for key in ORIGIN if key in run.meta}
    origin["weights"] = ", ".join(dict.fromkeys(map(weights_of, runs.values())))
    origin["data"] = str(run.meta.get("data_root"))
    return Inputs(
        name=name,
        cohort=Cohort(test, val["target"].to_numpy() if len(val) else None, train, timeline),
        models=models,
        images=split,
        runs=list(runs.values()),
        leaking=leaking,
        origin=origin | {"label file": str(labels) if labels else "not at hand"},
        other_labels=bool(labels and run.label_file_sha256 not in (None, sha256(labels))),
    )


def _rows(name: str, table: pd.DataFrame, part: str) -> pd.DataFrame:
    rows = table[table["split"] == part].drop(columns="split").reset_index(drop=True)
    rows = rows.drop(
        columns=[column for column in OPTIONAL if column in rows and rows[column].isna().all()]
    )
    refuse_repeats(name, rows["image"])
    if part == "test" and rows.empty:
        raise UserError(f"{name}: the run has no test images; train it with a test part")
    return rows


def _predicted(test: pd.DataFrame, val: pd.DataFrame) -> Predicted:
    values = [
        table[column].to_numpy() if len(table) and column in table else None
        for column in ("probability", "logit")
        for table in (test, val)
    ]
    return Predicted(*values)  # type: ignore[arg-type]


def inputs_of_csv(
    predictions: Path, labels: Path, data: DataConfig, image_column: str, probability_column: str
) -> Inputs:
    """Judge anybody's predictions against a label file.

    Args:
        predictions: a CSV with a row an image.
        labels: the label file.
        data: what its columns mean.
        image_column: of the names of the images, among the columns of `predictions`.
        probability_column: of the probabilities, 0 to 1.

    Raises:
        UserError: a file or column is missing, a probability is no number from 0 to 1, an image
            stands twice or is not in the label file.
    """
    raw = read_csv(predictions, "predictions:", "; give a CSV file")
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
    table = labelled_rows(read_labels(labels, data))
    test = join_labels(given, table, str(predictions))
    refuse_repeats("predictions", test["image"])
    timeline = _timeline(table, test)
    return Inputs(
        name=predictions.stem,
        cohort=Cohort(test, labels=timeline),
        models={predictions.stem: Predicted(test["probability"].to_numpy(float))},
        images=test[["image", "patient_id"]].assign(part="all"),
        origin={
            "predictions": str(predictions), "weights": "not known", "data": data.name,
            "label file": str(labels), "finding": data.finding,
        },
    )  # fmt: skip


def _timeline(table: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame | None:
    """All images of the test patients in their order; None where the table tells no order."""
    if "follow_up" not in table:
        return None
    rows = table.loc[table["patient_id"].isin(test["patient_id"]), TIME_COLUMNS]
    return rows if len(rows) else None


def join_labels(given: pd.DataFrame, labels: pd.DataFrame, name: str) -> pd.DataFrame:
    """Set the label file's columns beside images, whose names may lack or have a suffix or folder.

    Targets and patients that `given` has already stay as they are.

    Raises:
        UserError: an image that the label file lacks.
    """
    added = labels.drop(columns=[column for column in OWN_COLUMNS[1:3] if column in given])
    keep = [column for column in given if column in OWN_COLUMNS]
    folders = int(labels["image"].str.count("/").max())
    joined = given[keep].assign(key=_key(given["image"], folders)).drop(columns="image")
    joined = joined.merge(added.assign(key=_key(labels["image"], folders)), on="key", how="left")
    lacking = joined["image"].isna()
    if lacking.any():
        raise UserError(
            f"labels: {int(lacking.sum())} of {len(given)} images of {name} are not in the label "
            f"file, {joined['key'][lacking].iloc[0]!r} for one; give the label file they belong to"
        )
    return joined.drop(columns="key")


def _key(images: pd.Series, folders: int) -> pd.Series:
    """The end of a path with as many folders as the label table names, without a suffix."""
    names = images.str.split(r"[/\\]", regex=True).str[-1 - folders :].str.join("/")
    return names.str.replace(r"\.(?:png|jpe?g|dcm|dicom)$", "", regex=True, case=False)
