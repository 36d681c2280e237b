"""Files of weights: read, compared with a network, converted from Keras."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import cardiomegaly.model.resnet152v2  # noqa: F401  (registers the network with timm)
from cardiomegaly import UserError
from cardiomegaly.model.keras_weights import read_keras_weights

SHOWN = 3  # names of each kind in an error


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
        f"{len(names)} {kind} ({'; '.join(names[:SHOWN])}{'; ...' if len(names) > SHOWN else ''})"
        for kind, names in problems.items()
        if names
    ]
    if told:
        raise UserError(f"{path}: these weights are of another network: {', '.join(told)}")


def convert_keras(source: Path, target: Path) -> None:
    """Write Keras' HDF5 weights of ResNet152V2 (without its classifier) as safetensors.

    Raises:
        UserError: the source is not that file: tensors are missing, left over or misshapen.
        UserError: there is no such file.
    """
    if not source.is_file():
        raise UserError(f"source={source}: there is no such file")
    state = read_keras_weights(source)
    with torch.device("meta"):
        own = timm.create_model("resnet152v2", num_classes=0).state_dict()
    check_fit(source, state, own)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(target.name + ".part")
    save_file(state, unfinished, metadata={"format": "pt", "source": source.name})
    unfinished.replace(target)
