"""Weights files as Keras published them: a group a layer, `weight_names` as an attribute."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Tensors = dict[str, Any]  # by Keras' name of the variable: an array, or a shape to fill with zeros


def write_keras_file(path: Path, layers: Iterable[tuple[str, Tensors]]) -> None:
    """The layout of Keras 2, in which the official files are; shapes take no room on the disk."""
    names = []
    with h5py.File(path, "w") as file:
        for layer, tensors in layers:
            names.append(layer.encode())
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in tensors]
            for name, value in tensors.items():
                if isinstance(value, tuple):
                    group.create_dataset(f"{layer}/{name}:0", value, np.float32)
                else:
                    group.create_dataset(f"{layer}/{name}:0", data=value)
        file.attrs["layer_names"] = names
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.2.4"


def resnet152v2_shapes() -> Iterator[tuple[str, Tensors]]:
    """Layers and shapes of ResNet152V2 without its classifier, written down independently."""
    yield "conv1_conv", {"kernel": (7, 7, 3, 64), "bias": (64,)}
    channels = 64
    for stage, (depth, width) in enumerate([(3, 64), (8, 128), (36, 256), (3, 512)], start=2):
        for block in range(1, depth + 1):
            name, wide = f"conv{stage}_block{block}", 4 * width
            yield f"{name}_preact_bn", _norm(channels)
            if block == 1:
                yield f"{name}_0_conv", {"kernel": (1, 1, channels, wide), "bias": (wide,)}
            yield f"{name}_1_conv", {"kernel": (1, 1, channels, width)}
            yield f"{name}_1_bn", _norm(width)
            yield f"{name}_2_conv", {"kernel": (3, 3, width, width)}
            yield f"{name}_2_bn", _norm(width)
            yield f"{name}_3_conv", {"kernel": (1, 1, width, wide), "bias": (wide,)}
            channels = wide
    yield "post_bn", _norm(channels)


def _norm(channels: int) -> Tensors:
    return dict.fromkeys(("gamma", "beta", "moving_mean", "moving_variance"), (channels,))
