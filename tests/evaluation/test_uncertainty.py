"""The bootstrap against resampling by hand and its properties; DeLong against a direct count."""

from __future__ import annotations

import numpy as np
import pytest

from cardiomegaly import UserError
from cardiomegaly.evaluation import uncertainty
from cardiomegaly.evaluation.metrics import NAMES, binary_metrics


def cohort(
    seed: int, patients: int = 60, images: int = 4, shared: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, probabilities and patients; `shared` is what a patient's images have in common."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), images)
    target = np.repeat((rng.random(patients) < 0.4).astype(int), images)
    noise = rng.normal(size=len(patient))
    logit = target + shared * np.repeat(rng.normal(size=patients), images) + noise
    return target, np.round(1 / (1 + np.exp(-logit)), 2), patient


def test_every_resample_is_what_repeating_its_patients_gives() -> None:
    target, probability, patient = cohort(1)
    draws = uncertainty.draw_patients(target, patient, resamples=70, seed=3)
    found = uncertainty.ranking_draws(draws, target, probability)
    found |= uncertainty.threshold_draws(draws, target, probability, 0.6)
    found |= {"brier": uncertainty.error_draws(draws, target, probability)["brier"]}
    assert set(found) == set(NAMES) - {"ece", "threshold", "n", "n_positive"}
    for resample in (0, 1, 69):
        rows = np.repeat(np.arange(len(target)), draws.counts[resample][draws.patient])
        expected = binary_metrics(target[rows], probability[rows], 0.6)
        assert {name: values[resample] for name, values in found.items()} == pytest.approx(
            {name: expected[name] for name in found}
        )


def test_intervals_rank_by_the_logit() -> None:
    target, probability, patient = cohort(1)
    logit = np.log(probability / (1 - probability)) - 40
    draws = uncertainty.draw_patients(target, patient, resamples=50)
    low = np.round(1 / (1 + np.exp(-logit)), 6)
    found = uncertainty.metric_intervals(target, low, draws, logit=logit)
    assert found["auroc"] == uncertainty.metric_intervals(target, probability, draws)["auroc"]
    assert uncertainty.delong_interval(target, logit) == uncertainty.delong_interval(
        target, probability
    )


def test_weights_of_one_give_the_calibration_error_of_the_sample() -> None:
    target, probability, patient = cohort(1)
    draws = uncertainty.draw_patients(target, patient, resamples=1)
    same = uncertainty.Draws(np.ones_like(draws.counts), draws.patient)
    found = uncertainty.error_draws(same, target, probability)["ece"][0]
    assert found == pytest.approx(binary_metrics(target, probability)["ece"])


def test_draws_are_seeded_whole_and_stratified() -> None:
    target, _, patient = cohort(2)
    one, two, other = (
        uncertainty.draw_patients(target, patient, 100, seed).counts for seed in (7, 7, 8)
    )
    assert (one == two).all() and (one != other).any()
    positive = target[::4] == 1
    assert (one[:, positive].sum(1) == positive.sum()).all()
    assert (one[:, ~positive].sum(1) == (~positive).sum()).all()


def test_patient_bootstrap_is_wider_than_image_bootstrap_on_correlated_data() -> None:
    target, probability, patient = cohort(3, shared=2.0)
    width = []
    for unit in (patient, np.arange(len(patient))):
        draws = uncertainty.draw_patients(target, unit, 500)
        found = uncertainty.metric_intervals(target, probability, draws)["auroc"]
        width.append(found.high - found.low)
    assert width[0] > 1.3 * width[1]


def test_shuffled_labels_cover_one_half_in_about_95_of_100() -> None:
    rng = np.random.default_rng(4)
    covered = {"patient": 0, "delong": 0}
    for seed in range(100):
        target, probability, patient = cohort(seed, 150, 2, shared=0.5)
        target = np.repeat(rng.permutation(target[::2]), 2)
        draws = uncertainty.draw_patients(target, patient, 300, seed)
        found = uncertainty.metric_intervals(target, probability, draws)["auroc"]
        covered["patient"] += found.low <= 0.5 <= found.high
        single = uncertainty.delong_interval(rng.permutation(target), probability)
        covered["delong"] += single.low <= 0.5 <= single.high
    # Binomial: with a true rate of 95%, fewer than 88 has a chance of about 1 in 500.
    assert min(covered.values()) >= 88


@pytest.mark.parametrize("ties", [False, True])
def test_delong_agrees_with_a_direct_count_of_all_pairs(ties: bool) -> None:
    rng = np.random.default_rng(6)
    target = np.repeat([0, 1], [50, 30])
    scores = np.clip(rng.random((3, 80)) * 0.7 + 0.3 * target, 0, 1)
    scores = np.round(scores, 1) if ties else scores
    positive, negative = scores[:, target == 1], scores[:, target == 0]
    wins = (positive[:, :, None] > negative[:, None]) + 0.5 * (
        positive[:, :, None] == negative[:, None]
    )
    expected = np.cov(wins.mean(2)) / 30 + np.cov(wins.mean(1)) / 50
    auroc, covariance = uncertainty.delong(target, scores)
    assert auroc == pytest.approx(wins.mean((1, 2)))
    assert covariance == pytest.approx(expected)
    assert uncertainty.delong(target, scores[0])[1] == pytest.approx(expected[:1, :1])


def test_undefined_stays_undefined() -> None:
    target, probability, patient = cohort(5)
    draws = uncertainty.draw_patients(target * 0, patient, 20)
    found = uncertainty.metric_intervals(target * 0, probability, draws)
    assert np.isnan([found["auroc"].value, found["auroc"].low, found["sensitivity"].high]).all()
    assert np.isfinite(found["specificity"].low)
    alone = uncertainty.delong_interval(target * 0, probability)
    assert np.isnan([alone.value, alone.low, alone.high]).all()
    # AUROC of a single positive image is defined, its variance is not.
    single = uncertainty.delong_interval([1, 0, 0], [0.9, 0.1, 0.2])
    assert single.value == 1 and np.isnan(single.low)


def test_interval_needs_most_resamples_to_be_defined() -> None:
    some = np.linspace(0, 1, 100)
    some[:6] = np.nan
    assert np.isnan(uncertainty.interval(0.5, some).low)
    some[0] = 0
    assert uncertainty.interval(0.5, some).low < 0.1


def test_refusals() -> None:
    with pytest.raises(UserError, match="patient: one identifier for each image"):
        uncertainty.draw_patients([0, 1], [1])
    with pytest.raises(UserError, match="resamples: 1 or more are needed, got 0"):
        uncertainty.draw_patients([0, 1], [1, 2], resamples=0)
    with pytest.raises(UserError, match="target and probability"):
        uncertainty.delong([0, 1], [[0.1], [0.2]])
