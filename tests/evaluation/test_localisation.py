"""Localisation against boxes computed by hand, and against the published figures of blind boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from cardiomegaly import UserError
from cardiomegaly.data.boxes import read_boxes
from cardiomegaly.evaluation import localisation

RNG = np.random.default_rng(8)
BOXES = np.column_stack(
    [RNG.uniform(300, 420, 40), RNG.uniform(380, 500, 40), RNG.uniform(350, 500, (40, 2))]
)
PATIENT = (np.arange(40) // 2).tolist()


def test_overlaps_by_hand() -> None:
    found, true = np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 20, 10]])
    assert localisation.intersection(found, true) == pytest.approx([50])
    assert localisation.iou(found, true) == pytest.approx([50 / 250])
    assert localisation.iobb(found, true) == pytest.approx([0.5])
    assert localisation.iobb(true, found) == pytest.approx([0.25])
    apart = np.array([[30.0, 30, 5, 5]])
    assert localisation.iou(found, apart) == localisation.iobb(found, apart) == 0


def test_cuts_are_strict_and_the_point_is_the_centre() -> None:
    # IoU 0.5 exactly: two of four columns shared, and a point on the border lies inside.
    found, true = np.array([[0.0, 0, 2, 1]]), np.array([[0.0, 0, 4, 1]])
    row = localisation.score_boxes(found, true).iloc[0]
    assert row["iou"] == 0.5 and row["iou>0.5"] == 0 and row["iou>0.3"] == 1
    assert row["iobb>0.7"] == row["pointing"] == 1


def test_the_true_box_scores_one() -> None:
    assert localisation.score_boxes(BOXES, BOXES).to_numpy() == pytest.approx(1)


def test_a_map_of_the_true_box_scores_one_but_for_its_pixels() -> None:
    boxes = np.array([[256.0, 512, 384, 320]])
    saliency = np.zeros((64, 64), np.float32)
    saliency[32:52, 16:40] = 1
    row = localisation.score_maps([saliency], boxes, 0.5).iloc[0]
    assert row["pointing"] == 1 and row["iou"] > 0.96 and row["energy"] > 0.96
    exact = np.repeat(np.repeat(saliency, 4, 0), 4, 1)
    assert (localisation.score_maps([exact], boxes, 0.5) == 1).all(axis=None)


def test_the_largest_region_is_framed_and_the_peak_may_lie_elsewhere() -> None:
    saliency = np.zeros((256, 256))
    saliency[10:60, 20:80] = 0.6
    saliency[200, 128] = 1
    scaled = localisation.scale_map(saliency)
    assert localisation.box_of_map(scaled, 0.5) == pytest.approx([80, 40, 240, 200])
    assert localisation.box_of_map(scaled, 0.7) == pytest.approx([512, 800, 4, 4])
    assert localisation.peak(scaled) == pytest.approx([514, 802])


def test_a_map_that_is_nowhere_zero_is_cut_between_its_extremes() -> None:
    saliency = np.full((256, 256), 0.6)
    saliency[64:128, 64:192] = 0.9
    box = localisation.box_of_map(localisation.scale_map(saliency), 0.5)
    assert box == pytest.approx([256, 256, 512, 256])


def test_energy_counts_border_pixels_by_their_part() -> None:
    assert localisation.energy_inside(
        np.ones((256, 256)), np.array([1.0, 0, 510, 1024])
    ) == pytest.approx(510 / 1024)


@pytest.mark.parametrize("empty", [np.zeros((7, 7)), np.full((7, 7), -1.0), np.ones((3, 5))])
def test_a_map_that_says_nothing_is_the_whole_image(empty: np.ndarray) -> None:
    scaled = localisation.scale_map(empty)
    assert localisation.peak(scaled) == pytest.approx([512, 512])
    assert localisation.box_of_map(scaled, 0.5) == pytest.approx([0, 0, 1024, 1024])


def test_small_maps_lie_where_their_cells_lie() -> None:
    saliency = np.zeros((4, 4))
    saliency[1, 2] = 1
    scaled = localisation.scale_map(saliency)
    # The cell covers x from 512 to 768 and y from 256 to 512.
    assert localisation.peak(scaled) == pytest.approx([640, 384])
    assert localisation.box_of_map(scaled, 0.5)[:2] == pytest.approx([512, 256], abs=70)


def test_blind_boxes_leave_their_own_image_out() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [100, 100, 20, 30], [300, 200, 40, 50]])
    found = localisation.blind_boxes(boxes)
    assert found["mean box"][0] == pytest.approx([200, 150, 30, 40])
    assert found["half-size mean box"][0] == pytest.approx([207.5, 160, 15, 20])
    assert found["centred box"][0] == pytest.approx([497, 492, 30, 40])
    with pytest.raises(UserError, match="two images or more, got 1"):
        localisation.blind_boxes(boxes[:1])


def test_lift_over_the_best_blind_baseline() -> None:
    scores = {"true box": localisation.score_boxes(BOXES, BOXES)}
    scores["mean box again"] = localisation.score_boxes(
        localisation.blind_boxes(BOXES)["mean box"], BOXES
    )
    found = localisation.summarise(scores, BOXES, PATIENT).set_index(["method", "metric"])
    truth = found.loc[("true box", "iou")]
    # 20 patients, all of them right.
    lowest = binomtest(20, 20).proportion_ci(method="wilson").low
    assert truth[["value", "low", "high"]].to_list() == pytest.approx([1, lowest, 1])
    assert truth["best_baseline"] == "mean box"
    assert truth["lift"] == pytest.approx(1 - found.loc[("mean box", "iou"), "value"])
    assert 0 < truth["lift_low"] < truth["lift"] < truth["lift_high"]
    again = found.loc[("mean box again", "iou")]
    assert again["lift"] == 0 and again["lift_high"] == 0
    assert set(found.index.get_level_values(0)) == {*scores, *localisation.blind_boxes(BOXES)}


def test_published_figures_of_the_blind_boxes(nih_sample: Path) -> None:
    table = read_boxes(nih_sample / "BBox_List_2017.csv")
    table = table[table["finding"] == "Cardiomegaly"]
    boxes = table[["x", "y", "width", "height"]].to_numpy()
    blind = localisation.blind_boxes(boxes)
    mean = localisation.score_boxes(blind["mean box"], boxes).mean()
    centre = localisation.score_boxes(blind["centred box"], boxes).mean()
    assert len(boxes) == 146
    assert mean["iou>0.5"] == pytest.approx(0.849, abs=5e-4)
    assert centre["pointing"] == pytest.approx(0.973, abs=5e-4)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (np.zeros((2, 3)), r"boxes \(judged\): rows of x, y, width .* shape \(2, 3\)"),
        (np.zeros((40, 4)), r"boxes \(judged\): .* width and height over 0"),
        (BOXES[:3], "one for each image is needed, got 3 and 40"),
    ],
)
def test_bad_boxes_are_named(boxes: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        localisation.score_boxes(boxes, BOXES)


def test_bad_maps_and_fractions_are_named() -> None:
    for saliency in (np.full((3, 3), np.nan), np.ones(4), np.ones((0, 3))):
        with pytest.raises(UserError, match="saliency map: finite numbers"):
            localisation.scale_map(saliency)
    with pytest.raises(UserError, match=r"fraction: .* got 0"):
        localisation.score_maps([np.ones((3, 3))], BOXES[:1], fraction=0)
