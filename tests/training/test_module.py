"""Metrics of an epoch: those of the run's end, to the last digit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, recall_score, roc_auc_score

from cardiomegaly.training.module import validation_metrics

BCE = torch.nn.BCEWithLogitsLoss()


def low_logits(centre: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits (400,) float32 around a centre, higher where the target is 1, and the targets."""
    rng = np.random.default_rng(0)
    target = (rng.random(400) < 0.1).astype(np.float32)
    return (centre + 2 * target + 3 * rng.normal(size=400)).astype(np.float32), target


@pytest.mark.parametrize("centre", [-40.0, 0.0, 40.0])
def test_far_from_the_threshold_images_are_still_ranked(centre: float) -> None:
    logits, target = low_logits(centre)
    metrics = validation_metrics(torch.from_numpy(logits), torch.from_numpy(target), 0.5, BCE)
    assert metrics["val/auroc"].item() == roc_auc_score(target, logits)
    exact = logits.astype(np.float64)
    loss = np.mean(np.logaddexp(0, exact) - exact * target)  # -log p or -log (1 - p)
    assert metrics["val/loss"].item() == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
def test_the_configured_threshold_decides_and_belongs_to_the_positives(threshold: float) -> None:
    logits, target = low_logits(0.0)
    logits[:20] = np.log(threshold / (1 - threshold))
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    called = probability >= threshold
    metrics = validation_metrics(torch.from_numpy(logits), torch.from_numpy(target), threshold, BCE)
    assert metrics["val/f1"].item() == pytest.approx(f1_score(target, called))
    assert metrics["val/sensitivity"].item() == pytest.approx(recall_score(target, called))
    assert metrics["val/specificity"].item() == pytest.approx(
        recall_score(target, called, pos_label=0)
    )


def test_at_the_threshold_an_image_is_called() -> None:
    metrics = validation_metrics(torch.zeros(4), torch.tensor([0.0, 1.0, 1.0, 0.0]), 0.5, BCE)
    assert metrics["val/sensitivity"].item() == 1
    assert metrics["val/specificity"].item() == 0
