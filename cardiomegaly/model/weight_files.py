"""Files of weights: read under the names of our networks, compared with one, loaded.

Keras' HDF5 holds a group a layer, `conv2_block1_1_conv/conv2_block1_1_conv/kernel:0`; kernels lie
as (height, width, in, out) where torch wants (out, in, height, width).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import h5py
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cardiomegaly import UserError

NAMED = 3  # tensors of each kind that an error names

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


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a file into a timm model, all of it; only a classifier that the model lacks is dropped.

    Raises:
        UserError: the file cannot be read, or does not fit; says what is missing, unexpected or
            of another shape.
    """
    state = read_state(path)
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if adapt is not None:  # some of timm's networks rename what older files hold
        state = adapt(state, model)
    own = model.state_dict()
    classifier = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    for name in (classifier,) if isinstance(classifier, str) else classifier:
        for key in (f"{name}.weight", f"{name}.bias"):
            if key not in own:
                state.pop(key, None)
    check_fit(path, state, own)
    model.load_state_dict(own | state)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, a torch state dict or Keras' HDF5, by name.

    Raises:
        UserError: none of these, or broken.
    """
    if path.suffix in (".h5", ".hdf5"):
        return read_keras_weights(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path}: not a readable file of weights ({' '.join(str(error).split())[:200]}); "
            "safetensors, a torch state dict (.pt, .pth, .bin) and Keras' .h5 are"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise UserError(
            f"{path}: holds {type(state).__name__}, must be a plain state dict of names and tensors"
        )
    return dict(state)


def check_fit(path: Path, state: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """Refuse weights that are not exactly those of a network with the state dict `own`.

    Raises:
        UserError: names how many are missing, unexpected or of another shape, and the first few.
    """
    counters = "num_batches_tracked"  # of batch norm's, which not every file holds
    problems = {
        "missing": [key for key in own if key not in state and not key.endswith(counters)],
        "unexpected": [key for key in state if key not in own],
        "of another shape": [
            f"{key} is {tuple(state[key].shape)}, must be {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ],
    }
    told = [
        f"{len(names)} {kind} ({'; '.join(names[:NAMED])}{'; ...' if len(names) > NAMED else ''})"
        for kind, names in problems.items()
        if names
    ]
    if told:
        raise UserError(f"{path}: these weights are of another network: {', '.join(told)}")


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
