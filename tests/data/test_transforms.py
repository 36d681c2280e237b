"""What the augmentation of training images does, and that it stays in its ranges."""

from __future__ import annotations

import numpy as np
import pytest

from cardiomegaly import UserError
from cardiomegaly.config import AugmentConfig
from cardiomegaly.data.dataset import augment
from cardiomegaly.data.transforms import build_augmentation

N, SIZE = 50, 32


def ranges(**changes: object) -> AugmentConfig:
    values = {
        "name": "test", "horizontal_flip": 0.0, "vertical_flip": 0.0, "rotation": 0.0,
        "zoom": 0.0, "shift": 0.0, "brightness": None,
    }  # fmt: skip
    return AugmentConfig(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plain() -> np.ndarray:
    """Smooth images that differ from each other and have no symmetry."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    images = [255 * (0.2 + 0.5 * x * y + 0.2 * y * (i / N)) for i in range(N)]
    return np.array(images).astype(np.uint8)


def augmented(images: np.ndarray, seed: int = 1, **changes: object) -> np.ndarray:
    pipeline = build_augmentation(ranges(**changes))
    assert pipeline is not None
    result = images.copy()
    augment(result, pipeline, seed)
    return result


def test_flips_are_flips(plain: np.ndarray) -> None:
    np.testing.assert_array_equal(augmented(plain, horizontal_flip=1.0), plain[:, :, ::-1])
    np.testing.assert_array_equal(augmented(plain, vertical_flip=1.0), plain[:, ::-1])
    flipped = (augmented(plain, horizontal_flip=0.5) == plain[:, :, ::-1]).all(axis=(1, 2))
    assert 0.2 < flipped.mean() < 0.8


def test_zoom_rotation_shift_and_brightness_stay_in_range(plain: np.ndarray) -> None:
    factor = augmented(plain, brightness=[0.7, 1.5]).mean((1, 2)) / plain.mean((1, 2))
    assert 0.69 <= factor.min() < 0.9
    assert 1.2 < factor.max() <= 1.51
    for change in ({"zoom": 0.2}, {"rotation": 15.0}, {"shift": 0.2}):
        changed = augmented(plain, **change)
        assert (changed != plain).any(axis=(1, 2)).mean() > 0.8
        assert changed.min() >= plain.min() - 1  # nothing but the image comes in at the edges
        assert changed.max() <= plain.max() + 1


def test_seed_and_order_decide_everything(plain: np.ndarray) -> None:
    one, again, other = (augmented(plain, seed, rotation=10.0) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any(axis=(1, 2)).mean() > 0.8


def test_the_same_image_differs_within_a_batch(plain: np.ndarray) -> None:
    images = augmented(plain[[7, 7, 7]], rotation=10.0)
    assert len({image.tobytes() for image in images}) == 3


def test_nothing_to_do_is_no_pipeline() -> None:
    assert build_augmentation(ranges()) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizontal_flip": 1.5}, r"augment\.horizontal_flip: must lie between 0 and 1, got 1\.5"),
        ({"zoom": 1.0}, r"augment\.zoom: must lie between 0 and 0\.9"),
        ({"rotation": -1}, r"augment\.rotation: must lie between 0 and 180"),
        ({"brightness": [1.5, 0.7]}, r"augment\.brightness: must be null or"),
    ],
)
def test_ranges_are_checked(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ranges(**changes)
