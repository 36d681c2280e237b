"""How a run begins: alone in its folder, with a split and a label file that it must find again, and
what was chosen for it: its weights, and whether features are computed once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout
from pytorch_lightning.utilities import rank_zero_only

from cardiomegaly import UserError
from cardiomegaly.training.files import csv_text, sha256, write_csv, write_json
from cardiomegaly.training.record import SPLIT, check_hash
from cardiomegaly.training.resume import LOCK

BEGUN = "run.json"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep a second training out of a run folder; the processes of a distributed one are one.

    Raises:
        UserError: another process trains into it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    _acquire(lock, folder)
    try:
        yield
    finally:
        lock.release()


@rank_zero_only
def _acquire(lock: FileLock, folder: Path) -> None:
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"another process trains into {folder}: wait for its end, or give another folder"
        ) from None


def write_begun(
    folder: Path, split: pd.DataFrame, labels_sha256: str, features: str, weights: str
) -> None:
    """Write what a run is begun with: `split.csv`, its hash and the label file's, and choices.

    Args:
        folder: of the run.
        split: as `split.csv` holds it.
        labels_sha256: of the label file.
        features: `live` or `reuse`.
        weights: their name, `none` if they are random.
    """
    write_csv(folder / SPLIT, split)
    hashes = {"split_sha256": sha256(folder / SPLIT), "label_file_sha256": labels_sha256}
    write_json(folder / BEGUN, hashes | {"features": features, "weights": weights})


def read_begun(folder: Path) -> dict[str, str]:
    """What `write_begun` wrote; its split is the one that the run was begun with.

    Raises:
        UserError: `split.csv` was changed, or `run.json` is missing or damaged.
    """
    path = folder / BEGUN
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))
        split_sha256 = begun["split_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is missing or damaged, so nothing tells whether {SPLIT} is still the run's "
            "own: restore it, or start the run anew"
        ) from error
    check_hash(folder / SPLIT, split_sha256)
    return begun


def check_same_data(folder: Path, split: pd.DataFrame, labels_sha256: str) -> None:
    """Refuse to go on with a run whose images or labels have changed since it was begun.

    Raises:
        UserError: the split as it comes out now is not that of `split.csv`, or the label file is
            another.
    """
    begun = json.loads((folder / BEGUN).read_text(encoding="utf-8"))
    if labels_sha256 != begun.get("label_file_sha256"):
        raise UserError(
            f"resume: the label file is not the one that {folder} was begun with; restore it, or "
            "start the run anew"
        )
    if hashlib.sha256(csv_text(split).encode()).hexdigest() != begun["split_sha256"]:
        n = len(pd.read_csv(folder / SPLIT, usecols=["image"]))
        raise UserError(
            f"resume: {folder} was begun with the {n:,} images of its {SPLIT}, of which "
            f"{len(split):,} can be had now; restore the others, or start the run anew"
        )
