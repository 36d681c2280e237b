"""Which weights a backbone starts from, and how they get into the network."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from cardiomegaly import UserError
from cardiomegaly.model.download import digest
from cardiomegaly.model.pretrained import pretrained_source
from cardiomegaly.model.state import check_fit, read_state


@dataclass(frozen=True)
class ObtainedWeights:
    """What a run starts from: the file (None for random weights) and what `metrics.json` says."""

    path: Path | None
    name: str
    source: str
    sha256: str | None


def obtain(timm_name: str, weights: str) -> ObtainedWeights:
    """The file that a run starts from, downloaded if need be.

    Args:
        timm_name: timm's name of the network, with or without tag.
        weights: `pretrained`, `none`, or a file (safetensors, a torch state dict, Keras' HDF5).

    Raises:
        UserError: the file is missing, or cannot be had without a network.
        UserError: there are no pretrained weights for this network, or a wrong checksum.
    """
    if weights == "none":
        return ObtainedWeights(None, "none", "random", None)
    if weights == "pretrained":
        origin = pretrained_source(timm_name)
        path = origin.fetch()
        return ObtainedWeights(path, origin.name, origin.url, digest(path, "sha256"))
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UserError(
            f"backbone.weights={weights}: must be pretrained, none or a file; there is no such file"
        )
    return ObtainedWeights(path, path.name, str(path), digest(path, "sha256"))


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
