"""Which images make which batch: seeded by (seed, epoch), so every rank and every rerun agrees.

A batch carries the seed of its augmentation, so its pixels depend neither on the number of
workers nor on which of them builds it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

SEEDS = 2**31


@dataclass(frozen=True)
class BatchKey:
    """The positions in the data set that make a batch, and the seed of their augmentation."""

    indices: np.ndarray
    seed: int


class TrainingBatches(Sampler[BatchKey]):
    """Batches of an epoch: shuffled, or drawn with replacement with both classes equally likely.

    Args:
        target: (N,) 0 or 1.
        batch_size: images a batch on each rank.
        balance: weighted oversampling with replacement, N draws an epoch.
        seed: with the epoch, decides everything.
        rank: of this process among `world_size`; every rank draws alike and takes its own share.
        world_size: number of processes.
        epoch: the first one: loader processes draw its batches before Lightning names an epoch.
    """

    def __init__(
        self,
        target: np.ndarray,
        batch_size: int,
        balance: bool,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        epoch: int = 0,
    ) -> None:
        self.target = np.asarray(target)
        self.batch_size = batch_size
        self.balance = balance
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each, but for the first one too late."""
        self.epoch = epoch

    def __len__(self) -> int:
        return batches_per_rank(len(self.target), self.batch_size, self.world_size)

    def __iter__(self) -> Iterator[BatchKey]:
        rng = np.random.default_rng([self.seed, self.epoch])
        n = len(self.target)
        if self.balance:
            label = self.target.astype(int)
            weight = 1.0 / np.bincount(label, minlength=2)[label]
            order = rng.choice(n, n, p=weight / weight.sum())
        else:
            order = rng.permutation(n)
        own = share(order, self.rank, self.world_size)
        for start in range(0, len(own), self.batch_size):
            seed = int(rng.integers(SEEDS)) + self.rank
            yield BatchKey(own[start : start + self.batch_size], seed)


class SequentialBatches(Sampler[BatchKey]):
    """All images once and in order; ranks take turns, padded so that all have as many batches."""

    def __init__(self, n: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.n = n
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return batches_per_rank(self.n, self.batch_size, self.world_size)

    def __iter__(self) -> Iterator[BatchKey]:
        own = share(np.arange(self.n), self.rank, self.world_size)
        for start in range(0, len(own), self.batch_size):
            yield BatchKey(own[start : start + self.batch_size], seed=0)


def share(order: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """Every `world_size`-th of the order, padded from its start so that all ranks get as many."""
    return np.resize(order, math.ceil(len(order) / world_size) * world_size)[rank::world_size]


def batches_per_rank(n: int, batch_size: int, world_size: int) -> int:
    """How many batches each rank goes through for n images."""
    return math.ceil(math.ceil(n / world_size) / batch_size)
