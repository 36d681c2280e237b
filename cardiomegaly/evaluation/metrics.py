"""The metrics of the design page, by their names there.

What is not defined is nan and never a number that looks like a result: AUROC and average precision
without both classes, predictive values without a prediction of that kind. An image counts as
positive when its probability is at or above the threshold. Images are ranked by their logits where
these are given: probabilities tie where logits are far from 0 or digits are few.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from cardiomegaly import UserError

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

ECE_BINS = 10
ROUNDING = 1e-5  # of probabilities that were written with few digits


def checked(target: ArrayLike, probability: ArrayLike) -> tuple[Ints, Array]:
    """Return targets and probabilities as flat arrays of equal length, or say what is wrong.

    Raises:
        UserError: nothing given, unequal lengths, NaN, a probability outside [0, 1] or a target
            other than 0 and 1.
    """
    truth, score = np.asarray(target, np.float64), np.asarray(probability, np.float64)
    if truth.ndim != 1 or truth.shape != score.shape:
        raise UserError(
            "target and probability: two flat lists of one length are needed, got shapes "
            f"{truth.shape} and {score.shape}; give one probability for each image"
        )
    if truth.size == 0:
        raise UserError("target and probability: at least one image is needed, got none")
    _refuse("target", truth, np.isin(truth, (0.0, 1.0)), "0 and 1 are allowed")
    allowed = (score >= 0) & (score <= 1)
    _refuse("probability", score, allowed, "numbers from 0 to 1 are allowed, no NaN")
    return truth.astype(np.int64), score


def ranking(probability: Array, logit: ArrayLike | None) -> Array:
    """Return what ranks the images: their logits where there are any, else their probabilities.

    Raises:
        UserError: logits of another shape, that are not finite, or of another order than the
            probabilities.
    """
    if logit is None:
        return probability
    score = np.asarray(logit, np.float64)
    if score.shape != probability.shape:
        raise UserError(
            f"logit: one for each probability is needed, got shapes {score.shape} and "
            f"{probability.shape}"
        )
    _refuse("logit", score, np.isfinite(score), "finite numbers are allowed")
    in_order = probability[np.argsort(score)]
    if (np.maximum.accumulate(in_order) - in_order).max() > ROUNDING:
        raise UserError(
            "logit: it must rise with the probability, and some image with a higher logit has a "
            "lower probability; give the logits of the same model, or none"
        )
    return score


def _refuse(name: str, values: Array, allowed: NDArray[np.bool_], what: str) -> None:
    if not allowed.all():
        row = int(np.argmin(allowed))
        raise UserError(
            f"{name}: {what}, row {row} (counted from 0) holds {values[row]:g} and "
            f"{int((~allowed).sum())} of {len(values)} rows are not allowed; correct those rows"
        )


def ratio(over: ArrayLike, under: ArrayLike) -> Array:
    """Divide element by element; nan where the divisor is zero."""
    top, bottom = np.asarray(over, np.float64), np.asarray(under, np.float64)
    out: Array = np.full(np.broadcast_shapes(top.shape, bottom.shape), np.nan)
    np.divide(top, bottom, out=out, where=bottom != 0)
    return out


def proportions(tp: Array, fp: Array, tn: Array, fn: Array) -> dict[str, tuple[Array, Array]]:
    """What is right and what is counted, of every metric that is a proportion.

    The four are 0 or 1 for each image, or their sums over images.
    """
    return {
        "accuracy": (tp + tn, tp + fp + tn + fn),
        "ppv": (tp, tp + fp),
        "npv": (tn, tn + fn),
        "sensitivity": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "f1": (2 * tp, 2 * tp + fp + fn),
    }


def count_metrics(counts: Array) -> dict[str, float]:
    """Turn the sums of `confusion` over images, (4,), into the threshold metrics."""
    tp, fp, tn, fn = counts
    metrics = {name: float(ratio(*pair)) for name, pair in proportions(tp, fp, tn, fn).items()}
    positive, negative = tp + fn, tn + fp
    f1, f1_other = metrics["f1"], float(ratio(2 * tn, 2 * tn + fp + fn))
    # A class without images has weight 0, even where its own F1 is not defined.
    parts = [n * part for n, part in ((positive, f1), (negative, f1_other)) if n > 0]
    weighted = float(ratio(sum(parts), positive + negative))
    return metrics | {"f1_weighted": weighted, "f1_macro": (f1 + f1_other) / 2}


def confusion(target: Ints, probability: Array, threshold: float | Array) -> Array:
    """Mark each image as true positive, false positive, true negative or false negative: (n, 4)."""
    called, true = probability >= threshold, target == 1
    return np.stack([called & true, called & ~true, ~called & ~true, ~called & true], 1) * 1.0


def binary_metrics(
    target: ArrayLike,
    probability: ArrayLike,
    threshold: float | Array = 0.5,
    logit: ArrayLike | None = None,
) -> dict[str, float]:
    """Compute every metric of the design page for one set of predictions.

    Args:
        target: (n,) of 0 and 1, where 1 is cardiomegaly.
        probability: (n,) from 0 to 1.
        threshold: an image is called positive at or above it; one number, or (n,) where thresholds
            were fitted in turn without the image's own patient (then their mean is returned).
        logit: (n,) of the same predictions, where known: AUROC and average precision rank by it.

    Returns:
        One number for each metric of the design page; nan where it is not defined. `f1` is that of
        cardiomegaly, `f1_weighted` the mean over both classes weighted by their images (the
        study's F score), `ece` has 10 bins of equal mass.

    Raises:
        UserError: as `checked` and `ranking`; or a threshold that is no number.
    """
    truth, score = checked(target, probability)
    rank = ranking(score, logit)
    if not np.isfinite(threshold).all():
        raise UserError(f"threshold: a finite number is needed, got {threshold}")
    both = 0 < truth.sum() < len(truth)
    metrics = count_metrics(confusion(truth, score, threshold).sum(axis=0))
    for name, rate in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        metrics[name] = float(rate(truth, rank)) if both else float("nan")
    return metrics | {
        "brier": float(np.mean((score - truth) ** 2)),
        "ece": expected_calibration_error(truth, score),
        "threshold": float(np.mean(threshold)),
        "n": len(truth),
        "n_positive": int(truth.sum()),
    }


def bin_index(probability: Array, bins: int) -> Ints:
    """Number the bin of each probability; equal values always share a bin.

    Bins end at quantiles, so many equal probabilities leave fewer bins than asked.
    """
    inner = np.unique(np.quantile(probability, np.linspace(0, 1, bins + 1))[1:-1])
    return np.searchsorted(inner, probability, side="left").astype(np.int64)


def expected_calibration_error(
    target: ArrayLike, probability: ArrayLike, bins: int = ECE_BINS
) -> float:
    """Average the gap between stated and observed frequency over bins of equal mass.

    Source: Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning",
    AAAI 2015; equal-mass bins after Nixon et al., "Measuring calibration in deep learning", 2019.
    """
    truth, score = checked(target, probability)
    gap = np.bincount(bin_index(score, bins), weights=score - truth)
    return float(np.abs(gap).sum() / len(truth))
