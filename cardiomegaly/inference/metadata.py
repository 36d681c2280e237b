"""What a model says of itself: it stands in a run folder, and travels inside of exported files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from cardiomegaly import UserError, __version__

if TYPE_CHECKING:
    from cardiomegaly.training.record import Run

# In the metadata of a file:
KEY, REFUSAL_KEY, CARD_KEY = "cardiomegaly", "cardiomegaly_refusal", "cardiomegaly_card"
FIT = "stretch"
LICENCE = "MIT"
HEART = "cardiomegaly"  # the finding that heart boxes and reports to DICOM are of
NOT_CLINICAL = "research only, not for clinical use"


@dataclass(frozen=True)
class Metadata:
    """Of one model.

    Attributes:
        name: of the run.
        sha256: of its checkpoint.
        image_size: height and width in pixels.
        fit: how an image becomes square, as in `data.images.fit_image`.
        threshold: on the probability before calibration.
        calibration: `slope` and `intercept` of Platt's line on the logit, None without one.
        training: what it was trained on, in words.
        split_hash: of who stood in which part.
        licence: of program and weights.
        classes: what a probability of 0 and of 1 stands for.
        version: of the program that wrote this.
        flips: whether it was tested with each image averaged with its mirror image.
    """

    name: str
    sha256: str
    image_size: int
    fit: str
    threshold: float
    calibration: dict[str, float] | None
    training: str
    split_hash: str | None
    licence: str
    classes: list[str]
    version: str
    flips: bool = False  # older files know no other

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise UserError(f"threshold: must lie between 0 and 1, got {self.threshold!r}")

    def calibrate(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Probabilities of logits, calibrated where a calibration was fitted."""
        line = self.calibration or {"slope": 1.0, "intercept": 0.0}
        probability: NDArray[np.float64] = expit(
            line["slope"] * np.asarray(logits, np.float64) + line["intercept"]
        )
        return probability

    @property
    def finding(self) -> str:
        """What it was trained to find, in lower case."""
        return self.classes[1]

    @property
    def calibrated_threshold(self) -> float:
        """The threshold on the calibrated probability: it makes the same decisions."""
        return float(self.calibrate(logit(self.threshold)))

    def to_json(self) -> str:
        """All of it as one line."""
        return json.dumps(asdict(self))


def of_run(run: Run, sha256: str) -> Metadata:
    """The metadata of a finished run whose checkpoint has this hash."""
    meta = run.meta
    line = meta.get("calibration") or {}
    # A line that falls would turn every decision round: such a model ranks the wrong way.
    rising = (line.get("slope") or 0) > 0 and line.get("intercept") is not None
    return Metadata(
        name=run.name,
        sha256=sha256,
        image_size=meta["image_size"],
        fit=run.config["data"].get("fit", FIT),  # older runs know no other
        threshold=meta["threshold"],
        calibration={key: line[key] for key in ("slope", "intercept")} if rising else None,
        training="{n_train} images of {data} (cohort {cohort}, split by {split})".format_map(meta),
        split_hash=run.split_hash,
        licence=LICENCE,
        classes=_classes(str(meta.get("finding") or HEART).lower()),
        version=__version__,
        flips=bool(meta.get("flips")),
    )


def of_checkpoint(name: str, sha256: str, image_size: int) -> Metadata:
    """The metadata of a checkpoint without its run, of which nothing more is known."""
    return Metadata(
        name=name,
        sha256=sha256,
        image_size=image_size,
        fit=FIT,
        threshold=0.5,
        calibration=None,
        training="not known: the checkpoint came without its run",
        split_hash=None,
        licence=LICENCE,
        classes=_classes(HEART),
        version=__version__,
    )


def _classes(finding: str) -> list[str]:
    return [f"no {finding}", finding]


def of_json(text: str, source: object) -> Metadata:
    """Read what `to_json` wrote.

    Raises:
        UserError: it is something else.
    """
    try:
        values = json.loads(text)
        names = [field.name for field in fields(Metadata) if field.name in values]
        return Metadata(**{name: values[name] for name in names})
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{source} carries no readable metadata of this program ({error!r}); export it again"
        ) from error
