"""Without a network: loader, cache building, labels to split, memory of the loaders."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch
from torchvision import transforms as T
from torchvision.datasets.folder import pil_loader

from benchmarks.material import Material
from benchmarks.table import Row
from benchmarks.timing import Rate, fresh_process, in_turn, rate
from cardiomegaly.config import AugmentConfig, read_data
from cardiomegaly.data.split import check_split, draw_cohort, split_cohort
from cardiomegaly.data.tables import read_labels
from cardiomegaly.training.run import build_datamodule

LOADED, USUAL = 480, 8  # images of a round of the loader, and of the usual one, which is slower
WORKERS, MEMORY_EVERY = 4, 50  # loader processes; steps between two looks at their memory


def loader(material: Material) -> Iterator[Row]:
    """(a) Images a second and core from the cache, against torchvision and PIL on the PNGs."""
    config, seconds = material.config("data.workers=0"), material.effort.seconds
    batches = material.datamodule(config, LOADED).train_dataloader()
    usual = usual_pipeline(config.backbone.image_size, config.augment)
    paths = list(islice(cycle(material.originals), USUAL))
    cv2.setNumThreads(1)
    measures: dict[str, Rate] = {
        "from the cache": lambda: rate(lambda: list(batches), LOADED, seconds, threads=1),
        "torchvision and PIL": lambda: rate(
            lambda: [usual(path) for path in paths], USUAL, seconds, threads=1
        ),
    }
    runs = in_turn(measures, material.effort.rounds)
    yield Row("a", f"loader, {config.backbone.image_size} px, one core", runs, goal=20)


def usual_pipeline(size: int, augment: AugmentConfig) -> Callable[[Path], torch.Tensor]:
    """What most projects do for each image of each epoch: path -> (3, size, size) float."""
    return T.Compose(
        [
            pil_loader,
            T.Resize((size, size)),
            T.RandomHorizontalFlip(augment.horizontal_flip),
            T.RandomVerticalFlip(augment.vertical_flip),
            T.RandomAffine(augment.rotation, scale=(1 - augment.zoom, 1 + augment.zoom)),
            T.ToTensor(),
            T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )


def cache_building(material: Material) -> Iterator[Row]:
    """(e) Images a second into the cache, against decoding bytes in memory, on all cores."""
    seconds, root = material.effort.seconds, material.linked
    config = material.config(f"data.root='{root}'")
    config.data.phantom = None
    data = [np.fromfile(path, np.uint8) for path in root.glob("*.png")]

    def build() -> None:
        with tempfile.TemporaryDirectory(dir=material.folder) as folder:
            config.data.cache = folder
            build_datamodule(config).prepare_data()

    def decode() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda png: cv2.imdecode(png, 0) is not None, data))

    cv2.setNumThreads(1)
    measures = {
        "building the cache": lambda: rate(build, len(data), seconds),
        "decoding alone": lambda: rate(decode, len(data), seconds),
    }
    runs = in_turn(measures, material.effort.rounds)
    yield Row("e", f"cache building, {config.backbone.image_size} px", runs, goal=0.8)


def labels_to_split(material: Material) -> Iterator[Row]:
    """(g) Seconds from a label file of full length to a checked split by patient."""
    seconds = []
    for _ in range(material.effort.rounds):
        start = time.perf_counter()
        labelled = read_labels(material.labels, read_data("nih"))
        table = draw_cohort(labelled, "study")
        table["split"] = split_cohort(table, "patient", (0.8, 0.08, 0.12), seed=42)
        check_split(table, leaks_allowed=False)
        seconds.append(time.perf_counter() - start)
    yield Row("g", f"labels to split, {len(labelled):,} rows", {"s": seconds}, "s", goal=3)


def loader_memory(material: Material) -> Iterator[Row]:
    """(f) Peak memory of the loaders when all of NIH's images are read once."""
    what = f"memory, {material.effort.rows:,} images, {WORKERS} workers"
    if not psutil.LINUX:
        yield Row("f", what, note="left out: only Linux tells the memory of a process tree")
        return
    with fresh_process(partial, read_all, material) as measure:
        yield Row("f", what, {"loaders": [measure()]}, "GiB", goal=2)


def read_all(material: Material) -> float:
    """Load training batches of a cohort as long as NIH's; highest PSS of the tree, in GiB."""
    config = material.config(f"data.workers={WORKERS}", "balance=false")
    loader = material.datamodule(config, material.effort.rows).train_dataloader()
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # 4 on 2 cores
    process, highest = psutil.Process(), 0
    for step, _ in enumerate(loader):
        if step % MEMORY_EVERY == 0:
            tree = (process, *process.children(recursive=True))
            highest = max(highest, sum(part.memory_full_info().pss for part in tree))
    return highest / 2**30
