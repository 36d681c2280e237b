"""Test-time augmentation: each image beside its mirror image."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch

from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.model.classifier import CardiomegalyClassifier

BATCH = 32


def batches(
    folder: ImageFolder, images: list[str], classifier: CardiomegalyClassifier
) -> Iterator[torch.Tensor]:
    """Yield images as the classifier takes them, (B, 1, H, W) `uint8` on its device."""
    size = int(classifier.hparams["backbone"]["image_size"])
    for start in range(0, len(images), BATCH):
        pixels = folder.pixels(images[start : start + BATCH], size)
        yield torch.from_numpy(pixels)[:, None].to(classifier.device)


@torch.no_grad()
def add_flips(
    table: pd.DataFrame, classifier: CardiomegalyClassifier, folder: ImageFolder
) -> pd.DataFrame:
    """Average each probability of a prediction table with that of the image's mirror image."""
    images = batches(folder, table["image"].tolist(), classifier.eval())
    mirrored = torch.cat([classifier(image.flip(-1)).logits.sigmoid() for image in images])
    return table.assign(probability=(table["probability"] + mirrored.double().cpu().numpy()) / 2)
