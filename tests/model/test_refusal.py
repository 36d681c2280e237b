"""Ranks, orientations and distances by hand; what is kept comes back; rubbish is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from cardiomegaly import UserError
from cardiomegaly.model.refusal import (
    ORIENTATIONS,
    SIDE,
    Array,
    Reference,
    distances,
    of_bytes,
    to_ranks,
    unit,
)


def test_ranks_do_not_depend_on_exposure() -> None:
    grids = np.random.default_rng(0).uniform(0, 1, (3, 32, 32)).astype(np.float32)
    ranks = to_ranks(grids)
    np.testing.assert_allclose(ranks, to_ranks(200 * grids**2 + 5))
    np.testing.assert_allclose(ranks, -to_ranks(1 - grids), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(ranks, axis=1), 1, rtol=1e-5)


def test_orientations_are_the_eight_of_a_square() -> None:
    image = np.arange(1024).reshape(32, 32)
    turned = {image.ravel()[places].tobytes() for places in ORIENTATIONS}
    expected = [np.rot90(m, k) for m in (image, image[:, ::-1]) for k in range(4)]
    assert turned == {np.ascontiguousarray(one).tobytes() for one in expected} and len(turned) == 8
    np.testing.assert_array_equal(ORIENTATIONS[0], image.ravel())


def test_likeness_is_that_of_the_turned_image_to_the_mean() -> None:
    rng = np.random.default_rng(0)
    grids = rng.random((3, SIDE, SIDE)).astype(np.float32)
    mean = to_ranks(rng.random((1, SIDE, SIDE)).astype(np.float32))[0]
    found = Reference(mean, np.zeros((1, SIDE * SIDE), np.float32)).statistics(grids)
    for column, (mirrored, turns) in enumerate((m, t) for m in (False, True) for t in range(4)):
        turned = np.stack([np.rot90(g[:, ::-1] if mirrored else g, turns) for g in grids])
        np.testing.assert_allclose(found[:, column], to_ranks(turned) @ mean, atol=1e-5)


def test_the_fifth_neighbour_counts() -> None:
    rng = np.random.default_rng(1)
    features, given = rng.normal(size=(20, 6)), rng.normal(size=(3, 6))
    known = unit(features.astype(np.float32))
    every = np.linalg.norm(unit(given.astype(np.float32))[:, None] - known[None], axis=2)
    found = distances(given.astype(np.float32), known)
    np.testing.assert_allclose(found, np.sort(every, axis=1)[:, 4], atol=1e-5)
    few = distances(given.astype(np.float32), known[:2])
    np.testing.assert_allclose(few, every[:, :2].max(1), atol=1e-5)


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04cut"])
def test_rubbish_is_named(data: bytes) -> None:
    with pytest.raises(UserError, match=r"^here holds no readable statistics .* export again$"):
        of_bytes(data, "here")


def test_it_leaves_the_cores_to_the_network(
    trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NumPy's threads, which wait busily for more to do, are not woken."""
    refusal = of_bytes((trained_run / "refusal.npz").read_bytes(), "run")
    original, threads = Reference.statistics, list[int]()

    def statistics(self: Reference, grids: Array) -> Array:
        pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        threads.extend(pool["num_threads"] for pool in pools)
        return original(self, grids)

    monkeypatch.setattr(Reference, "statistics", statistics)
    with threadpool_limits(2, "blas"):
        before = threadpool_info()
        refusal.reasons(np.zeros((2, 64, 64), np.uint8), np.ones((2, refusal.features.shape[1])))
        assert threadpool_info() == before
    assert set(threads) == {1}
