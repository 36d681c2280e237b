"""Which images make which batch: balance, seeds, epochs and ranks."""

from __future__ import annotations

import numpy as np
import pytest

from cardiomegaly.data.sampler import SequentialBatches, TrainingBatches

N = 50
TARGET = (np.arange(N) < 5).astype(int)  # 10% positive


def indices(batches: TrainingBatches | SequentialBatches) -> np.ndarray:
    return np.concatenate([key.indices for key in batches])


def test_unbalanced_epoch_shows_every_image_once() -> None:
    batches = TrainingBatches(TARGET, 8, balance=False, seed=1)
    assert sorted(indices(batches)) == list(range(N))
    assert len(batches) == len(list(batches)) == 7


def test_balanced_epochs_draw_both_classes_alike() -> None:
    batches = TrainingBatches(TARGET, 8, balance=True, seed=1)
    drawn = []
    for epoch in range(200):
        batches.set_epoch(epoch)
        drawn.append(indices(batches))
    share = TARGET[np.concatenate(drawn)].mean()
    assert share == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(200 * N))
    assert set(np.concatenate(drawn)) == set(range(N))
    assert len(drawn[0]) == N


@pytest.mark.parametrize("balance", [True, False])
def test_order_follows_seed_and_epoch(balance: bool) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        batches = TrainingBatches(TARGET, 8, balance, seed)
        batches.set_epoch(epoch)
        return list(indices(batches))

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


@pytest.mark.parametrize("balance", [True, False])
def test_ranks_share_one_draw(balance: bool) -> None:
    whole = indices(TrainingBatches(TARGET, 8, balance, seed=1))
    ranks = [TrainingBatches(TARGET, 8, balance, 1, rank, 4) for rank in range(4)]
    parts = [indices(batches) for batches in ranks]
    assert {len(part) for part in parts} == {13}  # 50 images padded to 52
    assert {len(list(batches)) for batches in ranks} == {2}
    together = np.stack(parts, axis=1).ravel()
    np.testing.assert_array_equal(together[:N], whole)
    seeds = [[key.seed for key in batches] for batches in ranks]
    assert len({tuple(seed) for seed in seeds}) == 4  # ranks augment differently


def test_sequential_batches_cover_everything_on_every_number_of_ranks() -> None:
    assert list(indices(SequentialBatches(N, 8))) == list(range(N))
    ranks = [SequentialBatches(N, 8, rank, 3) for rank in range(3)]
    assert {len(list(batches)) for batches in ranks} == {len(ranks[0])}
    assert set(np.concatenate([indices(batches) for batches in ranks])) == set(range(N))


def test_it_can_begin_with_any_epoch() -> None:
    later = TrainingBatches(TARGET, 8, balance=True, seed=1, epoch=3)
    same = TrainingBatches(TARGET, 8, balance=True, seed=1)
    same.set_epoch(3)
    np.testing.assert_array_equal(indices(later), indices(same))
