"""Sheets of radiographs: the pixels, and maps and boxes where they belong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cardiomegaly.reports import image_sheets

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 16, 16), dtype=np.uint8)
MAPS = RNG.random((5, 3, 2))


def test_image_sheet_shows_the_pixels(saved: list[Figure], tmp_path: Path) -> None:
    image_sheets.plot_images(IMAGES, ["a", "b", "c", "d", "e"], tmp_path / "sheet.png")
    shown = [axes for axes in saved[0].axes if axes.images]
    assert [axes.get_title() for axes in shown] == ["a", "b", "c", "d", "e"]
    np.testing.assert_array_equal(shown[2].images[0].get_array(), IMAGES[2])
    image_sheets.plot_images(IMAGES[:1], ["a"], tmp_path / "one.png")
    image_sheets.plot_images(IMAGES[:0], [], tmp_path / "none.png")
    assert "no images to show" in saved[-1].axes[0].texts[0].get_text()


def test_attention_covers_the_whole_image_on_one_scale(saved: list[Figure], tmp_path: Path) -> None:
    image_sheets.plot_maps(IMAGES, MAPS, list("abcde"), tmp_path / "attention.png")
    covered = [axes for axes in saved[0].axes if len(axes.images) == 2]
    assert len(covered) == 5
    for axes, attention in zip(covered, MAPS, strict=True):
        image, overlay = axes.images
        assert list(overlay.get_extent()) == list(image.get_extent())
        assert overlay.get_clim() == (MAPS.min(), MAPS.max())
        np.testing.assert_array_equal(overlay.get_array(), attention)
    assert any(axes.get_ylabel() == "attention" for axes in saved[0].axes)
    constant = np.full((1, 2, 2), 0.5)
    image_sheets.plot_maps(IMAGES[:1], constant, ["a"], tmp_path / "constant.png")
    unknown = np.full((1, 2, 2), np.nan)
    image_sheets.plot_maps(IMAGES[:1], unknown, ["a"], tmp_path / "nan.png")
    image_sheets.plot_maps(IMAGES[:0], MAPS[:0], [], tmp_path / "none.png")


def test_the_true_box_is_drawn_where_it_is(saved: list[Figure], tmp_path: Path) -> None:
    boxes = np.array([[100.0, 200, 300, 400]] * 2)
    maps = [MAPS[0], MAPS[1] / 9]
    image_sheets.plot_maps(IMAGES[:2], maps, ["a", "b"], tmp_path / "x.png", boxes)
    plain, covered, _, other = saved[0].axes
    for axes in (plain, covered):
        assert axes.patches[0].get_xy() == (100, 200) and axes.patches[0].get_width() == 300
        assert axes.images[0].get_extent() == [0, 1024, 1024, 0]
    # Each map has a scale of its own: the box of a map is a matter of its own range.
    for axes, saliency in ((covered, maps[0]), (other, maps[1])):
        assert axes.images[1].get_clim() == (saliency.min(), saliency.max())
