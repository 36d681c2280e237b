"""Augmentation of training images with albumentations, on grey `uint8` images."""

from __future__ import annotations

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no look-up in the network at import

import albumentations as A
import cv2

from cardiomegaly.config import AugmentConfig


def build_augmentation(config: AugmentConfig) -> A.Compose | None:
    """Make the pipeline for (H, W, 1) `uint8` images; None when everything is off.

    Rotation, zoom and shift are one interpolation. Seed it with `set_random_seed` before use.
    """
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
