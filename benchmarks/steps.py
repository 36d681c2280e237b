"""A training step or a forward pass on one batch in memory: no Lightning and no loader."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec

import timm
import torch
from torch.nn import functional as F

from benchmarks.material import Material
from benchmarks.table import Row
from benchmarks.timing import Rate, fresh_process, in_turn, rate
from cardiomegaly.config import Config
from cardiomegaly.model.formats import Exported, run_onnx, write_onnx
from cardiomegaly.model.memory import keep_freed_memory
from cardiomegaly.model.predictor import Predictor, autocast
from cardiomegaly.training.device import choose_precision
from cardiomegaly.training.module import CardiomegalyModule
from cardiomegaly.training.optimisation import build_optimizer
from cardiomegaly.training.run import build_module

CPU = torch.device("cpu")
PLAIN = "plain float32"
MEANS = {  # of (k) -> channels last, memory kept, precision, batch norms folded
    PLAIN: (False, False, "32-true", False),
    "channels last": (True, False, "32-true", False),
    "and memory kept": (True, True, "32-true", False),
    "and that in bfloat16": (True, True, "bf16-mixed", False),
    "and batch norms folded": (True, True, "32-true", True),
}
MEANS_OF = ("mobilenetv1", "resnet152v2")  # the lightest and the heaviest


def build(config: Config, device: torch.device = CPU) -> CardiomegalyModule:
    """The model as a training has it: on its device, channels last."""
    return build_module(config)[0].to(device, memory_format=torch.channels_last)


def noise(config: Config, device: torch.device = CPU) -> dict[str, torch.Tensor]:
    """One batch."""
    size, n = config.backbone.image_size, int(config.trainer.batch_size)
    image = torch.randint(0, 256, (n, 1, size, size), dtype=torch.uint8)
    return {"image": image.to(device), "target": (torch.arange(n) % 2).float().to(device)}


def step_in_memory(
    module: CardiomegalyModule, config: Config, precision: str, seconds: float
) -> Rate:
    """Forward, backward and optimiser on the same batch over and over."""
    batch = noise(config, module.device)
    optimiser = build_optimizer(module.train().hparams, module.classifier)

    def step() -> None:
        with autocast(module.device, precision):
            logits = module.classifier.logits(batch)
            loss = F.binary_cross_entropy_with_logits(logits, batch["target"])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return partial(rate, step, len(batch["target"]), seconds)


def plain_step(config: Config, seconds: float) -> Rate:
    """The same step as torch's defaults have it, float32 and channels first, on the processor."""
    module = build_module(config)[0]
    leave_unfolded(module, torch.contiguous_format)
    return step_in_memory(module, config, "32-true", seconds)


def leave_unfolded(module: CardiomegalyModule, order: torch.memory_format) -> None:
    """Let the frozen backbone keep its batch norms and take its input in this order of memory."""
    backbone = module.classifier.backbone

    @torch.no_grad()
    def forward(image: torch.Tensor) -> torch.Tensor:
        normalised = backbone.normalise(image).contiguous(memory_format=order)
        return backbone.model.forward_features(normalised)

    backbone.forward = forward  # type: ignore[method-assign]


def forward_pass(
    config: Config, last: bool, keep: bool, precision: str, folded: bool, seconds: float
) -> Rate:
    """Images a second through a frozen backbone by the means of (k)."""
    if keep:
        keep_freed_memory()
    order = torch.channels_last if last else torch.contiguous_format
    module, batch = build_module(config)[0].to(memory_format=order), noise(config)
    if not folded:
        leave_unfolded(module, order)

    def work() -> None:
        with torch.no_grad(), autocast(CPU, precision):
            module.classifier.backbone(batch["image"])

    return partial(rate, work, len(batch["image"]), seconds)


def means(material: Material) -> Iterator[Row]:
    """(k) What each of the means gives, one after the other, in the forward pass of a backbone."""
    effort = material.effort
    for name in (name for name in MEANS_OF if name in effort.backbones):
        config = material.backbone_config(name)
        with ExitStack() as stack:
            measures = {
                what: stack.enter_context(
                    fresh_process(forward_pass, config, *chosen, effort.seconds)
                )
                for what, chosen in MEANS.items()
            }
            runs = in_turn(measures, effort.rounds)
        for what in list(MEANS)[1:]:
            yield Row("k", f"{name}, forward: {what}", {what: runs[what], PLAIN: runs[PLAIN]})


def against_timm(material: Material) -> Iterator[Row]:
    """(h) The frozen ResNet152V2 against timm's network of the same depth, forward alone."""
    config = material.backbone_config("resnet152v2")
    precision, n = choose_precision(config.trainer), int(config.trainer.batch_size)
    image = build(config).classifier.backbone.normalise(noise(config)["image"])

    def measure(name: str) -> Rate:
        model = timm.create_model(name, num_classes=0, global_pool="").eval()
        model.to(memory_format=torch.channels_last)

        def work() -> None:
            with torch.no_grad(), autocast(CPU, precision):
                model.forward_features(image)  # type: ignore[operator]

        return partial(rate, work, n, material.effort.seconds)

    names = {"resnet152v2": config.backbone.model, "timm's resnetv2_152": "resnetv2_152"}
    runs = in_turn({what: measure(name) for what, name in names.items()}, material.effort.rounds)
    yield Row("h", f"frozen resnet152v2, {config.backbone.image_size} px", runs, goal=1)


def against_onnx(material: Material) -> Iterator[Row]:
    """(m) A whole prediction against ONNX Runtime, which fuses activations too."""
    if find_spec("onnxruntime") is None:
        yield Row("m", "a whole prediction", note="left out: it needs the extra export")
        return
    for name in material.effort.backbones:
        config = material.backbone_config(name, "trainer.precision=32-true")
        classifier, images = build(config).classifier, noise(config)["image"]
        exported, path = Exported(classifier), material.folder / f"{name}.onnx"
        write_onnx(exported, path, {})
        engine, pixels, predictor = run_onnx(path), images.numpy(), Predictor(classifier)
        n, seconds = len(images), material.effort.seconds
        measures = {
            "forward": partial(rate, partial(predictor.predict, images), n, seconds),
            "ONNX Runtime": partial(rate, partial(engine, pixels), n, seconds),
        }
        runs = in_turn(measures, material.effort.rounds)
        yield Row("m", f"a whole prediction, {name}, {config.backbone.image_size} px", runs)


def compiled(material: Material) -> Iterator[Row]:
    """(i) The frozen step with torch.compile against without."""
    name, seconds = material.effort.backbones[0], material.effort.seconds
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(material.folder / "inductor")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = material.backbone_config(name, "trainer=auto")
    precision = choose_precision(config.trainer)
    fast, usual = build(config, device), build(config, device)
    fast.classifier.backbone.compile()
    measures = {
        "compiled": step_in_memory(fast, config, precision, seconds),
        "not compiled": step_in_memory(usual, config, precision, seconds),
    }
    what = f"torch.compile, frozen {name}"
    try:
        yield Row("i", what, in_turn(measures, material.effort.rounds))
    except RuntimeError as error:  # no C++ compiler, for example
        yield Row("i", what, note=f"left out, cannot compile here: {error}".splitlines()[0])
