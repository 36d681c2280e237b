"""Through Lightning: steps of a real training between steps in memory, and whole epochs."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from benchmarks.apart import Apart
from benchmarks.gpu_watch import GpuWatch
from benchmarks.material import Material
from benchmarks.steps import PLAIN, MemoryStep, build, plain_step, some_batch
from benchmarks.table import Row, compared
from benchmarks.timing import Runs, in_turn, synchronise
from cardiomegaly.config import Config
from cardiomegaly.data.datamodule import CardiomegalyDataModule, choose_workers
from cardiomegaly.data.store import READY, RowStore
from cardiomegaly.training.device import choose_precision
from cardiomegaly.training.module import CardiomegalyModule
from cardiomegaly.training.trainer import build_trainer

WARM = 1  # step before each timed stretch: the queue is full then, and memory is as it needs it
TRAINING, MEMORY = "training", "step in memory"
GPU_SECONDS = 3.0  # a timed stretch on a GPU, so that its counters have time to move
VIEWS = 4  # augmented, kept of each image
REUSED = {"mobilenetv1": 10, "resnet152v2": 1}  # of (d), and steps in about a second on 2 cores


class Turns(Callback):
    """Times stretches of a training, and after each what it is compared with.

    Args:
        others: name and a function of the number of steps that returns images a second.
        steps: in a stretch.
        repeats: stretches.
    """

    def __init__(self, others: dict[str, Callable[[int], float]], steps: int, repeats: int) -> None:
        self.others = others
        self.steps = steps
        self.batches = (WARM + steps) * repeats
        self.runs: Runs = {name: [] for name in (TRAINING, *others)}
        self.stretches: list[tuple[float, float]] = []
        self.start = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End a stretch, let the others run, begin the next."""
        done = (batch_idx + 1) % (WARM + self.steps)
        if done == WARM:
            synchronise()
            self.start = time.perf_counter()
        elif done == 0:
            synchronise()
            end = time.perf_counter()
            images = self.steps * len(batch["target"])
            self.runs[TRAINING].append(images / (end - self.start))
            self.stretches.append((self.start, end))
            for name, other in self.others.items():
                self.runs[name].append(other(self.steps))


def steps_in_turn(
    material: Material, config: Config, plain: bool, seconds: float
) -> tuple[Turns, str]:
    """Train for a while through Lightning; between stretches, the same step in memory.

    Returns:
        What was timed, and the precision of the training.
    """
    device = torch.device("cuda" if config.trainer.accelerator == "cuda" else "cpu")
    module, batch = build(config, device), some_batch(config, device)
    precision = choose_precision(config.trainer)
    step = MemoryStep(module, batch, precision)
    others: dict[str, Callable[[int], float]] = {MEMORY: step.rate}
    with ExitStack() as stack:
        if plain:
            others[PLAIN] = stack.enter_context(Apart(plain_step, config))
        turns = Turns(others, step.steps_for(seconds), material.effort.repeats)
        datamodule = material.datamodule(config, turns.batches * config.trainer.batch_size)
        fit(material, config, module, datamodule, turns)
    return turns, precision


def fit(
    material: Material,
    config: Config,
    module: CardiomegalyModule,
    datamodule: CardiomegalyDataModule,
    *callbacks: Callback,
) -> float:
    """Train as a run does, but keep no checkpoints; images a second of its epochs."""
    with tempfile.TemporaryDirectory(dir=material.folder) as folder:
        precision = choose_precision(config.trainer)
        trainer, history = build_trainer(config, Path(folder), precision)
        trainer.callbacks.remove(trainer.checkpoint_callback)  # type: ignore[attr-defined]
        trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]
        trainer.fit(module, datamodule=datamodule)
    return history.images_per_second


def steps(material: Material) -> Iterator[Row]:
    """(b) Training against the step in memory, (c) and that against plain float32."""
    for name in material.effort.backbones:
        config = material.images_config(name)
        plain = material.effort.thorough or name == material.effort.backbones[0]
        turns, precision = steps_in_turn(material, config, plain, material.effort.seconds)
        size, batch = config.backbone.image_size, config.trainer.batch_size
        goal = 0.9 if name == "mobilenetv1" else 0.95
        note = f"{precision}, batches of {batch}, {choose_workers()} loader processes"
        stretch = f"stretches of {turns.steps} steps"
        yield compared(
            "b", f"training, frozen {name}, {size} px", turns.runs, goal, f"{note}, {stretch}"
        )
        if not plain:
            continue
        runs = {MEMORY: turns.runs[MEMORY], PLAIN: turns.runs[PLAIN]}
        fast = torch.cpu._is_avx512_bf16_supported()
        note = "" if fast else "this processor has no bfloat16 instructions"
        if fast and "bf16" not in precision:
            note = "without matrix units (AMX) bfloat16 is slower than float32"
        what = f"the step as it is ({precision}), frozen {name}"
        yield compared("c", what, runs, 1.8 if fast else None, note)


def reused(material: Material) -> Iterator[Row]:
    """(d) An epoch from reused features against one in which the frozen backbone runs."""
    for name in REUSED:
        if name in material.effort.backbones:
            yield reused_by(material, name)


def reused_by(material: Material, name: str) -> Row:
    """(d) for one backbone."""
    effort = material.effort
    reuse = material.config(f"backbone={name}", "features=reuse", "trainer.max_epochs=3")
    live = material.images_config(name)
    module = build(live, torch.device("cpu"))
    features = material.datamodule(reuse, effort.epoch)
    features.use_features(some_features(material, name, module, features), VIEWS)
    steps = max(1, round(REUSED[name] * effort.seconds))
    images = material.datamodule(live, (WARM + steps) * live.trainer.batch_size)

    def ordinary() -> float:
        turns = Turns({}, steps, repeats=1)
        fit(material, live, module, images, turns)
        return turns.runs[TRAINING][0]

    measures: dict[str, Callable[[], float]] = {
        "reused features": lambda: fit(material, reuse, module, features),
        "live": ordinary,
    }
    runs = in_turn(measures, effort.repeats)
    fast, slow = (effort.epoch / statistics.median(speeds) for speeds in runs.values())
    note = (
        f"an epoch of {effort.epoch:,} images: {fast:.2f} s against {slow:.1f} s; the live one is "
        f"scaled up from {steps} steps of {live.trainer.batch_size} images in the midst of it"
    )
    goal = 15 if name == "mobilenetv1" else 100
    return compared("d", f"epoch from features, {name}", runs, goal, note)


def some_features(
    material: Material,
    name: str,
    module: CardiomegalyModule,
    datamodule: CardiomegalyDataModule,
) -> RowStore:
    """A full store of feature maps made of noise, every view of every image."""
    height, width = module.classifier.backbone.feature_size
    shape = (height, width, module.classifier.backbone.num_features)
    folder = material.folder / f"features-{name}"
    store = RowStore(folder, (VIEWS + 1) * datamodule.images.n, shape, "float16")
    store.create({})
    values = np.random.default_rng(0).random(shape, np.float32).astype(np.float16)
    with store.writing() as writer:
        for row in range(store.n):
            writer.put(row, values)
        writer.mark(np.arange(store.n), READY)
    return store


def gpu(material: Material) -> Iterator[Row]:
    """(j) Training on a CUDA device, frozen and whole, and how busy it is."""
    if not torch.cuda.is_available():
        yield Row("j", "accelerator", note="left out: torch finds no CUDA device here")
        return
    for name in material.effort.backbones:
        for trainable in ("none", "all"):
            config = material.config(
                f"backbone={name}", f"backbone.trainable={trainable}", "trainer=gpu",
                "trainer.max_epochs=1",
            )  # fmt: skip
            with GpuWatch() as watch:
                turns, precision = steps_in_turn(material, config, False, GPU_SECONDS)
            state = "frozen" if trainable == "none" else "whole"
            row = compared("j", f"training on the GPU, {state} {name}", turns.runs)
            share = watch.busy(turns.stretches)
            row.goal = "GPU busy for at least 95%"
            row.met = None if share is None else share >= 0.95
            told = "nvidia-smi does not say" if share is None else f"{share:.0%} of the time"
            row.note = (
                f"GPU busy: {told}; {precision}, batches of {config.trainer.batch_size}, "
                f"{choose_workers()} loader processes"
            )
            yield row
