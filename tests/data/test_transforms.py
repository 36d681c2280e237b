"""What the augmentation of training images does, and that it stays in its ranges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
from omegaconf import OmegaConf

from cardiomegaly import UserError, cli, config, train
from cardiomegaly.config import AugmentConfig
from cardiomegaly.data.dataset import augment
from cardiomegaly.data.transforms import build_augmentation, check_augmentation
from cardiomegaly.training import resume

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


PIPELINE = A.Compose(
    [
        A.HorizontalFlip(p=0.5),
        A.OneOf([A.RandomGamma(p=1.0), A.GaussianBlur(p=1.0)], p=0.7),
        A.Affine(rotate=(-5, 5), p=1.0),
    ]
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A pipeline as albumentations writes it."""
    path = tmp_path / "my pipeline.yaml"
    A.save(PIPELINE, path, data_format="yaml")
    return path


def test_a_pipeline_from_a_file_is_that_pipeline(plain: np.ndarray, file: Path) -> None:
    words = train.spell_out(cli.read_words([f"augment={file}"]))
    assert words[0] == "augment=pipeline"
    settings = config.check(cli.compose(config.CONF_DIR, words)).augment
    check_augmentation(settings, SIZE)
    built = build_augmentation(settings)
    assert built is not None
    for seed in (1, 2, 1):
        ours, theirs = plain.copy(), plain.copy()
        augment(ours, built, seed)
        augment(theirs, PIPELINE, seed)
        np.testing.assert_array_equal(ours, theirs)
        assert (ours != plain).any(axis=(1, 2)).mean() > 0.8


def test_what_the_file_held_is_recorded_and_gone_on_with(file: Path, tmp_path: Path) -> None:
    words = ["augment=pipeline", f"augment.file='{file}'"]
    composed = cli.compose(config.CONF_DIR, words)
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    text = OmegaConf.to_yaml(own, resolve=True)
    (tmp_path / "run" / resume.CONFIG).write_text(text)
    assert "RandomGamma" in text
    resume.check_unchanged(tmp_path / "run", composed, "")
    A.save(A.Compose([A.VerticalFlip()]), file, data_format="yaml")
    changed = cli.compose(config.CONF_DIR, words)
    with pytest.raises(UserError, match=r"was begun with augment\.pipeline\.transform\.transforms"):
        resume.check_unchanged(tmp_path / "run", changed, "")


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ({"__class_fullname__": "os.system", "p": 1}, "KeyError: 'os.system'"),
        (
            {"__class_fullname__": "HorizontalFlip", "p": 1, "q": 1},
            r"Argument\(s\) 'q' are not valid",
        ),
        ({"__class_fullname__": "Lambda", "__name__": "x"}, "To deserialize a non-serializable"),
        (
            {"__class_fullname__": "Resize", "height": 8, "width": 8, "p": 1},
            r"it makes \(8, 8, 1\)",
        ),
        ({"__class_fullname__": "ToFloat", "p": 0.5}, r"it makes \(32, 32, 1\) float32 of"),
        ({}, "KeyError: '__class_fullname__'"),
    ],
)
def test_a_pipeline_that_cannot_be_used_is_one_line(step: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=rf"augment\.pipeline: must be what .*{reason}") as caught:
        check_augmentation(ranges(pipeline={"transform": step}), SIZE)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    words = ["augment=pipeline", f"augment.file={tmp_path / 'gone.yaml'}"]
    with pytest.raises(
        UserError, match=r"^augment\.file=.*gone\.yaml: must be a YAML file \(\[Errno"
    ):
        config.check(cli.compose(config.CONF_DIR, words))
