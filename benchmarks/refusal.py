"""How often images are refused that are fit, and how often the same ones made unfit.

  python -m benchmarks.refusal run=outputs/train/first root=FOLDER     the table of docs/use.md

The images are those of the run's test part, whose patients it has not seen; root is the folder
below which they lie. photographs=FOLDER tries pictures of another kind, in grey (coloured files
are refused as such), and parts of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import MISSING

import cardiomegaly
from cardiomegaly import UserError, cli
from cardiomegaly.data.images import read_image
from cardiomegaly.inference.inputs import list_files
from cardiomegaly.training import unfit
from cardiomegaly.training.unfit import Pixels

PARTS = 9  # of each photograph
Spoil = Callable[[Pixels, np.random.Generator], Pixels]


@dataclass
class Options:
    """What can be chosen."""

    run: str = field(default=MISSING, metadata={"help": "run folder, whose split.csv says who"})
    root: str = field(default=MISSING, metadata={"help": "folder of the run's images"})
    photographs: str | None = field(default=None, metadata={"help": "folder of other pictures"})
    images: int = field(default=10_000, metadata={"help": "of the test part at most, a row"})
    seed: int = field(default=2025, metadata={"help": "of crops, noise and text"})


def part(image: Pixels, rng: np.random.Generator) -> Pixels:
    """A square of 30 to 60% of the side, anywhere."""
    side = int(min(image.shape) * rng.uniform(0.3, 0.6))
    top, left = (int(rng.integers(0, length - side + 1)) for length in image.shape)
    return image[top : top + side, left : left + side]


UNFIT: dict[str, Spoil] = {
    "none: fit as they are": lambda image, rng: image,
    "inverted": lambda image, rng: 255 - image,
    "rotated by 90 degrees, to the left": lambda image, rng: np.rot90(image),
    "rotated by 90 degrees, to the right": lambda image, rng: np.rot90(image, 3),
    "rotated by 180 degrees": lambda image, rng: np.rot90(image, 2),
    "a random part of 30 to 60% of the side": part,
    "the left half of the image": lambda image, rng: image[:, : image.shape[1] // 2],
    "the right half of the image": lambda image, rng: image[:, image.shape[1] // 2 :],
    "like a lateral view": unfit.lateral,
    "mirrored": lambda image, rng: image[:, ::-1],
    "noise": unfit.noise,
    "text": unfit.text,
}


def act(options: Options) -> None:
    """Print the table.

    Raises:
        UserError: the run has no test part, or none of its images lies below root.
    """
    detector = cardiomegaly.load(options.run)
    split = pd.read_csv(Path(options.run) / "split.csv")
    names = set(split["image"][split["split"] == "test"])
    files = [path for path in sorted(Path(options.root).rglob("*")) if path.name in names]
    if not files:
        raise UserError(f"root: {options.root} holds none of the test images of {options.run}")
    images = [read_image(path) for path in files[: options.images]]
    rng = np.random.default_rng(options.seed)
    print(
        "| made unfit | images | refused | warned of | mostly as |\n| --- | --- | --- | --- | --- |"
    )
    for name, spoil in UNFIT.items():
        spoilt = [np.ascontiguousarray(spoil(image, rng)) for image in images]
        print(line(name, detector.predict(spoilt)), flush=True)
    if options.photographs is not None:
        whole = [read_image(path) for path in list_files([options.photographs])]
        parts = [np.ascontiguousarray(part(image, rng)) for image in whole for _ in range(PARTS)]
        print(line("photographs in grey, and parts of them", detector.predict(whole + parts)))


def line(name: str, table: pd.DataFrame) -> str:
    """How many of some images are refused or warned of, and for which reason most of them."""
    refused, reason = table["refused"], table["reason"]
    mostly = reason[refused].mode()
    warned = reason.str.startswith("warning").mean()
    cells = [name, str(len(table)), f"{refused.mean():.1%}", f"{warned:.1%}"]
    return "| " + " | ".join([*cells, mostly[0] if len(mostly) else ""]) + " |"


def main(argv: list[str] | None = None) -> int:
    """The command."""
    return cli.run(Options, act, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
