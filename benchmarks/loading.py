"""From files to batches, without a network: loader, cache building, labels to split."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torchvision import transforms as T

from benchmarks.material import Material
from benchmarks.table import Row, compared
from benchmarks.timing import in_turn, one_thread, rate
from cardiomegaly.config import AugmentConfig
from cardiomegaly.data import images as cache
from cardiomegaly.data.labels import read_labels
from cardiomegaly.data.split import check_split, draw_cohort, split_cohort

PILLOW_SHARE = 20  # the usual pipeline is that much slower: it gets fewer images a round


def loader(material: Material) -> Iterator[Row]:
    """(a) Images a second and core from the cache, against torchvision and PIL on the PNGs."""
    config = material.config("data.workers=0")
    size = config.backbone.image_size
    batches = material.datamodule(config, material.effort.loaded).train_dataloader()
    usual = usual_pipeline(size, config.augment)
    paths = cycle(material.originals["path"])
    few = max(1, material.effort.loaded // PILLOW_SHARE)

    def own() -> int:
        return sum(len(batch["target"]) for batch in batches)

    def torchvision_and_pil() -> int:
        return len([usual(path) for path in islice(paths, few)])

    with one_thread():
        own(), torchvision_and_pil()
        measures: dict[str, Callable[[], float]] = {
            "from the cache": lambda: rate(own),
            "torchvision and PIL": lambda: rate(torchvision_and_pil),
        }
        runs = in_turn(measures, material.effort.repeats)
    note = (
        f"one process and thread; {material.origin}; the usual pipeline decodes, widens to RGB, "
        f"scales, flips, turns and zooms at once, and normalises; from the cache a {size} px image "
        f"arrives as one channel of uint8, augmented with augment={config.augment.name}"
    )
    yield compared("a", f"loader, {size} px, one core", runs, at_least=20, note=note)


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
    """(e) Images a second into the cache, against decoding alone, on all cores."""
    size = material.config().backbone.image_size
    n = material.effort.decoded
    originals = material.originals
    images = originals.iloc[np.resize(np.arange(len(originals)), n)].reset_index(drop=True)
    images["row"] = images.index
    data = {path: np.fromfile(path, np.uint8) for path in originals["path"]}
    coded = [data[path] for path in images["path"]]

    def build() -> int:
        with tempfile.TemporaryDirectory(dir=material.folder) as place:
            store = cache.open_cache(images, material.folder, Path(place), size)
            return len(cache.fill_cache(store, images, progress=False))

    measures: dict[str, Callable[[], float]] = {
        "building the cache": lambda: rate(build),
        "decoding alone": lambda: rate(lambda: decode_all(coded)),
    }
    runs = in_turn(measures, material.effort.repeats)
    note = (
        f"{n} files of {material.origin}, on all cores; decoding alone is OpenCV on bytes in "
        "memory, without reading, scaling and writing"
    )
    yield compared("e", f"cache building, {size} px", runs, at_least=0.8, note=note)


def decode_all(coded: list[np.ndarray]) -> int:
    """Decode PNGs in memory to grey, one image a thread, a thread a core."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            grey = pool.map(lambda png: cv2.imdecode(png, cv2.IMREAD_GRAYSCALE) is not None, coded)
            return sum(grey)
    finally:
        cv2.setNumThreads(before)


def labels_to_split(material: Material) -> Iterator[Row]:
    """(g) Seconds from a label file of full length to a checked split by patient."""
    path, effort = material.labels, material.effort
    config = material.config("cohort=study")
    fractions = config.split.fractions
    runs = {
        "study": [seconds_to_split(path, "study", fractions) for _ in range(effort.repeats)],
        "all": [seconds_to_split(path, "all", fractions)],
    }
    value = statistics.median(runs["study"])
    rows = len(pd.read_csv(path, usecols=[0]))
    source = "generated" if material.given_labels is None else path.name
    yield Row(
        "g", f"labels to split, {rows:,} rows", value=value, unit="s", goal="under 3 s",
        met=value < 3, runs=runs,
        note=f"label file: {source}; cohort=study; with cohort=all "
        f"{runs['all'][0]:.2f} s",
    )  # fmt: skip


def seconds_to_split(path: Path, cohort: str, fractions: list[float]) -> float:
    """Read labels, draw the cohort, split it and check the split."""
    start = time.perf_counter()
    drawn = draw_cohort(read_labels(path), cohort)
    train, val, test = fractions
    drawn["split"] = split_cohort(drawn, "patient", (train, val, test), seed=42)
    check_split(drawn, leaks_allowed=False)
    return time.perf_counter() - start
