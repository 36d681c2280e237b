"""A training step on one batch in memory: without Lightning and without a loader."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import timm
import torch
from torch.nn import functional as F

from benchmarks.apart import Apart
from benchmarks.material import Material
from benchmarks.table import Row, compared
from benchmarks.timing import in_turn, rate, torch_defaults
from cardiomegaly.config import Config
from cardiomegaly.model.predictor import autocast
from cardiomegaly.training.device import choose_precision, keep_freed_memory
from cardiomegaly.training.module import CardiomegalyModule
from cardiomegaly.training.run import build_module

Batch = dict[str, torch.Tensor]
FEWEST_STEPS, MOST_STEPS = 2, 500  # in a timed stretch
PLAIN = "plain float32"
PARTS_OF = ("mobilenetv1", "resnet152v2")  # of (k): the lightest and the heaviest
KEPT = ("and memory kept", "and that in bfloat16", "and batch norms folded")
CPU = torch.device("cpu")


class MemoryStep:
    """Forward, backward and optimiser on the same batch over and over.

    Args:
        classifier: to train; on the device of the batch.
        batch: `image` and `target`.
        precision: Lightning's word for it.
        logits: of the batch; the classifier's own where not given.
    """

    def __init__(
        self,
        module: CardiomegalyModule,
        batch: Batch,
        precision: str,
        logits: Callable[[Batch], torch.Tensor] | None = None,
    ) -> None:
        self.batch = batch
        self.autocast = autocast(batch["target"].device, precision)
        self.logits = logits or module.classifier.logits
        self.optimiser = module.train().configure_optimizers()

    def __call__(self) -> None:
        """One step."""
        with self.autocast:
            logits = self.logits(self.batch)
            loss = F.binary_cross_entropy_with_logits(logits, self.batch["target"])
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def rate(self, steps: int) -> float:
        """Images a second over this many steps."""

        def work() -> int:
            for _ in range(steps):
                self()
            return steps * len(self.batch["target"])

        with torch_defaults():
            self()  # the caches hold something else
            return rate(work)

    def steps_for(self, seconds: float) -> int:
        """How many steps take about this long."""
        images_per_second = self.rate(1)
        steps = round(seconds * images_per_second / len(self.batch["target"]))
        return min(max(steps, FEWEST_STEPS), MOST_STEPS)


def build(config: Config, device: torch.device) -> CardiomegalyModule:
    """The model as a training has it: on its device, channels last."""
    module, _ = build_module(config)
    return module.to(device, memory_format=torch.channels_last)


def some_batch(config: Config, device: torch.device) -> Batch:
    """One batch of noise."""
    size, n = config.backbone.image_size, config.trainer.batch_size
    image = torch.randint(0, 256, (n, 1, size, size), dtype=torch.uint8)
    return {"image": image.to(device), "target": (torch.arange(n) % 2).float().to(device)}


def plain_step(config: Config) -> Callable[[int], float]:
    """The same step as torch's defaults have it, float32 and channels first, on the processor.

    To be made in a fresh process, where memory goes back to the kernel as it usually does.
    """
    module, _ = build_module(config)
    backbone = module.classifier.backbone

    def logits(batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            image = torch.addcmul(backbone.shift, batch["image"].float(), backbone.scale)
            features = backbone.model.forward_features(image.contiguous())
        return module.classifier.head(features).logits

    return MemoryStep(module, some_batch(config, CPU), "32-true", logits).rate


def parts(material: Material) -> Iterator[Row]:
    """(k) What each of the means gives, one after the other, in the forward pass of a backbone."""
    if not material.effort.thorough:
        yield Row("k", "forward alone, one thing after the other", note="left out by --quick")
        return
    for name in (name for name in PARTS_OF if name in material.effort.backbones):
        config = material.images_config(name)
        with Apart(_by_default, config) as default, Apart(_memory_kept, config) as kept:
            measures = {
                PLAIN: partial(default, PLAIN),
                "channels last": partial(default, "channels last"),
                **{what: partial(kept, what) for what in KEPT},
            }
            runs = in_turn(measures, material.effort.repeats)
        for what in list(runs)[1:]:
            pair = {what: runs[what], PLAIN: runs[PLAIN]}
            yield compared("k", f"{name}, forward: {what}", pair)


def _by_default(config: Config) -> Callable[[str], float]:
    """Images a second, forward, in a process that returns freed memory to the kernel."""
    measures = {
        PLAIN: _forward(config, torch.contiguous_format),
        "channels last": _forward(config, torch.channels_last),
    }
    return lambda what: measures[what]()


def _memory_kept(config: Config) -> Callable[[str], float]:
    """Images a second, forward, channels last, in a process that keeps it."""
    keep_freed_memory()
    whole = _forward(config, torch.channels_last)
    bfloat16 = _forward(config, torch.channels_last, "bf16-mixed")
    folded = _forward(config, torch.channels_last, folded=True)
    measures = dict(zip(KEPT, (whole, bfloat16, folded), strict=True))
    return lambda what: measures[what]()


def _forward(
    config: Config, order: torch.memory_format, precision: str = "32-true", folded: bool = False
) -> Callable[[], float]:
    backbone = build_module(config)[0].to(memory_format=order).classifier.backbone
    image = some_batch(config, CPU)["image"]

    def whole() -> Any:
        normalised = backbone.normalise(image).contiguous(memory_format=order)
        return backbone.model.forward_features(normalised)

    def work() -> int:
        if folded:
            backbone(image)
        else:
            whole()
        return len(image)

    def measured() -> float:
        with torch.no_grad(), autocast(CPU, precision):
            work()
            return rate(work)

    return measured


def against_timm(material: Material) -> Iterator[Row]:
    """(h) The frozen ResNet152V2 against timm's network of the same depth."""
    if not material.effort.thorough:
        yield Row("h", "frozen resnet152v2", note="left out by --quick")
        return
    config = material.config("backbone=resnet152v2")
    device, batch = torch.device("cpu"), config.trainer.batch_size
    size = config.backbone.image_size
    image = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    precision = choose_precision(config.trainer)

    def forward(name: str) -> Callable[[], float]:
        model: Any = timm.create_model(name, num_classes=0, global_pool="").eval()
        model.to(memory_format=torch.channels_last)

        def work() -> int:
            with torch.no_grad(), autocast(device, precision):
                model.forward_features(image)
            return batch

        work()
        return lambda: rate(work)

    measures = {
        "resnet152v2": forward(config.backbone.model),
        "timm's resnetv2_152": forward("resnetv2_152"),
    }
    with torch_defaults():
        runs = in_turn(measures, material.effort.repeats)
    note = f"batches of {batch}, {precision}, channels last, forward alone"
    yield compared("h", f"frozen resnet152v2, {size} px", runs, at_least=1, note=note)


def compiled(material: Material) -> Iterator[Row]:
    """(i) The frozen step with torch.compile against without."""
    name = material.effort.backbones[0]
    what = f"torch.compile, frozen {name}"
    if not material.effort.thorough:
        yield Row("i", what, note="left out by --quick: compiling takes a minute and more")
        return
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(material.folder / "inductor")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = material.config(f"backbone={name}", "trainer=auto")
    module, batch = build(config, device), some_batch(config, device)
    precision = choose_precision(config.trainer)
    module.classifier.backbone.compile()
    step = MemoryStep(module, batch, precision)
    start = time.perf_counter()
    try:
        step()
    except RuntimeError as error:  # no C++ compiler, for example
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        yield Row("i", what, note=f"left out, cannot compile here: {reason}")
        return
    seconds = time.perf_counter() - start
    steps = step.steps_for(material.effort.seconds)
    usual = MemoryStep(build(config, device), batch, precision)
    usual()
    measures: dict[str, Callable[[], float]] = {
        "compiled": lambda: step.rate(steps),
        "not compiled": lambda: usual.rate(steps),
    }
    runs = in_turn(measures, material.effort.repeats)
    note = f"{device}, {precision}; the first step took {seconds:.0f} s"
    yield compared("i", what, runs, note=note)
