"""A training step on one batch in memory: without Lightning and without a loader."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import timm
import torch
from torch.nn import functional as F

from cardiomegaly.assemble import build_classifier
from cardiomegaly.benchmarks.material import Material
from cardiomegaly.benchmarks.table import Row, compared
from cardiomegaly.benchmarks.timing import in_turn, memory_returned, rate, torch_defaults
from cardiomegaly.config import Config
from cardiomegaly.device import autocast, choose_precision
from cardiomegaly.model.classifier import CardiomegalyClassifier

Batch = dict[str, torch.Tensor]
MOST_STEPS = 500  # in a timed stretch
PLAIN = "plain float32"
PARTS_OF = ("mobilenetv1", "resnet152v2")  # of (k): the lightest and the heaviest


class MemoryStep:
    """Forward, backward and optimiser on the same batch over and over.

    Args:
        classifier: to train; on the device of the batch.
        batch: `image` and `target`.
        precision: Lightning's word for it.
        logits: of the batch; the classifier's own where not given.
        usual_memory: give freed memory back to the kernel, as processes usually do.
    """

    def __init__(
        self,
        classifier: CardiomegalyClassifier,
        batch: Batch,
        precision: str,
        logits: Callable[[Batch], torch.Tensor] | None = None,
        usual_memory: bool = False,
    ) -> None:
        self.batch = batch
        self.autocast = autocast(batch["target"].device, precision)
        self.logits = logits or classifier.logits
        self.usual_memory = usual_memory
        self.optimiser = classifier.train().configure_optimizers()

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

        with torch_defaults(), memory_returned(self.usual_memory):
            self()  # with memory as this step needs it
            return rate(work)

    def steps_for(self, seconds: float) -> int:
        """How many steps take about this long."""
        images_per_second = self.rate(1)
        steps = round(seconds * images_per_second / len(self.batch["target"]))
        return min(max(steps, 1), MOST_STEPS)


def build(config: Config, device: torch.device) -> CardiomegalyClassifier:
    """The model as a training has it: on its device, channels last."""
    classifier, _ = build_classifier(config)
    return classifier.to(device, memory_format=torch.channels_last)


def some_batch(config: Config, device: torch.device) -> Batch:
    """One batch of noise."""
    size, n = config.backbone.image_size, config.trainer.batch_size
    image = torch.randint(0, 256, (n, 1, size, size), dtype=torch.uint8)
    return {"image": image.to(device), "target": (torch.arange(n) % 2).float().to(device)}


def plain_step(config: Config, batch: Batch) -> MemoryStep:
    """The same step as torch's defaults have it: float32, channels first, memory returned."""
    classifier, _ = build_classifier(config)
    backbone = classifier.to(batch["target"].device).backbone

    def logits(batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            image = torch.addcmul(backbone.shift, batch["image"].float(), backbone.scale)
            features = backbone.model.forward_features(image.contiguous())
        return classifier.head(features).logits

    return MemoryStep(classifier, batch, "32-true", logits, usual_memory=True)


def parts(material: Material) -> Iterator[Row]:
    """(k) What each of the means gives, one after the other, in the forward pass of a backbone."""
    if not material.effort.thorough:
        yield Row("k", "forward alone, one thing after the other", note="left out by --quick")
        return
    for name in PARTS_OF:
        config = material.images_config(name)
        image = some_batch(config, torch.device("cpu"))["image"]
        runs = in_turn(_means(config, image), material.effort.repeats)
        for what in list(runs)[1:]:
            pair = {what: runs[what], PLAIN: runs[PLAIN]}
            yield compared("k", f"{name}, forward: {what}", pair)


def _means(config: Config, image: torch.Tensor) -> dict[str, Callable[[], float]]:
    """Images a second, forward, with one means more each time (and bfloat16 as an aside)."""
    first, last = torch.contiguous_format, torch.channels_last

    def forward(order: torch.memory_format, folded: bool = False) -> Callable[[], Any]:
        backbone = build_classifier(config)[0].to(memory_format=order).backbone

        def whole() -> Any:
            normalised = backbone.normalise(image).contiguous(memory_format=order)
            return backbone.model.forward_features(normalised)

        return (lambda: backbone(image)) if folded else whole

    def measure(
        work: Callable[[], Any], precision: str = "32-true", usual_memory: bool = False
    ) -> Callable[[], float]:
        def images() -> int:
            work()
            return len(image)

        def measured() -> float:
            on = autocast(torch.device("cpu"), precision)
            with torch.no_grad(), on, torch_defaults(), memory_returned(usual_memory):
                images()
                return rate(images)

        return measured

    ordered = forward(last)
    return {
        PLAIN: measure(forward(first), usual_memory=True),
        "channels last": measure(ordered, usual_memory=True),
        "and memory kept": measure(ordered),
        "and that in bfloat16": measure(ordered, "bf16-mixed"),
        "and batch norms folded": measure(forward(last, folded=True)),
    }


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
    classifier, batch = build(config, device), some_batch(config, device)
    precision = choose_precision(config.trainer)
    classifier.backbone.compile()
    step = MemoryStep(classifier, batch, precision)
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
