"""Keras' HDF5 weights of ResNet152V2, under our module's names.

The file holds a group a layer, `conv2_block1_1_conv/conv2_block1_1_conv/kernel:0`; kernels lie as
(height, width, in, out) where torch wants (out, in, height, width).
"""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from cardiomegaly import UserError

# Keras' public storage, and its checksum: WEIGHTS_HASHES in keras/src/applications/resnet.py.
RESNET152V2_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
    "resnet152v2_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
RESNET152V2_MD5 = "ed17cf2e0169df9d443503ef94b23b33"

_BLOCK = re.compile(r"conv([2-5])_block(\d+)_(\w+)")
_IN_BLOCK = {
    "preact_bn": "norm1",
    "0_conv": "downsample",
    "1_conv": "conv1",
    "1_bn": "norm2",
    "2_conv": "conv2",
    "2_bn": "norm3",
    "3_conv": "conv3",
}
_OUTSIDE = {"conv1_conv": "stem.conv", "post_bn": "norm"}
_TENSOR = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def read_keras_weights(path: Path) -> dict[str, Tensor]:
    """Every tensor of a Keras weights file, by the name it has in our ResNet152V2.

    What has no place there keeps Keras' name, so that whoever loads the result can name it.

    Raises:
        UserError: not an HDF5 file, or a broken one.
    """
    state: dict[str, Tensor] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            values = np.asarray(item[()])
            if values.ndim == 4:
                values = values.transpose(3, 2, 0, 1)
            state[_translate(name)] = torch.from_numpy(np.ascontiguousarray(values))

    try:
        with h5py.File(path, "r") as file:
            file.visititems(collect)
    except (OSError, RuntimeError, TypeError) as error:
        raise UserError(
            f"{path}: not a whole HDF5 file of Keras weights ({error}); download it again"
        ) from error
    return state


def _translate(name: str) -> str:
    """`conv2_block1_1_conv/conv2_block1_1_conv/kernel:0` -> `stages.0.0.conv1.weight`."""
    layer, tensor = name.split("/")[0], name.rpartition("/")[2].removesuffix(":0")
    module = _OUTSIDE.get(layer)
    if block := _BLOCK.fullmatch(layer):
        stage, number, part = block.groups()
        if part in _IN_BLOCK:
            module = f"stages.{int(stage) - 2}.{int(number) - 1}.{_IN_BLOCK[part]}"
    if module is None or tensor not in _TENSOR:
        return name
    return f"{module}.{_TENSOR[tensor]}"
