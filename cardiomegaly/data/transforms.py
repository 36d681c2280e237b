"""Augmentation of training images with albumentations, on grey `uint8` images."""

from __future__ import annotations

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no look-up in the network at import

import warnings

import albumentations as A
import cv2
import numpy as np

from cardiomegaly import UserError
from cardiomegaly.config import AugmentConfig

TRIES = 8  # of a pipeline, as its steps are drawn


def build_augmentation(config: AugmentConfig) -> A.Compose | None:
    """Make the pipeline for (H, W, 1) `uint8` images; None when everything is off.

    Rotation, zoom and shift are one interpolation. Seed it with `set_random_seed` before use.
    """
    if config.pipeline is not None:
        pipeline = A.from_dict(config.pipeline)
        return pipeline if isinstance(pipeline, A.Compose) else A.Compose([pipeline])
    steps: list[A.BasicTransform] = []
    if config.horizontal_flip:
        steps.append(A.HorizontalFlip(p=config.horizontal_flip))
    if config.vertical_flip:
        steps.append(A.VerticalFlip(p=config.vertical_flip))
    if config.rotation or config.zoom or config.shift:
        steps.append(
            A.Affine(
                rotate=(-config.rotation, config.rotation),
                scale=(1 - config.zoom, 1 + config.zoom),
                translate_percent=(-config.shift, config.shift),
                border_mode=cv2.BORDER_REPLICATE,
                p=1.0,
            )
        )
    if config.brightness:
        low, high = config.brightness
        steps.append(A.MultiplicativeNoise(multiplier=(low, high), per_channel=False, p=1.0))
    return A.Compose(steps) if steps else None


def check_augmentation(config: AugmentConfig, image_size: int) -> None:
    """Look before a training whether a pipeline of the user's can be built and leaves images such.

    Raises:
        UserError: it cannot be built, or changes the size or type of an image.
    """
    if config.pipeline is None:
        return
    image = np.random.default_rng(0).integers(0, 256, (image_size, image_size, 1), np.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # how albumentations tells of an option it does not know
            augmentation = build_augmentation(config)
            assert augmentation is not None  # noqa: S101  (for the type checker)
            for seed in range(TRIES):
                augmentation.set_random_seed(seed)
                changed = augmentation(image=image)["image"]
                if changed.shape != image.shape or changed.dtype != image.dtype:
                    raise ValueError(
                        f"it makes {changed.shape} {changed.dtype} of {image.shape} {image.dtype}"
                    )
    except Exception as error:  # whatever albumentations and its options say
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"augment.pipeline: must be what albumentations' A.to_dict gives, of transforms that "
            f"leave the size and type of a grey image; {reason}"
        ) from error
