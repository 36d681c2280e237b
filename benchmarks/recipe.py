"""What each ingredient of +experiment=recipe gives, by cross-validation by patient.

  python -m benchmarks.recipe root=FOLDER weights=FILE                the table of docs/training.md
  python -m benchmarks.recipe root=FOLDER weights=FILE rows=[recipe,frozen] seeds=[1]

Every row is trained on each of five folds for each seed, into a folder of its own; what is finished
is not trained again, so that the command goes on where it was stopped. Every image is predicted by
the runs that have not seen its patient. `validation` is the mean AUROC of the runs' validation
parts after their last epoch, by which ingredients are to be chosen; the other figures are of the
test folds together, the mean over seeds. Differences are from the row `recipe`, paired by patient.
`pointing` is how often the attention's highest point lies in the heart box, on the images that have
one. Another network (`backbone=timm model=tf_efficientnet_lite0 options=null`) takes another
`folder`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from omegaconf import MISSING

from benchmarks.linear import fit_and_predict, pooled_features
from cardiomegaly import UserError, cli, config
from cardiomegaly.data.boxes import NUMBERS, find_boxes
from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.evaluation.influence import ranking_statistics
from cardiomegaly.evaluation.intervals import (
    Estimate,
    Patients,
    Statistic,
    interval,
    paired_difference,
)
from cardiomegaly.evaluation.localisation import score_maps
from cardiomegaly.model.backbone import Backbone
from cardiomegaly.model.predictor import Predictor
from cardiomegaly.model.weights import load_weights
from cardiomegaly.reports.ensemble import average
from cardiomegaly.reports.localise import boxed_hearts
from cardiomegaly.training.record import SPLIT, Run, find_runs, read_run

RECIPE = "recipe"
FOLDS = 5
REGION = "recipe_region"
ONE_VIEW = "recipe, without flips at test"
BOTH = "recipe and recipe_region, averaged"
LINEAR = "logistic regression on frozen features"
ROWS = {
    "frozen": "cohort=all trainer.max_epochs=40 features.views=4",
    "all_trained": "cohort=all backbone.trainable=all augment.vertical_flip=0 trainer.max_epochs=5",
    RECIPE: "+experiment=recipe",
    "recipe_unbalanced": "+experiment=recipe balance=false",
    REGION: "+experiment=recipe backbone.region=heart backbone.image_size=320",
    "recipe_no_hearts": "+experiment=recipe trainer.attention_weight=0",
    "recipe_constant_rate": "+experiment=recipe schedule=none",
    "recipe_no_average": "+experiment=recipe averaging=none",
    "recipe_layer_decay": "+experiment=recipe trainer.layer_decay=0.8",
    "recipe_256": "+experiment=recipe backbone.image_size=256",
    "recipe_vertical_flip": "+experiment=recipe augment.vertical_flip=0.1",
}


@dataclass
class Options:
    """What can be chosen."""

    root: str = field(default=MISSING, metadata={"help": "folder of NIH's images and label file"})
    weights: str = field(default=MISSING, metadata={"help": "of the network, as safetensors"})
    backbone: str = field(default="mobilenetv1", metadata={"help": "of conf/backbone"})
    model: str | None = field(default=None, metadata={"help": "timm's name; null for its own"})
    options: dict[str, str] | None = field(
        default_factory=lambda: {"pad_type": "same"}, metadata={"help": "timm's own arguments"}
    )
    folder: str = field(default="outputs/recipe", metadata={"help": "of the runs"})
    rows: list[str] | None = field(default=None, metadata={"help": "of the table; null for all"})
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3], metadata={"help": "of splits"})
    train: bool = field(default=True, metadata={"help": "false: only what is there already"})


def _network(options: Options) -> list[str]:
    network = [f"backbone={options.backbone}", f"backbone.weights={options.weights}"]
    if options.model is not None:
        network.append(f"backbone.model={options.model}")
    if options.options:
        given = ", ".join(f"{key}: {value}" for key, value in options.options.items())
        network.append(f"backbone.options={{{given}}}")
    return network


def words(options: Options, name: str, seed: int) -> list[str]:
    """What a row means on the command line of a training."""
    return [
        *ROWS[name].split(), "data=nih", f"data.root={options.root}", "logger=none",
        *_network(options), f"seed={seed}", f"split.folds={FOLDS}",
        f"split.fold={','.join(map(str, range(FOLDS)))}",
        f"hydra.sweep.dir={_folder(options, name, seed)}",
    ]  # fmt: skip


def _folder(options: Options, name: str, seed: int) -> Path:
    return Path(options.folder) / name / f"seed{seed}"


def train(options: Options, name: str, seed: int) -> list[Run]:
    """The runs of a row and seed, a fold each; those that are not there are trained.

    Raises:
        UserError: a training failed; or a run is not there and none is to be trained.
    """
    folder = _folder(options, name, seed)
    if options.train:
        command = [sys.executable, "-m", "cardiomegaly.train", "-m", *words(options, name, seed)]
        if subprocess.run(command, check=False).returncode:  # noqa: S603
            raise UserError(f"rows: a training of {name} failed, with seed {seed}")
    runs = [read_run(path) for path in find_runs(folder)]
    if len(runs) != FOLDS:
        raise UserError(f"folder: {folder} holds {len(runs)} of {FOLDS} runs; say train=true")
    return runs


@dataclass
class Figures:
    """Of one row: statistics on the test folds by name, each the mean over the seeds."""

    validation: float
    statistics: dict[str, Statistic]
    pointing: float


def judge(tables: Sequence[Sequence[pd.DataFrame]], validation: float, pointing: float) -> Figures:
    """Figures of the predictions of each seed's folds."""
    tests = [
        pd.concat([table[table["split"] == "test"] for table in folds]).sort_values("image")
        for folds in tables
    ]
    statistics = {}
    for name, metric, view in (
        ("AUROC", "auroc", None), ("average precision", "average_precision", None),
        ("AUROC PA", "auroc", "PA"), ("AUROC AP", "auroc", "AP"),
    ):  # fmt: skip
        of_view = [test if view is None else test[test["view_position"] == view] for test in tests]
        statistics[name] = _mean([_ranking(test)[metric] for test in of_view])
    return Figures(validation, statistics, pointing)


def _ranking(test: pd.DataFrame) -> dict[str, Statistic]:
    patients = Patients.of(test["target"], test["patient_id"])
    return ranking_statistics(patients, test["logit"].to_numpy())


def _mean(seeds: Sequence[Statistic]) -> Statistic:
    """The mean over seeds of a metric of the same images."""
    value = float(np.mean([seed.value for seed in seeds]))
    influence = np.mean([seed.influence for seed in seeds], axis=0)
    return Statistic(value, influence, seeds[0].shares, seeds[0].counted)


def point(runs: Sequence[Run], images: ImageFolder) -> float:
    """How often the attention's highest point lies in the heart box, on the runs' test images."""
    boxes = find_boxes(images.root)
    if boxes is None:
        raise UserError(f"root: {images.root} holds no list of boxes")
    hits: list[float] = []
    for run in runs:
        hearts = boxed_hearts(run.part("test")[["image"]].assign(part="test"), boxes)
        names = hearts["image"].tolist()
        predictor = Predictor.from_checkpoint(run.checkpoint)
        maps = predictor.predict_batches(
            {"image": torch.from_numpy(pixels)}
            for pixels in images.batches(names, predictor.image_size)
        ).attention
        if maps is None:
            return float("nan")
        scores = score_maps(list(maps), hearts[NUMBERS].to_numpy(np.float64), 0.5)
        hits.extend(scores["pointing"])
    return float(np.mean(hits))


def _one_view(run: Run, images: ImageFolder) -> pd.DataFrame:
    """A run's test predictions without mirror images."""
    table, predictor = run.part("test"), Predictor.from_checkpoint(run.checkpoint)
    batches = images.batches(table["image"].tolist(), predictor.image_size)
    return table.assign(logit=np.concatenate([predictor.predict(b).logits for b in batches]))


def regress(
    options: Options, seeds: Sequence[Sequence[Run]], images: ImageFolder
) -> list[list[pd.DataFrame]]:
    """Predictions of `linear`, trained and tested on the images of each run."""
    chosen = config.check(cli.compose(config.CONF_DIR, cli.read_words(_network(options))))
    backbone = Backbone(chosen.backbone)
    load_weights(backbone.model, Path(options.weights))
    splits = [[pd.read_csv(run.folder / SPLIT) for run in folds] for folds in seeds]
    features = pooled_features(backbone, images, splits[0][0]["image"].tolist())
    return [
        [
            fit_and_predict(split, run.predictions, features)
            for split, run in zip(*of_seed, strict=True)
        ]
        for of_seed in zip(splits, seeds, strict=True)
    ]


def act(options: Options) -> None:
    """Train what is missing and print the table.

    Raises:
        UserError: as `train`.
    """
    names = options.rows or list(ROWS)
    if unknown := set(names) - set(ROWS):
        raise UserError(
            f"rows: there is no {', '.join(sorted(unknown))}; there are: {', '.join(ROWS)}"
        )
    images = ImageFolder(Path(options.root))
    rows: dict[str, Figures] = {}
    predictions = {}
    for name in names:
        seeds = [train(options, name, seed) for seed in options.seeds]
        runs = [run for folds in seeds for run in folds]
        validation = float(np.mean([run.history["val/auroc"].iloc[-1] for run in runs]))
        predictions[name] = tables = [[run.predictions for run in folds] for folds in seeds]
        rows[name] = judge(tables, validation, point(runs, images))
        if name == RECIPE:
            tables = [[_one_view(run, images) for run in folds] for folds in seeds]
            rows[ONE_VIEW] = judge(tables, validation, rows[name].pointing)
            rows[LINEAR] = judge(regress(options, seeds, images), float("nan"), float("nan"))
    if {RECIPE, REGION} <= set(names):
        both = [
            [average({RECIPE: whole, REGION: region}) for whole, region in zip(*folds, strict=True)]
            for folds in zip(predictions[RECIPE], predictions[REGION], strict=True)
        ]
        rows[BOTH] = judge(both, float("nan"), float("nan"))
    first = next(iter(rows.values())).statistics
    header = ["", "validation", *first, "pointing", "AUROC from that of the recipe"]
    print(f"| {' | '.join(header)} |\n|{' --- |' * len(header)}")
    for name, figures in rows.items():
        cells = [name, _known(figures.validation, 3)]
        cells += [_written(interval(value)) for value in figures.statistics.values()]
        cells.append(_known(figures.pointing, 2))
        if RECIPE in rows and name != RECIPE:
            other = rows[RECIPE].statistics["AUROC"]
            cells.append(_written(paired_difference(figures.statistics["AUROC"], other)[0]))
        print(f"| {' | '.join(cells)} |", flush=True)


def _known(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"


def _written(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def main(argv: list[str] | None = None) -> int:
    """The command."""
    return cli.run(Options, act, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
