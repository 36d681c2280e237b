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
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import kstest, norm

from cardiomegaly import cli
from cardiomegaly.evaluation.influence import metric_intervals, metric_statistics
from cardiomegaly.evaluation.intervals import Patients, paired_difference
from cardiomegaly.evaluation.metrics import count_metrics

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

PREVALENCE = 0.1
DISTANCE = np.sqrt(2) * norm.ppf(0.85)  # an AUROC of 0.85
THRESHOLDS = (0.1, 0.5)
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
    values = count_metrics(tp, fp, 1 - PREVALENCE - fp, PREVALENCE - tp)
    score = np.linspace(-9, 12, 400_001)
    step, positive = score[1] - score[0], norm.pdf(score - DISTANCE)
    called = PREVALENCE * norm.sf(score - DISTANCE)
    precision = called / (called + (1 - PREVALENCE) * norm.sf(score))
    error = PREVALENCE * positive * expit(-log_odds(score)) ** 2
    error += (1 - PREVALENCE) * norm.pdf(score) * expit(log_odds(score)) ** 2
    found = {name: float(value) for name, value in values.items()}
    found |= {"auroc": float(norm.cdf(DISTANCE / np.sqrt(2)))}
    found |= {"average_precision": float((positive * precision).sum() * step)}
    return found | {"brier": float(error.sum() * step)}


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
        A row a threshold and metric: held (share of the intervals), given (share of the test parts
        that have one).
    """
    rng, rows = np.random.default_rng(seed), []
    truth = {threshold: population(threshold) for threshold in THRESHOLDS}
    for _ in range(repetitions):
        target, score, patient = draw(rng, scenario)
        odds = log_odds(score)
        for threshold in THRESHOLDS:
            estimates = metric_intervals(target, expit(odds), patient, threshold, odds)
            rows += [
                (threshold, name, one.low <= truth[threshold][name] <= one.high, one.low)
                for name, one in estimates.items()
            ]
    table = pd.DataFrame(rows, columns=["threshold", "metric", "held", "low"])
    table["given"] = table["low"].notna()
    groups = table.groupby(["threshold", "metric"], sort=False)
    return pd.DataFrame(
        {"held": groups["held"].sum() / groups["given"].sum(), "given": groups["given"].mean()}
    )


def equal_models(scenario: Scenario, repetitions: int, seed: int) -> pd.DataFrame:
    """Compare two models that see the same scores through noise of their own, equally strong.

    Returns:
        A row a test part and metric: metric, p, held (whether the interval holds 0).
    """
    rng, rows = np.random.default_rng(seed), []
    for _ in range(repetitions):
        target, score, patient = draw(rng, scenario)
        patients = Patients.of(target, patient)
        noisy = [score + 0.5 * rng.normal(size=len(score)) for _ in range(2)]
        models = [metric_statistics(patients, expit(log_odds(one))) for one in noisy]
        for name in COMPARED:
            gap, p_value = paired_difference(*(model[name] for model in models))
            rows.append((name, p_value, gap.low <= 0 <= gap.high))
    return pd.DataFrame(rows, columns=["metric", "p", "held"])


def act(options: Options) -> None:
    """Print both tables as Markdown."""
    seed, repetitions = options.seed, options.repetitions
    columns, tests = {}, []
    for scenario in SCENARIOS:
        found = coverage(scenario, repetitions, seed)
        columns[scenario.name] = [
            f"{row.held:.3f}" + (f" ({row.given:.0%} given)" if row.given < 0.995 else "")
            for row in found.itertuples()
        ]
        for metric, rows in equal_models(scenario, repetitions, seed).groupby("metric", sort=False):
            uniform = kstest(rows["p"].dropna(), "uniform")
            tests.append(
                (scenario.name, metric, rows["held"].mean(), (rows["p"] < 0.05).mean(),
                 uniform.statistic, uniform.pvalue)
            )  # fmt: skip
        print(f"{scenario.name} done", file=sys.stderr, flush=True)
    rows_of = [f"{metric} at {threshold:g}" for threshold, metric in found.index]
    print(_markdown(pd.DataFrame(columns, rows_of)))
    names = ["patients", "metric", "0 held", "p < 0.05", "KS distance", "KS p"]
    table = pd.DataFrame(tests, columns=names).set_index("patients")
    print("\n" + _markdown(table.map(lambda x: x if isinstance(x, str) else f"{x:.3f}")))


def _markdown(table: pd.DataFrame) -> str:
    lines = [["", *table.columns], ["---"] * (len(table.columns) + 1)]
    lines += [
        [str(name), *map(str, row)] for name, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return cli.run(Options, act, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
