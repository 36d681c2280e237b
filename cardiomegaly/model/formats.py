"""A classifier as a file for other programs: ONNX, TorchScript, OpenVINO.

All take `uint8` images (B, 1, H, W) with any B, normalise inside, and give what `OUTPUTS` names; a
head without attention or contribution map has fewer of them.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cardiomegaly import UserError
from cardiomegaly.model.classifier import CardiomegalyClassifier

INPUT = "image"
OUTPUTS = ("probability", "logit", "pooled", "attention", "contribution")
TOLERANCE = 1e-4  # of every output, against PyTorch, relative where it is over 1
CHECKED_BATCHES = (1, 7)

Outputs = list[NDArray[np.float32]]
Run = Callable[[NDArray[np.uint8]], Outputs]


class Exported(nn.Module):
    """The classifier as it is exported, on the processor; the probability is not calibrated."""

    def __init__(self, classifier: CardiomegalyClassifier) -> None:
        super().__init__()
        copied = copy.deepcopy(classifier).cpu().eval().requires_grad_(False)
        self.backbone = copied.backbone
        self.head: Any = copied.head
        self.image_size = self.backbone.image_size
        self.explains = hasattr(self.head, "contribution")
        left_out = {"attention": not copied.attends, "contribution": not self.explains}
        self.outputs = [name for name in OUTPUTS if not left_out.get(name)]
        self.eval()

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, 1, H, W) `uint8` -> (B,), (B,), (B, C), and the maps (B, h, w)."""
        features = self.backbone.feature_maps(self.backbone.model, image)
        logits, attention = self.head(features)
        maps = [] if attention is None else [attention[:, 0]]
        if self.explains:
            maps.append(self.head.contribution(features))
        whole = [self.backbone.whole(each) for each in maps]
        return torch.sigmoid(logits), logits, features.mean(dim=(2, 3)), *whole

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """The outputs for images."""
        with torch.inference_mode():
            return [output.numpy() for output in self(torch.from_numpy(images))]


def write_onnx(model: Exported, path: Path, metadata: Mapping[str, str]) -> None:
    """Write an .onnx file by torch's exporter, with metadata inside."""
    batch = torch.export.Dim("batch")  # not fixed: the example has 2
    with _quiet():
        program = torch.onnx.export(
            model, (_example(model),), input_names=[INPUT], output_names=model.outputs,
            dynamic_shapes=({0: batch},), dynamo=True, verbose=False,
        )  # fmt: skip
    assert program is not None  # noqa: S101  (for the type checker)
    program.model.metadata_props.update(metadata)
    program.save(path)


def run_onnx(path: Path) -> Run:
    """Open an .onnx file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: list(session.run(None, {INPUT: images}))


def write_torchscript(model: Exported, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a .pt file by tracing, with metadata as extra files."""
    with _quiet():
        traced = torch.jit.freeze(torch.jit.trace(model, _example(model)))
        torch.jit.save(traced, str(path), _extra_files=dict(metadata))


def run_torchscript(path: Path) -> Run:
    """Open a .pt file."""
    with _quiet():
        traced = torch.jit.load(str(path))

    def run(images: NDArray[np.uint8]) -> Outputs:
        with torch.inference_mode():
            return [output.numpy() for output in traced(torch.from_numpy(images))]

    return run


def write_openvino(model: Exported, path: Path, metadata: Mapping[str, str]) -> None:
    """Write an .xml file, with its weights in a .bin beside it, by way of ONNX; all in float32."""
    import openvino

    between = path.with_suffix(".tmp.onnx")
    try:
        write_onnx(model, between, {})
        converted = openvino.Core().read_model(between)  # convert_model would report its use
    finally:
        between.unlink(missing_ok=True)
    for key, value in metadata.items():
        converted.set_rt_info(value, key)
    openvino.save_model(converted, path, compress_to_fp16=False)


def run_openvino(path: Path) -> Run:
    """Open an .xml file, to be computed in float32."""
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: [np.array(output) for output in compiled(images).values()]


class Format(NamedTuple):
    """How a format is called, written and opened."""

    file: str
    write: Callable[[Exported, Path, Mapping[str, str]], None]
    run: Callable[[Path], Run]


FORMATS = {
    "onnx": Format("model.onnx", write_onnx, run_onnx),
    "torchscript": Format("model.pt", write_torchscript, run_torchscript),
    "openvino": Format("model.xml", write_openvino, run_openvino),
}


def largest_difference(model: Exported, run: Run, images: NDArray[np.uint8]) -> float:
    """The largest difference of any output from PyTorch's, in batches of 1 and 7.

    Differences of numbers over 1 are relative to the largest of their output.

    Raises:
        UserError: it is over `TOLERANCE`: the file is not this model.
    """
    largest = 0.0
    for batch in CHECKED_BATCHES:
        for name, own, theirs in zip(
            model.outputs, model.run(images[:batch]), run(images[:batch]), strict=True
        ):
            difference = float(np.abs(own - theirs).max()) / max(1.0, float(np.abs(own).max()))
            if not difference <= TOLERANCE:
                raise UserError(
                    f"format: the exported {name} differs from PyTorch's by {difference:.2g}, at "
                    f"most {TOLERANCE:g} is allowed; this model cannot be exported so"
                )
            largest = max(largest, difference)
    return largest


def _example(model: Exported) -> torch.Tensor:
    """Two images of noise: with one, exporters take the batch for fixed."""
    size = (2, 1, model.image_size, model.image_size)
    noise = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=noise)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters say about their own future and about functions that do not matter."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
