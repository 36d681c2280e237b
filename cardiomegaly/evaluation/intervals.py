"""Intervals of metrics whose images come in patients, and tests of their differences.

One method serves every metric between 0 and 1; docs/intervals.md has its steps and how often the
intervals hold. How far each image moves the metric (`influence.py`) is summed over each patient;
the sum of the squares is the variance. Wilson's interval for as many independent images as have
that variance is the interval: it never leaves 0 to 1 and holds at its ends.

Sources: Wilson, JASA 1927; Obuchowski, "Nonparametric analysis of clustered ROC curve data",
Biometrics 1997; Korn and Graubard, "Confidence intervals for proportions with small expected number
of positive counts", Survey Methodology 1998; Bell and McCaffrey, "Bias reduction in standard errors
for linear regression with multi-stage samples", Survey Methodology 2002.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from cardiomegaly import UserError
from cardiomegaly.evaluation.metrics import Array, Ints, ratio

LEVEL = 0.95
# The exponent of 1 - share. Leaving a patient out (1) errs on the wide side, which the skewed
# distribution of a metric needs; a difference of two models is not skewed, and its p-value is
# uniform with the exponent that makes the variance of independent images unbiased (1/2).
LEFT_OUT, UNBIASED = 1.0, 0.5
ROUNDING = 1e-30  # a variance that is 0 but for rounding


@dataclass(frozen=True)
class Estimate:
    """A metric with its 95% interval; nan where it is not defined."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    def columns(self, name: str) -> dict[str, float]:
        """Value and limits as columns `name`, `name_low` and `name_high` of a table."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


@dataclass(frozen=True)
class Patients:
    """Whose images they are: `index` (n,) numbers the patient, `target` (n,) is 0 or 1."""

    index: Ints
    target: Ints
    number: int

    @classmethod
    def of(cls, target: ArrayLike, patient: ArrayLike) -> Patients:
        """Number the patients of images.

        Raises:
            UserError: lengths differ.
        """
        truth = np.asarray(target, np.int64)
        names, index = np.unique(np.asarray(patient), return_inverse=True)
        if truth.shape != index.shape or not truth.size:
            raise UserError(
                f"patient: one identifier for each image is needed, got {index.shape} "
                f"for targets {truth.shape}"
            )
        return cls(index.astype(np.int64), truth, len(names))

    def part(self, rows: NDArray[np.bool_]) -> Patients:
        """The same patients with some of their images."""
        return Patients(self.index[rows], self.target[rows], self.number)

    def sums(self, values: Array) -> Array:
        """Sum values of images over each patient's negative and positive ones: (patients, 2)."""
        place = 2 * self.index + self.target
        sums = np.bincount(place, weights=values, minlength=2 * self.number)
        return np.asarray(sums, np.float64).reshape(-1, 2)

    @cached_property
    def shares(self) -> Array:
        """Each patient's share of the images of either class, (patients, 2)."""
        images = self.sums(np.ones(len(self.index)))
        return ratio(images, images.sum(axis=0))

    def statistic(self, value: float, influence: Array, counted: Array) -> Statistic:
        """Gather what `Statistic` needs from an influence and a weight for each image, (n,)."""
        return Statistic(value, self.sums(influence), self.shares, self.sums(counted).sum(axis=1))


@dataclass(frozen=True)
class Statistic:
    """A metric, and how far patients move it.

    `influence` and `shares` are (patients, 2), by class; `counted` (patients,) is how many of its
    images the metric counts.
    """

    value: float
    influence: Array
    shares: Array
    counted: Array

    def moves(self, exponent: float) -> Array:
        """How far each patient moves the metric, (patients,); nan for one who is a whole class."""
        scaled = ratio(self.influence, (1 - self.shares) ** exponent)
        return np.asarray(np.where(self.influence == 0, 0, scaled).sum(axis=1))


def interval(statistic: Statistic, level: float = LEVEL) -> Estimate:
    """Wilson's interval for the number of independent images that tell as much."""
    value, counted = statistic.value, statistic.counted
    moves = statistic.moves(LEFT_OUT)
    variance = float(moves @ moves)
    if not np.isfinite([value, variance]).all() or np.count_nonzero(counted) < 2:
        return Estimate(value)
    if variance < ROUNDING:
        images, freedom = counted.sum() ** 2 / (counted @ counted), np.inf
    else:
        spread = value * (1 - value)
        images = spread / variance
        freedom = _freedom(moves, moves**2 / variance - (1 - 2 * value) / spread * moves)
    bend = student.ppf((1 + level) / 2, freedom) ** 2 / images
    centre = (value + bend / 2) / (1 + bend)
    reach = np.sqrt(bend * value * (1 - value) + bend**2 / 4) / (1 + bend)
    return Estimate(value, max(float(centre - reach), 0.0), min(float(centre + reach), 1.0))


def _freedom(moves: Array, parts: Array) -> float:
    """Degrees of freedom of a variance whose logarithm is moved by `parts` (Satterthwaite)."""
    parts = parts[np.abs(moves) > 1e-9 * np.abs(moves).max()]
    spread = float(np.sum((parts - parts.mean()) ** 2))
    return max(2 / spread, 1.0) if spread > 1e-9 else np.inf


def paired_difference(first: Statistic, second: Statistic) -> tuple[Estimate, float]:
    """The difference of a metric of two models on the same images, and its two-sided p-value.

    For AUROC and one image a patient this is DeLong's test, with Student's t for the normal.
    """
    value = first.value - second.value
    moves = first.moves(UNBIASED) - second.moves(UNBIASED)
    variance = float(moves @ moves)
    if not np.isfinite([value, variance]).all():
        return Estimate(value), float("nan")
    if variance < ROUNDING:
        same = abs(value) < 1e-12
        return Estimate(value, value, value), 1.0 if same else float("nan")
    error, freedom = np.sqrt(variance), _freedom(moves, moves**2 / variance)
    reach = student.ppf((1 + LEVEL) / 2, freedom) * error
    p_value = 2 * student.sf(abs(value) / error, freedom)
    return Estimate(value, float(value - reach), float(value + reach)), float(p_value)


def group_difference(first: Statistic, second: Statistic, level: float = LEVEL) -> Estimate:
    """The difference of a metric between two groups of images, which may share patients.

    Source: Zou and Donner, "Construction of confidence limits about effect measures: a general
    approach", Statistics in Medicine 2008; for proportions Newcombe's interval.
    """
    one, two = interval(first, level), interval(second, level)
    moves = first.moves(UNBIASED), second.moves(UNBIASED)
    length = np.sqrt((moves[0] @ moves[0]) * (moves[1] @ moves[1]))
    correlation = float(moves[0] @ moves[1] / length) if length > 0 else 0.0

    def reach(a: float, b: float) -> float:
        return float(np.sqrt(max(a**2 + b**2 - 2 * correlation * a * b, 0)))

    value = one.value - two.value
    low = value - reach(one.value - one.low, two.high - two.value)
    return Estimate(value, low, value + reach(one.high - one.value, two.value - two.low))


def quotient(over: Estimate, under: Estimate) -> Estimate:
    """The quotient of two metrics with intervals, taken as independent; it may be infinite.

    Source: Donner and Zou, "Closed-form confidence intervals for functions of the normal mean and
    standard deviation", Statistical Methods in Medical Research 2012.
    """

    def limit(edge: float, other: float, sign: int) -> float:
        product = over.value * under.value
        square = other * (2 * under.value - other)
        root = np.sqrt(max(product**2 - edge * (2 * over.value - edge) * square, 0))
        return np.inf if square == 0 else (product + sign * root) / square

    if under.value == 0:
        value = np.inf if over.value > 0 else float("nan")
    else:
        value = over.value / under.value
    return Estimate(value, limit(over.low, under.high, -1), limit(over.high, under.low, 1))
