"""Ten generated radiographs and what a model says of them: whether an installation is sound.

The images are drawn anew wherever they are needed; their probabilities travel with the model.
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cardiomegaly import UserError
from cardiomegaly.data.images import decode_image
from cardiomegaly.data.phantom.cohort import generate_phantom
from cardiomegaly.inference.detector import Model
from cardiomegaly.inference.metadata import FIT

FILE = "reference_outputs.csv"
IMAGES, SIZE, SEED = 10, 256, 2025
TOLERANCE = 1e-3  # between machines and libraries, of a probability


def reference_images(size: int) -> tuple[list[str], NDArray[np.uint8]]:
    """Names and pixels (10, 1, size, size) of the generated radiographs."""
    with tempfile.TemporaryDirectory() as folder:
        generate_phantom(Path(folder) / "phantom", images=IMAGES, size=SIZE, seed=SEED)
        paths = sorted((Path(folder) / "phantom" / "images").iterdir())
        pixels = np.stack([decode_image(path, size, FIT) for path in paths])
        return [path.name for path in paths], pixels[:, None]


def write_reference(model: Model, folder: Path) -> None:
    """Write `reference_outputs.csv`: image, probability (not calibrated)."""
    names, images = reference_images(model.metadata.image_size)
    probability = model.predictor.predict(images).probability
    with (folder / FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("image", "probability"), *zip(names, probability, strict=True)])


def check_reference(model: Model, folder: Path) -> float:
    """The largest difference from the `reference_outputs.csv` of a folder.

    Raises:
        UserError: there is none, or a probability differs by more than `TOLERANCE`.
    """
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"check: {path} does not exist; it travels with an exported model")
    with path.open(newline="", encoding="utf-8") as file:
        expected = {row["image"]: float(row["probability"]) for row in csv.DictReader(file)}
    names, images = reference_images(model.metadata.image_size)
    probability = model.predictor.predict(images).probability
    differences = [abs(expected[name] - p) for name, p in zip(names, probability, strict=True)]
    largest = max(differences)
    if not largest <= TOLERANCE:
        raise UserError(
            f"check: {names[int(np.argmax(differences))]} differs by {largest:.2g} from {path}, at "
            f"most {TOLERANCE:g} is allowed; this installation computes another model"
        )
    return largest
