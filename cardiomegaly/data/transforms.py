"""Augmentation of training images with albumentations, on grey `uint8` images."""

from __future__ import annotations

import os
from dataclasses import dataclass

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no look-up in the network at import

import albumentations as A
import cv2


@dataclass
class AugmentConfig:
    """Ranges of the random augmentation; 0 (or null) switches a part off.

    Attributes:
        name: of the choice in `conf/augment`.
        horizontal_flip: probability.
        vertical_flip: probability.
        rotation: degrees to either side.
        zoom: share of the size, in and out.
        shift: share of the width and height, to either side.
        brightness: smallest and largest factor on the pixels, or null.
    """

    name: str
    horizontal_flip: float
    vertical_flip: float
    rotation: float
    zoom: float
    shift: float
    brightness: list[float] | None

    def __post_init__(self) -> None:
        ranges = {"horizontal_flip": 1.0, "vertical_flip": 1.0, "rotation": 180.0}
        ranges |= {"zoom": 0.9, "shift": 0.9}
        for field, most in ranges.items():
            value = getattr(self, field)
            if not 0 <= value <= most:
                raise ValueError(f"augment.{field}: must lie between 0 and {most:g}, got {value}")
        if self.brightness is not None and not (
            len(self.brightness) == 2 and 0 <= self.brightness[0] <= self.brightness[1]
        ):
            raise ValueError(
                f"augment.brightness: must be null or [smallest, largest] factor, "
                f"got {self.brightness}"
            )


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
