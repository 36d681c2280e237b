"""Evaluate a run, several runs or anybody's predictions, as a reviewer would want to see it.

Examples:
  python -m cardiomegaly.evaluate run=outputs/train/first
  python -m cardiomegaly.evaluate run=[outputs/a,outputs/b,outputs/c] output=outputs/ensemble
  python -m cardiomegaly.evaluate predictions=theirs.csv labels=Data_Entry_2017.csv \\
      image_column="Image Index" probability_column=prob_Cardiomegaly

Writes evaluation.html, evaluation.md, evaluation.json, CSV tables and plots into <run>/evaluation
or output.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cardiomegaly import UserError, cli
from cardiomegaly.evaluation.settings import Settings


@dataclass
class Options(Settings):
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
    flip: bool = field(default=False, metadata={"help": "average each image with its mirror image"})
    boxes: str | None = field(default=None, metadata={"help": "NIH's box list; the one in images"})
    given_boxes: str | None = field(
        default=None, metadata={"help": "boxes to judge, a list like NIH's"}
    )
    gradcam: bool | None = field(
        default=None, metadata={"help": "judge Grad-CAM; null where grad-cam is installed"}
    )
    device: str = field(default="auto", metadata={"help": "for maps and flips: auto, cpu or cuda"})


def act(options: Options) -> None:
    """Write the evaluation, say it in short and say where it is."""
    output = _check(options)
    # Not imported above: --help and a mistake in the words need none of it.
    from cardiomegaly.data.image_folder import ImageFolder
    from cardiomegaly.evaluation.assessment import assess
    from cardiomegaly.reports.ensemble import average_flips
    from cardiomegaly.reports.evaluation_inputs import inputs_of_csv, inputs_of_runs, name_runs
    from cardiomegaly.reports.evaluation_page import write_evaluation
    from cardiomegaly.reports.localise import localise
    from cardiomegaly.reports.run_description import data_root, label_file
    from cardiomegaly.training.record import read_run

    given = {name: Path(value) if value else None for name, value in vars(options).items()
             if name in ("predictions", "labels", "images", "boxes", "given_boxes")}  # fmt: skip
    runs = name_runs([read_run(folder) for folder in _folders(options)])
    first = next(iter(runs.values()), None)
    labels = given["labels"] or (label_file(first) if first else None)
    root = given["images"] or (data_root(first) if first else None)
    images = None if root is None else ImageFolder(root)
    if given["predictions"] is not None and labels is not None:
        inputs = inputs_of_csv(
            given["predictions"], labels, options.image_column, options.probability_column
        )
    elif options.flip and images is None:
        raise UserError("flip: the images are needed, say images=FOLDER")
    else:
        flipped = {
            name: average_flips(run, images, options.device)
            for name, run in runs.items()
            if options.flip and images is not None
        }
        inputs = inputs_of_runs(runs, labels, flipped)
    assessment = assess(inputs.cohort, inputs.models, options)
    localisation = localise(
        inputs.images, runs, images, boxes=given["boxes"], given_boxes=given["given_boxes"],
        gradcam=options.gradcam, fraction=options.fraction, device=options.device,
    )  # fmt: skip
    summary = write_evaluation(output, inputs, assessment, localisation, options, images)
    print("\n".join([*summary, *(f"warning: {warning}" for warning in inputs.warnings)]))
    print(f"\nreport: {output / 'evaluation.html'}")


def _folders(options: Options) -> list[Path]:
    """The folders of the runs; none for predictions of anybody's."""
    folders = options.run if isinstance(options.run, list) else [options.run]
    return [Path(folder).expanduser() for folder in folders if folder is not None]


def _check(options: Options) -> Path:
    """Refuse words that do not go together; returns the folder of the results."""
    folders = _folders(options)
    if (options.run is None) == (options.predictions is None):
        raise UserError("run or predictions: one of the two is needed, say run=FOLDER (--help)")
    if options.run is not None and not folders:
        raise UserError("run: at least one folder is needed, got an empty list")
    if options.labels is not None and not Path(options.labels).is_file():
        raise UserError(f"labels: {options.labels} does not exist; give a label file")
    if options.predictions is not None:
        if options.flip:
            raise UserError("flip: a run is needed, predictions alone cannot be mirrored")
        if options.labels is None:
            raise UserError("labels: predictions need NIH's label file, say labels=FILE")
    if options.output is not None:
        return Path(options.output)
    if options.predictions is not None:
        path = Path(options.predictions)
        return path.with_name(f"{path.stem}_evaluation")
    if len(folders) > 1:
        raise UserError("output: several runs need a folder for their results, say output=FOLDER")
    return folders[0] / "evaluation"


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return cli.run(Options, act, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
