"""Through Lightning: steps of a training between steps in memory, epochs, and whole runs."""

from __future__ import annotations

import io
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.utils.benchmark.utils.timer import timer

from benchmarks.material import BACKBONES, ORIGINAL_SIZE, Material, repeat
from benchmarks.steps import CPU, PLAIN, build, plain_step, step_in_memory
from benchmarks.table import Row
from benchmarks.timing import Rate, Runs, fresh_process, in_turn
from cardiomegaly.config import Config
from cardiomegaly.data.datamodule import CardiomegalyDataModule
from cardiomegaly.training import run as training
from cardiomegaly.training.device import choose_precision
from cardiomegaly.training.features import reuse_features
from cardiomegaly.training.module import CardiomegalyModule
from cardiomegaly.training.trainer import build_trainer, find_batch_size, quiet_lightning

WARM = 1  # step before each timed stretch: the queue is full then, and memory is as it needs it
TRAINING, MEMORY = "training", "step in memory"
REUSED = {"mobilenetv1": 15, "resnet152v2": 100}  # of (d), and how many times faster
LARGEST = 1025  # images of a batch of (j) are fewer
EPOCH, RUN = 1200, 300  # images of (d) and of (l)


class Stretches(Callback):
    """Times stretches of a training, and after each what it is compared with.

    Args:
        others: names and functions that return images a second.
        steps: in a stretch.
        rounds: stretches.
    """

    def __init__(self, others: dict[str, Rate], steps: int, rounds: int) -> None:
        self.others = others
        self.steps = steps
        self.batches = (WARM + steps) * rounds
        self.runs: Runs = {name: [] for name in (TRAINING, *others)}
        self.busy: list[float] = []  # per cent of the time, as NVML counts it
        self.start = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End a stretch, let the others run, begin the next."""
        done = (batch_idx + 1) % (WARM + self.steps)
        if done == WARM:
            self.start = timer()
        elif pl_module.device.type == "cuda" and time.perf_counter() > self.start + 1:
            self.busy += gpu_busy()
        if done == 0:
            images = self.steps * len(batch["target"])
            self.runs[TRAINING].append(images / (timer() - self.start))
            for name, other in self.others.items():
                self.runs[name].append(other())


def gpu_busy() -> list[float]:
    """Per cent of the last second or less in which the GPU computed; empty where none can say."""
    try:
        import pynvml  # nvidia-ml-py, through which torch asks
    except ImportError:
        return []
    try:
        return [float(torch.cuda.utilization())]
    except pynvml.NVMLError:
        return []


def fit(
    config: Config,
    module: CardiomegalyModule,
    datamodule: CardiomegalyDataModule,
    *callbacks: Callback,
) -> float:
    """Train as a run does, but keep no checkpoints; images a second of its epochs."""
    with tempfile.TemporaryDirectory() as folder, quiet_lightning(module):
        trainer, history = build_trainer(config, Path(folder), choose_precision(config.trainer))
        trainer.callbacks.remove(trainer.checkpoint_callback)  # type: ignore[attr-defined]
        trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]
        trainer.fit(module, datamodule=datamodule)
    return history.images_per_second


def train_in_stretches(material: Material, config: Config, plain: bool = False) -> Stretches:
    """Train for a while through Lightning; between stretches, the same step in memory."""
    device = torch.device("cuda" if config.trainer.accelerator == "cuda" else "cpu")
    precision, seconds = choose_precision(config.trainer), material.effort.seconds
    module, n = build(config, device), int(config.trainer.batch_size)
    in_memory = step_in_memory(module, config, precision, seconds)
    others: dict[str, Rate] = {MEMORY: in_memory}
    with ExitStack() as stack:
        if plain:
            others[PLAIN] = stack.enter_context(fresh_process(plain_step, config, seconds))
        steps = max(2, round(seconds * in_memory() / n))
        stretches = Stretches(others, steps, material.effort.rounds)
        fit(config, module, material.datamodule(config, stretches.batches * n), stretches)
    return stretches


def training_steps(material: Material) -> Iterator[Row]:
    """(b) Training against the step in memory, (c) and that against plain float32."""
    for name in material.effort.backbones:
        config = material.backbone_config(name)
        plain = material.effort.thorough or name == BACKBONES[0]
        runs = train_in_stretches(material, config, plain).runs
        what = f"frozen {name}, {config.backbone.image_size} px"
        note = f"{choose_precision(config.trainer)}, batches of {config.trainer.batch_size}"
        goal = 0.9 if name == BACKBONES[0] else 0.95
        pair = {TRAINING: runs[TRAINING], MEMORY: runs[MEMORY]}
        yield Row("b", f"training, {what}", pair, goal=goal, note=note)
        if plain:
            pair = {MEMORY: runs[MEMORY], PLAIN: runs[PLAIN]}
            yield Row("c", f"the step as it is, {what}", pair, goal=1.8)


def gpu(material: Material) -> Iterator[Row]:
    """(j) Training on a CUDA device, frozen and whole, and how busy it is."""
    if not torch.cuda.is_available():
        yield Row("j", "training on a GPU", note="left out: torch finds no CUDA device here")
        return
    for name in material.effort.backbones:
        for trainable in ("none", "all"):
            config = material.config(
                f"backbone={name}", f"backbone.trainable={trainable}", "trainer=gpu",
                "trainer.batch_size=auto",
            )  # fmt: skip
            config.trainer.batch_size = fitting_batch(material, config)
            stretches = train_in_stretches(material, config)
            busy = f"{statistics.mean(stretches.busy):.0f}%" if stretches.busy else "not known"
            what = f"{name}, trainable={trainable}, batches of {config.trainer.batch_size}"
            note = f"GPU busy: {busy}; {choose_precision(config.trainer)}"
            yield Row("j", f"training on a GPU, {what}", stretches.runs, goal=0.95, note=note)


def fitting_batch(material: Material, config: Config) -> int:
    """The largest batch that the device's memory holds, below `LARGEST`."""
    module, datamodule = build(config), material.datamodule(config, LARGEST)
    with tempfile.TemporaryDirectory() as folder, quiet_lightning(module):
        trainer, _ = build_trainer(config, Path(folder), choose_precision(config.trainer))
        return find_batch_size(trainer, module, datamodule)


def reused(material: Material) -> Iterator[Row]:
    """(d) An epoch from reused features against one in which the frozen backbone runs."""
    for name in (name for name in REUSED if name in material.effort.backbones):
        yield reused_by(material, name)


def reused_by(material: Material, name: str) -> Row:
    """(d) for one backbone."""
    overrides = ("features=reuse", "features.views=1", "trainer.max_epochs=3")
    reuse, live = material.config(f"backbone={name}", *overrides), material.backbone_config(name)
    module, precision = build(live), choose_precision(reuse.trainer)
    features = material.datamodule(reuse)
    for _ in range(2):  # computed for the cohort, then found for all the images of an epoch
        reuse_features(reuse, features, module.classifier.backbone, CPU, precision)
        repeat(features, EPOCH)
    images = material.datamodule(live, (WARM + 2) * int(live.trainer.batch_size))

    def train_live() -> float:
        stretches = Stretches({}, steps=2, rounds=1)
        fit(live, module, images, stretches)
        return stretches.runs[TRAINING][0]

    measures = {"reused features": lambda: fit(reuse, module, features), "live": train_live}
    runs = in_turn(measures, material.effort.rounds)
    return Row("d", f"epoch from features, {name}", runs, goal=REUSED[name])


def whole_runs(material: Material) -> Iterator[Row]:
    """(l) A run from 1024-pixel PNGs to plots, with nothing in the cache; (f) a run's memory."""
    name = material.effort.backbones[0]
    config = material.config(
        f"backbone={name}", f"data.phantom.size={ORIGINAL_SIZE}", f"data.phantom.images={RUN}",
        f"data.root='{material.folder / 'whole'}'", "trainer.max_epochs=20", "features=reuse",
    )  # fmt: skip
    images = len(material.datamodule(config, 1).split_table)  # generates the cohort
    config.data.cache = str(material.folder / "empty")
    with fresh_process(partial, whole_run, config, material.folder / "reused") as measure:
        seconds, _ = measure()
    what = f"whole run of {images} images and 20 epochs, frozen {name}, features=reuse"
    yield Row("l", what, {"run": [seconds]}, "s")
    live = material.config(f"backbone={name}")
    with fresh_process(partial, whole_run, live, material.folder / "live") as measure:
        _, memory = measure()
    yield Row("f", f"memory, training frozen {name}", {"run": [memory]}, "GiB")


def whole_run(config: Config, folder: Path) -> tuple[float, float]:
    """Train and test; seconds, and the highest resident memory of this process in GiB."""
    start = time.perf_counter()
    with redirect_stdout(io.StringIO()):
        training.train(config, folder)
    # The system's own maximum (getrusage) begins with that of the process that started this one.
    kilobytes = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return time.perf_counter() - start, int(kilobytes[1]) / 2**20 if kilobytes else float("nan")
