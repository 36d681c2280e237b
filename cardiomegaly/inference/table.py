"""The table of predictions, written batch by batch, so that an interrupted one goes on.

Until it is whole it stands beside its place, under a name that says what was asked for: the same
words go on with it, others begin their own.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from cardiomegaly.inference.detector import Detector
from cardiomegaly.inference.explanation import Row


def write_table(
    output: Path,
    detector: Detector,
    files: Iterable[str],
    *,
    batch_size: int,
    workers: int,
    progress: bool,
    each: Sequence[Callable[[Row], None]] = (),
) -> tuple[int, int]:
    """Predict files into a CSV with the columns of `Row`.

    Args:
        output: the CSV, replaced where it stands.
        detector: the models.
        files: met twice, once to be counted.
        batch_size, workers: as `load_batches`.
        progress: show a bar.
        each: called with every row before it is written.

    Returns:
        How many images there are, and how many of them were refused.
    """
    total, digest = _count(files, detector)
    unfinished = output.with_name(f".{output.name}.{digest}.part")
    output.parent.mkdir(parents=True, exist_ok=True)
    done, refused = _keep_whole_rows(unfinished)
    with unfinished.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not file.tell():
            writer.writerow(Row._fields)
        left = islice(files, done, None)
        bar = tqdm(total=total, initial=done, unit="image", disable=not progress)
        with bar:
            for rows in detector.predict_batches(left, batch_size, workers):
                for row in rows:
                    for act in each:
                        act(row)
                writer.writerows(rows)
                file.flush()
                refused += sum(row.refused for row in rows)
                bar.update(len(rows))
    unfinished.replace(output)
    return total, refused


def _count(files: Iterable[str], detector: Detector) -> tuple[int, str]:
    """How many files there are, and a digest of their names and of how they are predicted."""
    digest, total = hashlib.sha256(detector.identity.encode()), 0
    for name in files:
        total += 1
        digest.update(name.encode("utf-8", "surrogateescape") + b"\n")
    return total, digest.hexdigest()[:12]


def _keep_whole_rows(path: Path) -> tuple[int, int]:
    """Cut off a row that was not written to its end; how many rows there are, how many refused."""
    if not path.is_file():
        return 0, 0
    with path.open("rb+") as file:
        whole = 0
        for line in file:
            whole += len(line) if line.endswith(b"\n") else 0
        file.truncate(whole)
    with path.open(newline="", encoding="utf-8") as file:
        refused = [row["refused"] == "True" for row in csv.DictReader(file)]
    return len(refused), sum(refused)
