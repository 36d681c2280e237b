"""Trainings that know where hearts lie: the attention goes there, or the network sees no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig

import cardiomegaly
from cardiomegaly import UserError, config
from cardiomegaly.data.boxes import NUMBERS, read_boxes
from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.evaluation.localisation import score_maps
from cardiomegaly.model.predictor import Predictor, read_checkpoint
from cardiomegaly.train import train_and_report
from cardiomegaly.training.record import read_run

Train = Callable[..., Path]
SMALL = (
    "cohort=all", "backbone=timm", "backbone.model=resnet10t", "backbone.trainable=all",
    "backbone.options={output_stride: 8}", "backbone.learning_rate=3e-3", "augment=none",
)  # fmt: skip


@pytest.fixture(scope="module")
def boxed_root(phantom_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom cohort with a box of every heart."""
    root = tmp_path_factory.mktemp("boxed")
    for path in phantom_root.iterdir():
        if path.name != "BBox_List_2017.csv":
            (root / path.name).symlink_to(path)
    truth = pd.read_csv(phantom_root / "phantom.csv")
    rows = truth[["image", "x", "y", "w", "h"]].itertuples(index=False)
    lines = [f"{name},Cardiomegaly,{x},{y},{w},{h},,,\n" for name, x, y, w, h in rows]
    (root / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n" + "".join(lines)
    )
    return root


def energy(run: Path, root: Path) -> float:
    """The mean share of the attention in the heart boxes of training images."""
    split = pd.read_csv(run / "split.csv")
    names = set(split["image"][split["split"] == "train"])
    boxes = read_boxes(root / "BBox_List_2017.csv")
    boxes = boxes[(boxes["finding"] == "Cardiomegaly") & boxes["image"].isin(names)]
    predictor = Predictor.from_checkpoint(run / "checkpoints" / "last.ckpt")
    pixels = ImageFolder(root).pixels(boxes["image"].tolist(), predictor.image_size)[:, None]
    maps = predictor.predict(pixels).attention
    assert maps is not None
    return float(score_maps(list(maps), boxes[NUMBERS].to_numpy(np.float64), 0.5)["energy"].mean())


@pytest.mark.slow
def test_the_term_draws_attention_into_the_boxes(
    trained: Train, boxed_root: Path, tmp_path: Path
) -> None:
    rate = "trainer.learning_rate=1e-2"
    words = (*SMALL, f"data.root={boxed_root}", "trainer.max_epochs=4", rate)
    plain = energy(trained(tmp_path / "plain", *words), boxed_root)
    drawn = energy(trained(tmp_path / "drawn", *words, "trainer.attention_weight=3"), boxed_root)
    assert drawn > plain + 0.15
    assert read_run(tmp_path / "drawn").meta["attention_weight"] == 3


def test_a_run_that_sees_the_heart_alone_is_used_as_it_was_tested(
    trained: Train, boxed_root: Path, tmp_path: Path
) -> None:
    """Its region is the one of its training part, and travels with the checkpoint."""
    words = (f"data.root={boxed_root}", "backbone.region=heart", "backbone.image_size=128")
    run = trained(tmp_path / "run", *words)
    region = read_checkpoint(run / "checkpoints" / "best.ckpt")["hyper_parameters"]["backbone"][
        "region"
    ]
    assert region == read_run(run).meta["region"]
    assert 0 < region[2] - region[0] < 1
    assert region[2] - region[0] == region[3] - region[1]
    detector = cardiomegaly.load(run)
    expected = read_run(run).part("test").set_index("image")["probability"]
    paths = sorted((boxed_root / "images").glob("*.png"))
    paths = [path for path in paths if path.name in expected.index]
    found = cardiomegaly.load(run, refuse=False).predict(paths)
    raw = expected[[path.name for path in paths]].to_numpy()
    np.testing.assert_allclose(found["probability_raw"], raw, atol=1e-6)
    attention = detector.explain(paths[0]).attention
    assert attention is not None
    assert attention.shape == (4, 4)
    assert (attention == 0).sum() == 16 - (attention > 0).sum() > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("trainer.attention_weight=1", "head=gap"),
            "trainer.attention_weight=1.0: the head gap has no attention map; use head=gwap",
        ),
        (
            ("trainer.attention_weight=1", "features=reuse"),
            "features=reuse: trainer.attention_weight=1.0 needs the hearts",
        ),
        (("trainer.attention_weight=-1",), "trainer.attention_weight: must be at least 0"),
        (
            ("trainer.attention_weight=1", "data.heart_masks=none.csv"),
            "data.heart_masks: none.csv cannot be read",
        ),
        (("backbone.region=lung",), "backbone.region: must be null, heart or the"),
    ],
)
def test_mistakes_are_named(
    composed: Callable[..., DictConfig], tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train_and_report(config.check(composed(*words)), tmp_path / "run")


@pytest.mark.parametrize("word", ["trainer.attention_weight=1", "backbone.region=heart"])
def test_without_a_heart_there_is_nothing_to_go_by(
    composed: Callable[..., DictConfig], phantom_root: Path, tmp_path: Path, word: str
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for path in phantom_root.iterdir():
        if path.name != "BBox_List_2017.csv":
            (root / path.name).symlink_to(path)
    cfg = composed(word, f"data.root={root}")
    with pytest.raises(UserError, match=r"no heart box of a training image, .*BBox_L"):
        train_and_report(config.check(cfg), tmp_path / "run")


def test_the_recipe_runs_and_is_used_with_mirror_images(
    trained: Train, boxed_root: Path, tmp_path: Path
) -> None:
    words = ("+experiment=recipe", f"data.root={boxed_root}", "trainer.limit_train_batches=2")
    run = trained(tmp_path / "run", *words, "trainer.max_epochs=2")
    meta = read_run(run).meta
    assert (meta["trainable"], meta["cohort"], meta["attention_weight"]) == ("all", "all", 1.0)
    assert meta["averaging"]["_target_"].endswith("EMA")
    assert meta["monitor"] == "val/loss"
    assert cardiomegaly.load(run).models[0].metadata.flips
