"""Exports a run to the formats of `model.formats`, each checked against PyTorch, in one table."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiomegaly import UserError
from cardiomegaly.inference import metadata
from cardiomegaly.inference.detector import Model
from cardiomegaly.inference.reference import reference_images, write_reference
from cardiomegaly.model.formats import FORMATS, Exported, largest_difference
from cardiomegaly.model.predictor import Predictor

PACKAGES = "pip install 'cardiomegaly[export]'"
REPEATS = 10  # of a timed batch, of which the median counts


class FormatRow(NamedTuple):
    """Of one format: size on disk, time of an image alone and in a batch of ten, and the largest
    difference of an output from PyTorch's."""

    format: str
    megabytes: float
    milliseconds_alone: float
    milliseconds_in_ten: float
    difference: float


def export(model: Model, formats: Sequence[str], folder: Path) -> list[FormatRow]:
    """Write a model into a folder, with `reference_outputs.csv` beside it.

    Returns:
        A row for PyTorch, then one for each format.

    Raises:
        UserError: a format is unknown, its packages are not installed, or what was written does
            not compute what PyTorch does.
    """
    unknown = set(formats) - set(FORMATS)
    if unknown or not formats:
        allowed = ", ".join(FORMATS)
        raise UserError(f"format: must be some of {allowed}, or bundle, got {', '.join(formats)}")
    if not isinstance(model.predictor, Predictor):
        raise UserError("run: an exported file cannot be exported again; give a run or checkpoint")
    folder.mkdir(parents=True, exist_ok=True)
    exported = Exported(model.predictor.classifier)
    images = reference_images(exported.image_size)[1]
    weights = sum(tensor.nbytes for tensor in exported.state_dict().values())
    rows = [FormatRow("PyTorch", weights / 1e6, *_latency(exported.run, images), 0.0)]
    for name in formats:
        path = folder / FORMATS[name].file
        try:
            FORMATS[name].write(exported, path, travelling(model))
            run = FORMATS[name].run(path)
        except ImportError as error:
            raise UserError(f"format: {name} needs {error.name}; say {PACKAGES}") from error
        difference = largest_difference(exported, run, images)
        size = sum(file.stat().st_size for file in folder.glob(f"{path.stem}.*") if _of(file, path))
        rows.append(FormatRow(name, size / 1e6, *_latency(run, images), difference))
    write_reference(model, folder)
    return rows


def travelling(model: Model) -> dict[str, str]:
    """What is written into an exported file beside the network."""
    about = {metadata.KEY: model.metadata.to_json(), metadata.CARD_KEY: model.card}
    if model.refusal is not None:
        about[metadata.REFUSAL_KEY] = base64.b64encode(model.refusal.to_bytes()).decode()
    return about


def as_text(rows: Sequence[FormatRow]) -> str:
    """The table of an export, as text."""
    lines = [f"{'format':<12}{'MB':>8}{'ms alone':>10}{'ms in ten':>11}{'difference':>12}"]
    lines += [
        f"{row.format:<12}{row.megabytes:>8.1f}{row.milliseconds_alone:>10.1f}"
        f"{row.milliseconds_in_ten:>11.1f}{row.difference:>12.1g}"
        for row in rows
    ]
    return "\n".join(lines)


def _of(file: Path, path: Path) -> bool:
    """Whether a file is this export or its weights."""
    return file == path or (path.suffix == ".xml" and file.suffix == ".bin")


def _latency(
    run: Callable[[NDArray[np.uint8]], Any], images: NDArray[np.uint8]
) -> tuple[float, float]:
    """Milliseconds an image, alone and in a batch of ten."""
    found = []
    for batch in (images[:1], images):
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            run(batch)
            times.append(time.perf_counter() - start)
        found.append(1000 * float(np.median(times)) / len(batch))
    return found[0], found[1]
