"""How often 95% intervals hold the true value, and whether p-values of equal models are uniform.

  python -m benchmarks.coverage                       the tables of docs/intervals.md
  python -m benchmarks.coverage repetitions=200       the same in a tenth of the time

Images are drawn from a population in which every metric is known: a tenth is positive, scores are
normal with variance 1 around 0 (negative) or `DISTANCE` (positive), and the probability is the
true one of the score. Images of a patient share a part of what decides their labels and of their
scores, which changes no metric of the population: rates at a threshold and AUROC have closed
forms, average precision and Brier score are integrals over the score.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import kstest, norm

from cardiomegaly import cli
from cardiomegaly.evaluation.influence import metric_intervals, metric_statistics
from cardiomegaly.evaluation.intervals import (
    Estimate,
    Patients,
    group_difference,
    paired_difference,
)
from cardiomegaly.evaluation.metrics import count_metrics
from cardiomegaly.evaluation.prevalence import prevalence_table
from cardiomegaly.evaluation.settings import Settings

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

PREVALENCE = 0.1
DISTANCE = np.sqrt(2) * norm.ppf(0.85)  # an AUROC of 0.85
THRESHOLDS = (0.1, 0.5)
RARE = 0.02  # the other prevalence
WHOLE = ("auroc", "average_precision", "brier", "auroc, gap")  # at any threshold
GAPS = ("auroc", "sensitivity", "specificity")  # between halves that are drawn alike
COMPARED = ("auroc", "average_precision", "brier")


@dataclass(frozen=True)
class Scenario:
    """How patients are drawn.

    `largest` is the most images of a patient, who has 1 to that many with equal chance; `label`
    and `score` are the correlations of what decides the label, and of the score within a class,
    between images of one patient.
    """

    name: str
    images: int
    largest: int = 1
    label: float = 0.0
    score: float = 0.0


SCENARIOS = [
    Scenario(f"{kind}, n = {images:,}", images, *resemblance)
    for images in (300, 3000)
    for kind, resemblance in {
        "1 image": (1, 0.0, 0.0),
        "1 to 10": (10, 0.5, 0.5),
        "1 to 10, one label": (10, 1.0, 0.5),
    }.items()
]


@dataclass
class Options:
    """What can be chosen."""

    repetitions: int = field(default=2000, metadata={"help": "simulated test parts a column"})
    seed: int = field(default=0, metadata={"help": "of the simulation"})


def log_odds(score: Array) -> Array:
    """The true log odds of an image of this score."""
    return np.asarray(DISTANCE * score - DISTANCE**2 / 2 + logit(PREVALENCE))


def population(threshold: float) -> dict[str, float]:
    """Every metric of the population."""
    cut = (logit(threshold) - logit(PREVALENCE) + DISTANCE**2 / 2) / DISTANCE
    tp, fp = PREVALENCE * norm.sf(cut - DISTANCE), (1 - PREVALENCE) * norm.sf(cut)
    truth = count_metrics(np.array([tp, fp, 1 - PREVALENCE - fp, PREVALENCE - tp]))
    score = np.linspace(-9, 12, 400_001)
    step, positive = score[1] - score[0], norm.pdf(score - DISTANCE)
    called = PREVALENCE * norm.sf(score - DISTANCE)
    precision = called / (called + (1 - PREVALENCE) * norm.sf(score))
    error = PREVALENCE * positive * expit(-log_odds(score)) ** 2
    error += (1 - PREVALENCE) * norm.pdf(score) * expit(log_odds(score)) ** 2
    truth |= {"auroc": float(norm.cdf(DISTANCE / np.sqrt(2)))}
    truth |= {"average_precision": float((positive * precision).sum() * step)}
    truth |= {"brier": float(error.sum() * step)}
    hit, false = truth["sensitivity"] * RARE, (1 - truth["specificity"]) * (1 - RARE)
    missed, clear = RARE - hit, 1 - RARE - false
    truth |= {"ppv if rare": hit / (hit + false), "npv if rare": clear / (clear + missed)}
    return truth | dict.fromkeys((f"{name}, gap" for name in GAPS), 0.0)


def draw(rng: np.random.Generator, scenario: Scenario) -> tuple[Ints, Array, Ints]:
    """Draw one test part: targets, scores and patients, each (n,)."""
    patients = round(2 * scenario.images / (scenario.largest + 1))
    sizes = rng.integers(1, scenario.largest, patients, endpoint=True)
    patient = np.repeat(np.arange(patients), sizes)

    def shared(correlation: float) -> Array:
        own = np.sqrt(1 - correlation) * rng.normal(size=len(patient))
        return np.asarray(np.sqrt(correlation) * rng.normal(size=patients)[patient] + own)

    target = (shared(scenario.label) > norm.isf(PREVALENCE)).astype(np.int64)
    return target, shared(scenario.score) + DISTANCE * target, patient


def coverage(scenario: Scenario, repetitions: int, seed: int) -> pd.DataFrame:
    """How often intervals are there and hold the population's value.

    Returns:
        A row a metric (and threshold): held (share of the intervals), given (share of the test
        parts that have one).
    """
    rng, rows = np.random.default_rng(seed), []
    truth = {threshold: population(threshold) for threshold in THRESHOLDS}
    for _ in range(repetitions):
        target, score, patient = draw(rng, scenario)
        for threshold in THRESHOLDS:
            estimates = _estimates(target, log_odds(score), patient, threshold)
            for name, value in truth[threshold].items():
                one = estimates[name]
                called = "" if name in WHOLE else f" at {threshold:g}"
                rows.append((name + called, one.low <= value <= one.high, np.isfinite(one.low)))
    groups = pd.DataFrame(rows, columns=["metric", "held", "given"]).groupby("metric", sort=False)
    return pd.DataFrame(
        {"held": groups["held"].sum() / groups["given"].sum(), "given": groups["given"].mean()}
    )


def _estimates(target: Ints, odds: Array, patient: Ints, threshold: float) -> dict[str, Estimate]:
    """Every interval that an evaluation has, by the name that `population` gives its true value."""
    estimates = metric_intervals(target, expit(odds), patient, threshold, odds)
    patients, first = Patients.of(target, patient), np.arange(len(target)) % 2 == 0
    rates = prevalence_table(patients, expit(odds), threshold, [RARE])
    for name in ("ppv", "npv"):
        columns = [name, f"{name}_low", f"{name}_high"]
        estimates[f"{name} if rare"] = Estimate(*rates.loc[0, columns])
    halves = [
        metric_statistics(patients.part(half), expit(odds[half]), threshold, odds[half])
        for half in (first, ~first)
    ]
    few = min(target[half].sum() for half in (first, ~first)) < Settings().minimum
    for name in GAPS:
        gap = group_difference(halves[0][name], halves[1][name])
        estimates[f"{name}, gap"] = Estimate(gap.value) if few else gap
    return estimates


def equal_models(scenario: Scenario, repetitions: int, seed: int) -> pd.DataFrame:
    """Compare two models that see the same scores through noise of their own, equally strong.

    Returns:
        A row a test part and metric: metric, p.
    """
    rng, rows = np.random.default_rng(seed), []
    for _ in range(repetitions):
        target, score, patient = draw(rng, scenario)
        patients = Patients.of(target, patient)
        noisy = [score + 0.5 * rng.normal(size=len(score)) for _ in range(2)]
        models = [metric_statistics(patients, expit(log_odds(one))) for one in noisy]
        for name in COMPARED:
            rows.append((name, paired_difference(*(model[name] for model in models))[1]))
    return pd.DataFrame(rows, columns=["metric", "p"])


def act(options: Options) -> None:
    """Print both tables as Markdown."""
    held, tests = {}, []
    for scenario in SCENARIOS:
        found = coverage(scenario, options.repetitions, options.seed)
        held[scenario.name] = [
            f"{share:.3f}" if given > 0.995 else f"{share:.3f} ({given:.0%} given)"
            for share, given in zip(found["held"], found["given"], strict=True)
        ]
        table = equal_models(scenario, options.repetitions, options.seed).dropna()
        for metric in COMPARED:
            p_values = table.loc[table["metric"] == metric, "p"].to_numpy()
            uniform = kstest(p_values, "uniform")
            figures = (p_values < 0.05).mean(), uniform.statistic, uniform.pvalue
            tests.append([scenario.name, metric, *(f"{figure:.3f}" for figure in figures)])
        print(f"{scenario.name} done", file=sys.stderr, flush=True)
    print(_markdown(["interval of", *held], list(zip(found.index, *held.values(), strict=True))))
    print(_markdown(["patients", "metric", "p < 0.05", "KS distance", "KS p"], tests))


def _markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(["", *("| " + " | ".join(cells) + " |" for cells in lines)])


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return cli.run(Options, act, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
