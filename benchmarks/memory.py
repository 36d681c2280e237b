"""How much memory the loaders of NIH's full data set take, and a training."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

from benchmarks.apart import in_fresh_process
from benchmarks.material import Effort, Material
from benchmarks.table import Row
from cardiomegaly.data.labels import read_labels
from cardiomegaly.data.store import RowStore
from cardiomegaly.training import run as training
from cardiomegaly.training.run import build_datamodule

WORKERS = 4
READINGS = 20
GIB = 2**30
PARTS = {"Pss": "all", "Pss_Anon": "anonymous", "Pss_File": "files", "Pss_Shmem": "shared"}


def peak(material: Material) -> Iterator[Row]:
    """(f) Peak memory of the loaders on all of NIH's images, and of a training."""
    effort = material.effort
    what = f"memory, {effort.stored:,} images, {WORKERS} workers"
    if sys.platform != "linux":
        yield Row("f", what, note="left out: only Linux tells the memory of a process tree")
        return
    material.datamodule(material.config(), 1)  # generate and decode in this process, not in that
    yield of_loaders(what, in_fresh_process(loaders, material), effort)
    name = effort.backbones[0]
    if not effort.thorough:
        return
    yield Row(
        "f", f"memory, training frozen {name}", value=in_fresh_process(a_training, material) / GIB,
        unit="GiB", note="peak resident memory of the training process; the loader's apart",
    )  # fmt: skip


def of_loaders(what: str, readings: list[dict[str, float]], effort: Effort) -> Row:
    """(f) from readings at equal distances: the memory that all images would need."""
    top = max(readings, key=lambda reading: reading["all"])
    growth = (readings[-1]["all"] - readings[len(readings) // 2]["all"]) / (effort.read / 2)
    expected = top["all"] + max(0.0, growth) * (effort.stored - effort.read)
    return Row(
        "f", what, value=expected / GIB, unit="GiB", goal="under 2 GiB", met=expected < 2 * GIB,
        note=f"sum of PSS over the process tree when {effort.read:,} images are read: "
        f"{top['anonymous'] / GIB:.2f} GiB anonymous, {top['files'] / GIB:.2f} mapped from files, "
        f"{top['shared'] / GIB:.2f} shared; growing by {growth * 1e4 / GIB:.3f} GiB for 10,000 "
        "images, of which the table has the sum after all of them",
        runs={name: [reading[name] for reading in readings] for name in PARTS.values()},
    )  # fmt: skip


def loaders(material: Material) -> list[dict[str, float]]:
    """Load training batches of a data set as long as NIH's; memory as it goes, in bytes."""
    effort = material.effort
    config = material.config(f"data.workers={WORKERS}", "balance=false")
    size = config.backbone.image_size
    store = RowStore(material.folder / "sparse", effort.stored, (size, size), "uint8")
    store.create({})
    table = read_labels(material.labels)
    table = table.iloc[np.resize(np.arange(len(table)), effort.stored)].reset_index(drop=True)
    table["row"] = table.index
    datamodule = build_datamodule(config)
    datamodule.images, datamodule.parts = store, {"train": table}
    seen = 0
    readings: list[dict[str, float]] = []
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # 4 on 2 cores
    for batch in datamodule.train_dataloader():
        seen += len(batch["target"])
        if seen >= (len(readings) + 1) * effort.read / READINGS:
            readings.append(tree_memory(os.getpid()))
        if seen >= effort.read:
            break
    return readings


def a_training(material: Material) -> float:
    """Train and test on the generated cohort; the highest resident memory, in bytes."""
    name = material.effort.backbones[0]
    config = material.config(f"backbone={name}", "trainer.max_epochs=1")
    with redirect_stdout(io.StringIO()):
        training.train(config, material.folder / "run")
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def tree_memory(root: int) -> dict[str, float]:
    """Proportional memory (PSS) of a process and all below it, in bytes, by kind."""
    total = dict.fromkeys(PARTS.values(), 0.0)
    for process in process_tree(root):
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:  # it has just ended
            continue
        for line in text.splitlines()[1:]:
            name, value = line.split()[:2]
            if name.rstrip(":") in PARTS:
                total[PARTS[name.rstrip(":")]] += int(value) * 1024
    return total


def process_tree(root: int) -> list[int]:
    """A process and everything below it, by number."""
    parent = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        parent[int(path.parent.name)] = int(text.rpartition(")")[2].split()[1])
    tree = [root]
    for process in tree:
        tree += [child for child, of in parent.items() if of == process]
    return tree
