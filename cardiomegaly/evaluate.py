"""Evaluate a run, several runs or anybody's predictions, as a reviewer would want to see it.

Examples:
  python -m cardiomegaly.evaluate run=outputs/train/first
  python -m cardiomegaly.evaluate run=[outputs/a,outputs/b,outputs/c] output=outputs/ensemble
  python -m cardiomegaly.evaluate run=outputs/train/first data=chexpert data.root=FOLDER
  python -m cardiomegaly.evaluate run=[outputs/a,outputs/b] cohorts={chexpert:FOLDER,brax:FOLDER} \\
      output=outputs/external
  python -m cardiomegaly.evaluate predictions=theirs.csv labels=Data_Entry_2017.csv \\
      image_column="Image Index" probability_column=prob_Cardiomegaly

Writes evaluation.html, evaluation.md, evaluation.json, CSV tables and plots into <run>/evaluation
or output.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cardiomegaly import UserError, cli, config
from cardiomegaly.evaluation.settings import Settings


@dataclass
class Options(Settings):
    run: Any = cli.option("folder of a run, or [several], which are averaged and compared")
    cohorts: Any = cli.option("other cohorts, {name: folder}; or data=NAME data.root=FOLDER")
    predictions: Path | None = cli.option("CSV file of anybody's predictions, instead of run")
    labels: Path | None = cli.option("NIH's label file; a run knows its own")
    image_column: str = cli.option("column of the image names in predictions", "image")
    probability_column: str = cli.option("column of the probabilities, 0 to 1", "probability")
    images: Path | None = cli.option("folder of the images; a run's own")
    output: Path | None = cli.option("folder for the results")
    flip: bool = cli.option("average each image with its mirror image", False)
    boxes: Path | None = cli.option("NIH's box list; the one in images")
    given_boxes: Path | None = cli.option("boxes to judge, a list like NIH's")
    gradcam: bool | None = cli.option("judge Grad-CAM; null where grad-cam is installed")
    device: str = cli.option("for maps and flips: auto, cpu or cuda", "auto")


def act(options: Options, of_data: list[str]) -> None:
    """Write the evaluation, say it in short and say where it is."""
    folders, output = _check(options)
    if of_data or options.cohorts:
        evaluate_elsewhere(options, folders, output, of_data)
        return
    # Not imported above: --help and a mistake in the words need none of it.
    from cardiomegaly.data.image_folder import ImageFolder
    from cardiomegaly.evaluation.assessment import assess
    from cardiomegaly.reports.ensemble import average_flips
    from cardiomegaly.reports.evaluation_inputs import inputs_of_csv, inputs_of_runs, name_runs
    from cardiomegaly.reports.evaluation_page import write_evaluation
    from cardiomegaly.reports.localise import localise
    from cardiomegaly.reports.run_description import data_config, data_root, label_file
    from cardiomegaly.training.record import read_run

    runs = name_runs([read_run(folder) for folder in folders])
    labels, root = options.labels, options.images
    if runs:
        first = next(iter(runs.values()))
        labels, root = labels or label_file(first), root or data_root(first)
    fit = data_config(first).fit if runs else "stretch"
    images = None if root is None else ImageFolder(root, fit)
    if options.predictions is not None and labels is not None:
        columns = options.image_column, options.probability_column
        inputs = inputs_of_csv(options.predictions, labels, *columns)
    elif not options.flip:
        inputs = inputs_of_runs(runs, labels)
    elif images is None:
        raise UserError("flip: the images are needed, say images=FOLDER")
    else:
        flips = {name: average_flips(run, images, options.device) for name, run in runs.items()}
        inputs = inputs_of_runs(runs, labels, flips)
    assessment = assess(inputs.cohort, inputs.models, options)
    localisation = localise(
        inputs.images, runs, images, boxes=options.boxes, given_boxes=options.given_boxes,
        gradcam=options.gradcam, fraction=options.fraction, device=options.device,
    )  # fmt: skip
    print(write_evaluation(output, inputs, assessment, localisation, options, images))


def evaluate_elsewhere(
    options: Options, folders: list[Path], output: Path, of_data: list[str]
) -> None:
    """Test runs on other cohorts: a page for each run and cohort, and one table of all.

    Args:
        folders: of the runs.
        output: for the results.
        of_data: words of the training that choose a cohort, none where `cohorts` does.

    Raises:
        UserError: as `external.external_inputs`; no run; or a cohort is chosen in both ways.
    """
    from cardiomegaly.data.image_folder import ImageFolder
    from cardiomegaly.evaluation.assessment import assess
    from cardiomegaly.reports.evaluation_inputs import name_runs
    from cardiomegaly.reports.evaluation_page import write_evaluation
    from cardiomegaly.reports.external import external_inputs, write_transfer
    from cardiomegaly.reports.localise import localise
    from cardiomegaly.training.record import read_run

    if not folders or (of_data and options.cohorts):
        raise UserError("run: needed with either data=NAME data.root=FOLDER or cohorts={...}")
    composed = config.check(cli.compose(config.CONF_DIR, cli.read_words(of_data)))
    given = dict(options.cohorts or {})
    cohorts = [config.read_data(name, {"root": str(root)}) for name, root in given.items()]
    evaluated = {}
    for name, run in name_runs([read_run(folder) for folder in folders]).items():
        for data in cohorts or [composed.data]:
            views = composed.cohort.views
            inputs = external_inputs(name, run, data, views, options.device, options.seed)
            images = ImageFolder(Path(data.root), data.fit)
            localisation = localise(
                inputs.images, {name: run}, images, boxes=options.boxes,
                given_boxes=options.given_boxes, gradcam=options.gradcam,
                fraction=options.fraction, device=options.device,
            )  # fmt: skip
            assessment = assess(inputs.cohort, inputs.models, options)
            folder = output / f"{name.replace('/', '-')}-on-{data.name}"
            print(write_evaluation(folder, inputs, assessment, localisation, options, images))
            evaluated[name, data.name] = inputs
    matrix = write_transfer(output, evaluated)
    print(f"\nAUROC, trained on rows, tested on columns:\n{matrix.to_string()}")
    print(f"\ntables: {output / 'transfer.csv'}, {output / 'auroc.csv'}")


def _check(options: Options) -> tuple[list[Path], Path]:
    """The folders of the runs and that of the results; refuses words that do not go together."""
    if (options.run is None) == (options.predictions is None):
        raise UserError("run or predictions: one of the two is needed, say run=FOLDER (--help)")
    if options.labels is not None and not options.labels.is_file():
        raise UserError(f"labels: {options.labels} does not exist; give a label file")
    if options.predictions is not None:
        if options.flip:
            raise UserError("flip: a run is needed, predictions alone cannot be mirrored")
        if options.labels is None:
            raise UserError("labels: predictions need NIH's label file, say labels=FILE")
        beside = options.predictions.with_name(f"{options.predictions.stem}_evaluation")
        return [], options.output or beside
    given = options.run if isinstance(options.run, list) else [options.run]
    folders = [Path(folder).expanduser() for folder in given]
    if not folders:
        raise UserError("run: at least one folder is needed, got an empty list")
    if len(folders) > 1 and options.output is None:
        raise UserError("output: several runs need a folder for their results, say output=FOLDER")
    return folders, options.output or folders[0] / "evaluation"


def words_of_data(words: list[str]) -> tuple[list[str], list[str]]:
    """The words that choose a cohort, which are those of the training, and the others."""
    of_data = [word for word in words if word.startswith(("data=", "data.", "cohort."))]
    return of_data, [word for word in words if word not in of_data]


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    of_data, others = words_of_data(sys.argv[1:] if argv is None else argv)
    return cli.run(Options, partial(act, of_data=of_data), __doc__, others)


if __name__ == "__main__":
    sys.exit(main())
