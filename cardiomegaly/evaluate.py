"""Evaluate a run, several runs or anybody's predictions, as a reviewer would want to see it.

Examples:
  python -m cardiomegaly.evaluate run=outputs/train/first
  python -m cardiomegaly.evaluate run=[outputs/a,outputs/b,outputs/c] output=outputs/ensemble
  python -m cardiomegaly.evaluate run=outputs/train/first data=chexpert data.root=FOLDER
  python -m cardiomegaly.evaluate run=[outputs/a,outputs/b] cohorts={chexpert:FOLDER,brax:FOLDER} \\
      output=outputs/external
  python -m cardiomegaly.evaluate predictions=theirs.csv labels=Data_Entry_2017.csv \\
      image_column="Image Index" probability_column=prob_Cardiomegaly
  python -m cardiomegaly.evaluate predictions=theirs.csv data=chexpert data.root=FOLDER

Writes evaluation.html, evaluation.md, evaluation.json, CSV tables and plots into <run>/evaluation
or output.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cardiomegaly import UserError, cli, config
from cardiomegaly.evaluation.settings import Settings

if TYPE_CHECKING:
    from cardiomegaly.data.image_folder import ImageFolder
    from cardiomegaly.reports.evaluation_inputs import Inputs
    from cardiomegaly.reports.pages import Report
    from cardiomegaly.training.record import Run


@dataclass
class Options(Settings):
    run: Any = cli.option("folder of a run, or [several], which are averaged and compared")
    cohorts: Any = cli.option("other cohorts, {name: folder}; or data=NAME data.root=FOLDER")
    predictions: Path | None = cli.option("CSV file of anybody's predictions, instead of run")
    labels: Path | None = cli.option("the label file; a run knows its own")
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
    """Write the evaluation, say it in short and say where it is.

    Args:
        options: of the command.
        of_data: words of the training that choose a cohort.

    Raises:
        UserError: words that do not go together; what is given cannot be read or judged.
    """
    folders, output = _check(options, of_data)
    # Not imported above: --help and a mistake in the words need none of it.
    from cardiomegaly.data.image_folder import ImageFolder
    from cardiomegaly.data.labels import find_label_file
    from cardiomegaly.reports.evaluation_inputs import inputs_of_csv, name_runs
    from cardiomegaly.training.record import read_run

    runs = name_runs([read_run(folder) for folder in folders])
    chosen = (
        config.check(cli.compose(config.CONF_DIR, cli.read_words(of_data))) if of_data else None
    )
    if options.predictions is not None:
        data = config.read_data("nih") if chosen is None else chosen.data
        labels = options.labels or find_label_file(data)
        columns = options.image_column, options.probability_column
        inputs = inputs_of_csv(options.predictions, labels, data, *columns)
        root = options.images or (None if chosen is None else Path(data.root))
        images = None if root is None else ImageFolder(root, data.fit)
        print(_judge(options, output, inputs, {}, images))
    elif chosen is not None or options.cohorts:
        _evaluate_elsewhere(options, runs, output, chosen)
    else:
        _evaluate_at_home(options, runs, output)


def _evaluate_at_home(options: Options, runs: Mapping[str, Run], output: Path) -> None:
    """Judge runs by their own test part."""
    from cardiomegaly.data.image_folder import ImageFolder
    from cardiomegaly.reports.ensemble import average_flips
    from cardiomegaly.reports.evaluation_inputs import inputs_of_runs
    from cardiomegaly.reports.run_description import data_config, data_root, label_file

    first = next(iter(runs.values()))
    root = options.images or data_root(first)
    images = None if root is None else ImageFolder(root, data_config(first).fit)
    flips = {}
    if options.flip:
        if images is None:
            raise UserError("flip: the images are needed, say images=FOLDER")
        flips = {name: average_flips(run, images, options.device) for name, run in runs.items()}
    inputs = inputs_of_runs(runs, options.labels or label_file(first), flips)
    print(_judge(options, output, inputs, runs, images))


def _evaluate_elsewhere(
    options: Options, runs: Mapping[str, Run], output: Path, chosen: config.Config | None
) -> None:
    """Test runs on other cohorts: a page for each run and cohort, and one table of all."""
    from cardiomegaly.data.image_folder import ImageFolder
    from cardiomegaly.reports.external import external_inputs, write_transfer

    if chosen is not None:
        cohorts, views = [chosen.data], chosen.cohort.views
    else:
        views = config.check(cli.compose(config.CONF_DIR, [])).cohort.views
        given = dict(options.cohorts)
        cohorts = [config.read_data(name, {"root": str(root)}) for name, root in given.items()]
    evaluated = {}
    for name, run in runs.items():
        for data in cohorts:
            inputs = external_inputs(name, run, data, views, options.device, options.seed)
            folder = output / f"{name.replace('/', '-')}-on-{data.name}"
            images = ImageFolder(Path(data.root), data.fit)
            print(_judge(options, folder, inputs, {name: run}, images))
            evaluated[name, data.name] = inputs
    matrix = write_transfer(output, evaluated)
    print(f"\nAUROC, trained on rows, tested on columns:\n{matrix.to_string()}")
    print(f"\ntables: {output / 'transfer.csv'}, {output / 'auroc.csv'}")


def _judge(
    options: Options,
    output: Path,
    inputs: Inputs,
    runs: Mapping[str, Run],
    images: ImageFolder | None,
) -> Report:
    """Write one evaluation into a folder; returns what is said of it."""
    from cardiomegaly.evaluation.assessment import assess
    from cardiomegaly.reports.evaluation_page import write_evaluation
    from cardiomegaly.reports.localise import localise

    localisation = localise(
        inputs.images, runs, images, boxes=options.boxes, given_boxes=options.given_boxes,
        gradcam=options.gradcam, fraction=options.fraction, device=options.device,
    )  # fmt: skip
    assessment = assess(inputs.cohort, inputs.models, options)
    return write_evaluation(output, inputs, assessment, localisation, options, images)


def _check(options: Options, of_data: list[str]) -> tuple[list[Path], Path]:
    """The folders of the runs and that of the results; refuses words that do not go together."""
    if (options.run is None) == (options.predictions is None):
        raise UserError("run or predictions: one of the two is needed, say run=FOLDER (--help)")
    if options.labels is not None and not options.labels.is_file():
        raise UserError(f"labels: {options.labels} does not exist; give a label file")
    if options.cohorts and (of_data or options.predictions is not None):
        raise UserError("cohorts: goes with runs and without data=NAME; say one of the two")
    if options.predictions is not None:
        if options.flip:
            raise UserError("flip: a run is needed, predictions alone cannot be mirrored")
        if options.labels is None and not of_data:
            raise UserError(
                "labels: predictions need NIH's label file, say labels=FILE; or data=NAME "
                "data.root=FOLDER for another set's"
            )
        beside = options.predictions.with_name(f"{options.predictions.stem}_evaluation")
        return [], options.output or beside
    folders = [Path(folder).expanduser() for folder in cli.as_list(options.run)]
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
