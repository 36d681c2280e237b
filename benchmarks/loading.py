"""Without a network: loader, cache building, labels to split, memory of the loaders."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch
from PIL import Image
from torchvision import transforms as T

from benchmarks.material import Material
from benchmarks.table import Row
from benchmarks.timing import Rate, fresh_process, in_turn, rate
from cardiomegaly.config import AugmentConfig
from cardiomegaly.data import images as cache
from cardiomegaly.data.labels import read_labels
from cardiomegaly.data.split import check_split, draw_cohort, split_cohort
from cardiomegaly.data.store import RowStore
from cardiomegaly.training.run import build_datamodule

LOADED, USUAL = 480, 8  # images of a round of the loader, and of the usual one, which is slower
DECODED = 256  # images of a cache
WORKERS, READINGS = 4, 20
GIB = 2**30


def loader(material: Material) -> Iterator[Row]:
    """(a) Images a second and core from the cache, against torchvision and PIL on the PNGs."""
    config, seconds = material.config("data.workers=0"), material.effort.seconds
    batches = material.datamodule(config, LOADED).train_dataloader()
    usual = usual_pipeline(config.backbone.image_size, config.augment)
    paths = np.resize(material.originals["path"].to_numpy(), USUAL)
    cv2.setNumThreads(1)
    measures: dict[str, Rate] = {
        "from the cache": lambda: rate(lambda: list(batches), LOADED, seconds, threads=1),
        "torchvision and PIL": lambda: rate(
            lambda: list(map(usual, paths)), USUAL, seconds, threads=1
        ),
    }
    runs = in_turn(measures, material.effort.rounds)
    yield Row("a", f"loader, {config.backbone.image_size} px, one core", runs, goal=20)


def usual_pipeline(size: int, augment: AugmentConfig) -> Callable[[str], torch.Tensor]:
    """What most projects do for each image of each epoch: path -> (3, size, size) float."""
    steps = T.Compose(
        [
            T.Resize((size, size)),
            T.RandomHorizontalFlip(augment.horizontal_flip),
            T.RandomVerticalFlip(augment.vertical_flip),
            T.RandomAffine(augment.rotation, scale=(1 - augment.zoom, 1 + augment.zoom)),
            T.ToTensor(),
            T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )

    def load(path: str) -> torch.Tensor:
        with Image.open(path) as image:
            return steps(image.convert("RGB"))

    return load


def cache_building(material: Material) -> Iterator[Row]:
    """(e) Images a second into the cache, against decoding bytes in memory, on all cores."""
    size, seconds = material.config().backbone.image_size, material.effort.seconds
    originals = material.originals
    images = originals.iloc[np.resize(np.arange(len(originals)), DECODED)].reset_index(drop=True)
    images["row"] = images.index
    data = {path: np.fromfile(path, np.uint8) for path in originals["path"]}

    def build() -> None:
        with tempfile.TemporaryDirectory(dir=material.folder) as folder:
            store = cache.open_cache(images, material.folder, Path(folder), size)
            cache.fill_cache(store, images, progress=False)

    def decode() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda path: cv2.imdecode(data[path], 0) is not None, images["path"]))

    cv2.setNumThreads(1)
    measures = {
        "building the cache": lambda: rate(build, DECODED, seconds),
        "decoding alone": lambda: rate(decode, DECODED, seconds),
    }
    runs = in_turn(measures, material.effort.rounds)
    yield Row("e", f"cache building, {size} px, {len(originals)} PNGs", runs, goal=0.8)


def labels_to_split(material: Material) -> Iterator[Row]:
    """(g) Seconds from a label file of full length to a checked split by patient."""
    seconds = []
    for _ in range(material.effort.rounds):
        start = time.perf_counter()
        labelled = read_labels(material.labels)
        table = draw_cohort(labelled, "study")
        table["split"] = split_cohort(table, "patient", (0.8, 0.08, 0.12), seed=42)
        check_split(table, leaks_allowed=False)
        seconds.append(time.perf_counter() - start)
    yield Row("g", f"labels to split, {len(labelled):,} rows", {"s": seconds}, "s", goal=3)


def loader_memory(material: Material) -> Iterator[Row]:
    """(f) Peak memory of the loaders on all of NIH's images."""
    effort = material.effort
    what = f"memory, {effort.rows:,} images, {WORKERS} workers"
    if not psutil.LINUX:
        yield Row("f", what, note="left out: only Linux tells the memory of a process tree")
        return
    with fresh_process(partial, read_all, material) as measure:
        readings = measure()
    growth = max(0.0, readings[-1] - readings[len(readings) // 2]) / (effort.read / 2)
    expected = max(readings) + growth * (effort.rows - effort.read)
    note = (
        f"{max(readings):.2f} GiB (PSS of the process tree) when {effort.read:,} images are read, "
        f"{growth * 1e4:.3f} GiB more for each 10,000: the sum is that of all of them"
    )
    yield Row("f", what, {"loaders": [expected]}, "GiB", goal=2, note=note)


def read_all(material: Material) -> list[float]:
    """Load training batches of a data set as long as NIH's; PSS as it goes, in GiB."""
    effort = material.effort
    config = material.config(f"data.workers={WORKERS}", "balance=false")
    size = config.backbone.image_size
    store = RowStore(material.folder / "sparse", effort.rows, (size, size), "uint8")
    store.create({})
    table = read_labels(material.labels)
    table = table.iloc[np.resize(np.arange(len(table)), effort.rows)].reset_index(drop=True)
    table["row"] = table.index
    datamodule = build_datamodule(config)
    datamodule.images, datamodule.parts = store, {"train": table}
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # 4 on 2 cores
    seen, readings = 0, list[float]()
    for batch in datamodule.train_dataloader():
        seen += len(batch["target"])
        if seen >= (len(readings) + 1) * effort.read / READINGS:
            process = psutil.Process()
            tree = (process, *process.children(recursive=True))
            readings.append(sum(p.memory_full_info().pss for p in tree) / GIB)
        if seen >= effort.read:
            break
    return readings
