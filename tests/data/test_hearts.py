"""Where hearts lie: boxes and CheXmask's masks, drawn, moved with their images, and the mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cardiomegaly import UserError
from cardiomegaly.config import AugmentConfig
from cardiomegaly.data.dataset import augment
from cardiomegaly.data.hearts import INSIDE, Hearts
from cardiomegaly.data.transforms import build_augmentation

BOXES = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"


def encode(mask: np.ndarray) -> str:
    """A run-length code, pixel by pixel: an independent way of writing what is read."""
    words, start = [], None
    for place, inside in enumerate([*mask.ravel().tolist(), 0]):
        if inside and start is None:
            start = place
        elif not inside and start is not None:
            words += [start + 1, place - start]
            start = None
    return " ".join(map(str, words))


def table(path: Path, masks: dict[str, np.ndarray], quality: float = 0.9) -> Path:
    rows = [
        {"Image Index": name, "Dice RCA (Max)": 1.0, "Dice RCA (Mean)": quality, "Landmarks": "[]",
         "Heart": encode(mask), "Height": mask.shape[0], "Width": mask.shape[1]}
        for name, mask in masks.items()
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_boxes_are_drawn_to_scale(tmp_path: Path) -> None:
    (tmp_path / "BBox_List_2017.csv").write_text(
        BOXES + "a.png,Cardiomegaly,256,512,512,128,,,\nb.png,Mass,0,0,512,512,,,\n"
    )
    hearts = Hearts(tmp_path, "stretch", ["a.png", "b.png"], None)
    drawn = hearts.draw("a.png", 64)
    expected = np.zeros((64, 64), np.uint8)
    expected[32:40, 16:48] = INSIDE
    np.testing.assert_array_equal(drawn, expected)
    assert not hearts.draw("b.png", 64).any()  # the box of another finding
    assert hearts.known(["a.png", "b.png", "c.png"]) == ["a.png"]


def test_masks_are_decoded_and_count_before_boxes(tmp_path: Path) -> None:
    (tmp_path / "BBox_List_2017.csv").write_text(BOXES + "a.png,Cardiomegaly,0,0,512,512,,,\n")
    rng = np.random.default_rng(0)
    mask = rng.random((32, 32)) < 0.5
    path = table(tmp_path / "masks.csv", {"a.png": mask, "other.png": mask})
    hearts = Hearts(tmp_path, "stretch", ["a.png"], path)
    np.testing.assert_array_equal(hearts.draw("a.png", 32), mask * np.uint8(INSIDE))
    assert set(hearts.masks) == {"a.png"}  # nothing is kept of images that nobody asked for


def test_a_mask_becomes_square_as_its_image_does(tmp_path: Path) -> None:
    mask = np.ones((20, 40), bool)
    path = table(tmp_path / "masks.csv", {"a.png": mask})
    padded = Hearts(tmp_path, "pad", ["a.png"], path).draw("a.png", 40)
    assert padded[10:30].all()
    assert not padded[:10].any()
    assert not padded[30:].any()


def test_masks_that_their_authors_distrust_are_left_out(tmp_path: Path) -> None:
    path = table(tmp_path / "masks.csv", {"a.png": np.ones((8, 8), bool)}, quality=0.69)
    assert not Hearts(tmp_path, "stretch", ["a.png"], path).known(["a.png"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Image Index,Heart\na,1 2\n", r"no table of CheXmask's: it needs .* got Image Index, Hea"),
        (
            "Image Index,Dice RCA (Mean),Heart,Height,Width\na,1,1 2 3,4,4\n",
            "the heart of a: .*pai",
        ),
        ("Image Index,Dice RCA (Mean),Heart,Height,Width\na,1,16 2,4,4\n", "one beyond 4 x 4"),
        ("Image Index,Dice RCA (Mean),Heart,Height,Width\na,1,0 2,4,4\n", "from 1"),
        ("Image Index,Dice RCA (Mean),Heart,Height,Width\na,1,x y,4,4\n", "the heart of a: "),
        ("", "cannot be read"),
    ],
)
def test_mistakes_in_a_table_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "masks.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=f"data.heart_masks: .*{message}"):
        Hearts(tmp_path, "stretch", ["a"], path)
    with pytest.raises(UserError, match="cannot be read"):
        Hearts(tmp_path, "stretch", ["a"], tmp_path / "none.csv")


def test_the_region_is_the_widened_mean(tmp_path: Path) -> None:
    """Two hearts whose mean spans columns 96 to 224 and rows 128 to 224 of 320: 6 cells wide."""
    (tmp_path / "BBox_List_2017.csv").write_text(
        BOXES
        + "a.png,Cardiomegaly,256,409.6,409.6,307.2,,,\n"
        + "b.png,Cardiomegaly,358.4,409.6,409.6,307.2,,,\n"
    )
    hearts = Hearts(tmp_path, "stretch", ["a.png", "b.png", "c.png"], None)
    # centre at column 160 and row 176; 1.5 x 128 pixels are 6 cells of 32: columns 64 to 256,
    # rows 80 to 272, of which the nearest multiples of 32 are 64 to 256 (2.5 rounds to 2)
    region = hearts.region(["a.png", "b.png", "c.png"], 320)
    assert region == pytest.approx([0.2, 0.2, 0.8, 0.8])


def test_a_region_never_leaves_the_image(tmp_path: Path) -> None:
    (tmp_path / "BBox_List_2017.csv").write_text(BOXES + "a.png,Cardiomegaly,0,0,900,20,,,\n")
    hearts = Hearts(tmp_path, "stretch", ["a.png"], None)
    assert hearts.region(["a.png"], 320) == pytest.approx([0, 0, 1, 1])
    (tmp_path / "BBox_List_2017.csv").write_text(BOXES + "a.png,Cardiomegaly,1020,1020,4,4,,,\n")
    hearts = Hearts(tmp_path, "stretch", ["a.png"], None)
    assert hearts.region(["a.png"], 320) == pytest.approx([0.9, 0.9, 1, 1])


def test_hearts_move_with_their_images() -> None:
    """An image that is its own heart stays so, and images are what they are without hearts."""
    augmentation = build_augmentation(AugmentConfig("all", 0.5, 0.5, 20.0, 0.2, 0.1, None))
    assert augmentation is not None
    images = np.zeros((8, 64, 64), np.uint8)
    images[:, 20:40, 10:50] = INSIDE
    alone, together, hearts = images.copy(), images.copy(), images.copy()
    augment(alone, augmentation, seed=3)
    augment(together, augmentation, seed=3, hearts=hearts)
    np.testing.assert_array_equal(alone, together)
    assert (alone != images).any((1, 2)).all()
    agreement = ((together > 127) == (hearts > 127)).mean((1, 2))
    assert agreement.min() > 0.98  # but for the interpolation at the edges
    assert set(np.unique(hearts)) <= {0, INSIDE}
