"""Evaluate a run, several runs or anybody's predictions, as a reviewer would want to see it.

Examples:
  python -m cardiomegaly.evaluate run=outputs/train/first
  python -m cardiomegaly.evaluate run=[outputs/a,outputs/b,outputs/c] output=outputs/ensemble
  python -m cardiomegaly.evaluate predictions=theirs.csv labels=Data_Entry_2017.csv \\
      image_column="Image Index" probability_column=prob_Cardiomegaly

Writes evaluation.json, CSV tables, plots and evaluation.html into <run>/evaluation or output.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cardiomegaly import UserError, cli
from cardiomegaly.data.images import ImageFolder
from cardiomegaly.evaluation.assessment import Assessment, Settings, assess
from cardiomegaly.reports.evaluation_content import Evaluation, Looked, shown
from cardiomegaly.reports.evaluation_report import write_evaluation
from cardiomegaly.reports.subjects import (
    Subject,
    average,
    name_runs,
    subject_of_csv,
    subject_of_runs,
)
from cardiomegaly.training.record import Run, read_run

NO_IMAGES = "the images are needed, say images=FOLDER"
BOX_LIST = "BBox_List_2017.csv"
SHEET_SIZE = 192


@dataclass
class Options:
    run: Any = field(
        default=None,
        metadata={"help": "folder of a run, or [several], which are averaged and compared"},
    )
    predictions: str | None = field(
        default=None, metadata={"help": "CSV file of anybody's predictions, instead of run"}
    )
    labels: str | None = field(
        default=None, metadata={"help": "NIH's label file; a run knows its own"}
    )
    image_column: str = field(
        default="image", metadata={"help": "column of the image names in predictions"}
    )
    probability_column: str = field(
        default="probability", metadata={"help": "column of the probabilities, 0 to 1"}
    )
    images: str | None = field(default=None, metadata={"help": "folder of the images; a run's own"})
    output: str | None = field(default=None, metadata={"help": "folder for the results"})
    sensitivity: float = field(default=0.90, metadata={"help": "wanted, for one of the thresholds"})
    specificity: float = field(default=0.90, metadata={"help": "wanted, for one of the thresholds"})
    minimum: int = field(
        default=10, metadata={"help": "positive and negative images that a subgroup needs"}
    )
    resamples: int = field(default=2000, metadata={"help": "of the bootstrap over patients"})
    seed: int = field(default=0, metadata={"help": "of the bootstrap and the folds"})
    flip: bool = field(default=False, metadata={"help": "average each image with its mirror image"})
    boxes: str | None = field(default=None, metadata={"help": "NIH's box list; the one in images"})
    given_boxes: str | None = field(
        default=None, metadata={"help": "boxes to judge, a list like NIH's"}
    )
    gradcam: bool | None = field(
        default=None, metadata={"help": "judge Grad-CAM; null where grad-cam is installed"}
    )
    fraction: float = field(
        default=0.5, metadata={"help": "of a map's range, above which its box lies"}
    )


def act(options: Options) -> None:
    """Write the evaluation and say where it is."""
    if (options.run is None) == (options.predictions is None):
        raise UserError("run or predictions: one of the two is needed, say run=FOLDER (--help)")
    settings = Settings(
        options.sensitivity, options.specificity, options.minimum, options.resamples, options.seed
    )
    folder = _output(options)
    runs = _runs(options)
    labels = _labels(options, runs)
    images = _images(options, runs)
    subject = _subject(options, runs, labels, images)
    assessment = assess(subject.cohort, subject.models, settings)
    looked = _look(options, subject, runs, images)
    if images is not None and assessment.audit is not None:
        looked.contradictions = _contradictions(assessment, images)
    evaluation = Evaluation(
        subject.name, subject.origin, subject.warnings, subject.cohort, subject.models, settings,
        assessment, looked,
    )  # fmt: skip
    path = write_evaluation(folder, evaluation)
    print(closing_lines(evaluation))
    print(f"\nreport: {path}")


def closing_lines(evaluation: Evaluation) -> str:
    """The headline figures as text."""
    found = evaluation.assessment
    rows = found.thresholds[found.thresholds["rule"] == found.shared]
    figures = dict(zip(rows["metric"], shown(rows, "value"), strict=True))
    lines = [f"warning: {warning}" for warning in evaluation.warnings]
    for metric in ("auroc", "average_precision", "sensitivity", "specificity"):
        lines.append(f"{metric:<20}{figures[metric]}")
    return "\n".join(lines)


def _output(options: Options) -> Path:
    if options.output is not None:
        return Path(options.output)
    if options.predictions is not None:
        return (
            Path(options.predictions)
            .with_suffix("")
            .with_name(f"{Path(options.predictions).stem}_evaluation")
        )
    if isinstance(options.run, list) and len(options.run) > 1:
        raise UserError("output: several runs need a folder for their results, say output=FOLDER")
    return Path(_folders(options)[0]) / "evaluation"


def _folders(options: Options) -> list[str]:
    folders = options.run if isinstance(options.run, list) else [options.run]
    if not folders:
        raise UserError("run: at least one folder is needed, got an empty list")
    return [str(folder) for folder in folders]


def _runs(options: Options) -> dict[str, Run]:
    if options.run is None:
        return {}
    return name_runs([read_run(folder) for folder in _folders(options)])


def _labels(options: Options, runs: dict[str, Run]) -> Path | None:
    """The label file given, or the one that the run was trained with if it is still there."""
    if options.labels is not None:
        if not Path(options.labels).is_file():
            raise UserError(f"labels: {options.labels} does not exist; give a label file")
        return Path(options.labels)
    if not runs:
        raise UserError("labels: predictions need NIH's label file, say labels=FILE")
    meta = next(iter(runs.values())).meta
    path = Path(meta.get("data_root", "")) / meta.get("label_file", "")
    return path if path.is_file() else None


def _images(options: Options, runs: dict[str, Run]) -> ImageFolder | None:
    """The folder of images given, or that of the run if it is still there."""
    if options.images is not None:
        return ImageFolder(Path(options.images))
    root = next(iter(runs.values())).meta.get("data_root") if runs else None
    return ImageFolder(Path(root)) if root and Path(root).is_dir() else None


def _subject(
    options: Options, runs: dict[str, Run], labels: Path | None, images: ImageFolder | None
) -> Subject:
    if options.predictions is not None and labels is not None:
        if options.flip:
            raise UserError("flip: a run is needed, predictions alone cannot be mirrored")
        return subject_of_csv(
            Path(options.predictions), labels, options.image_column, options.probability_column
        )
    single = {name: run.predictions for name, run in runs.items()}
    best: dict[str, pd.DataFrame] = single
    if options.flip:
        if images is None:
            raise UserError(f"flip: {NO_IMAGES}")
        best = _flipped(runs, images)
    if len(best) > 1:
        flips = " with flips" if options.flip else ""
        best = {f"mean of {len(best)} runs{flips}": average(best)}
    return subject_of_runs(next(iter(best)), list(runs.values()), best | single, labels)


def _flipped(runs: dict[str, Run], images: ImageFolder) -> dict[str, pd.DataFrame]:
    # Networks and their libraries take seconds and most of a GiB: only where they are needed.
    from cardiomegaly.model.predictor import Predictor
    from cardiomegaly.training.device import keep_freed_memory

    keep_freed_memory()
    return {
        f"{name}, flips averaged": _add_flips(
            run.predictions, Predictor.from_checkpoint(run.checkpoint), images
        )
        for name, run in runs.items()
    }


def _add_flips(table: pd.DataFrame, predictor: Any, folder: ImageFolder) -> pd.DataFrame:
    """Average each probability of a prediction table with that of the image's mirror image."""
    images = folder.batches(table["image"].tolist(), predictor.image_size)
    mirrored = [predictor.predict(pixels[..., ::-1].copy()).probability for pixels in images]
    return table.assign(probability=(table["probability"] + np.concatenate(mirrored)) / 2)


def _look(
    options: Options, subject: Subject, runs: dict[str, Run], images: ImageFolder | None
) -> Looked:
    boxes = Path(options.boxes) if options.boxes else images.root / BOX_LIST if images else None
    if boxes is None or not (options.boxes or boxes.is_file()):
        return Looked(notes=["No list of boxes is at hand (say boxes=FILE or images=FOLDER)."])
    if not runs and options.given_boxes is None:
        return Looked(notes=["Predictions come without maps; boxes can be judged by given_boxes."])
    from cardiomegaly.model.predictor import Predictor
    from cardiomegaly.reports.localise import Looking, localise
    from cardiomegaly.training.device import keep_freed_memory

    keep_freed_memory()
    given = Path(options.given_boxes) if options.given_boxes else None
    looking = Looking(boxes, given, options.gradcam, options.fraction, options.seed)
    predictors = {name: Predictor.from_checkpoint(run.checkpoint) for name, run in runs.items()}
    found = localise(subject, predictors, images, looking)
    return Looked(
        pd.concat(found.summaries, ignore_index=True) if found.summaries else None,
        pd.concat(found.images, ignore_index=True) if found.images else None,
        found.sheets,
        notes=list(dict.fromkeys(found.notes)),
    )


def _contradictions(assessment: Assessment, images: ImageFolder) -> Any:
    """The pictures of the most confident contradictions whose images are there, and titles."""
    rows = assessment.audit.contradictions if assessment.audit else pd.DataFrame()
    rows = rows[[images.has(image) for image in rows["image"]]]
    if rows.empty:
        return None
    titles = [f"label {row.target}, p {row.probability:.2f}" for row in rows.itertuples()]
    return images.pixels(rows["image"].tolist(), SHEET_SIZE), titles


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return cli.run(Options, act, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
