"""Weights of a backbone: which it starts from, where they are found, how a file is loaded.

Pretrained weights are looked for in our cache folder (`$CARDIOMEGALY_CACHE` or
`~/.cache/cardiomegaly`, subfolder `weights`), where a file may also be put by hand, then in the
cache of the Hugging Face hub, then on the network. How a file is brought is handed in, since that
is the business of `data.download`. Nothing falls back to random weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from filelock import FileLock
from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
from safetensors.torch import load_file, save
from torch import Tensor, nn

import cardiomegaly.model.inceptionv3  # noqa: F401  (registers its network with timm)
from cardiomegaly import UserError
from cardiomegaly.model import resnet152v2

NAMED = 3  # tensors of each kind that an error names
HUB = ("hf_hub:", "hf-hub:")  # before OWNER/NAME, a network of timm's that somebody published
NESTED = ("state_dict", "model")  # where training programs keep their weights in a file
PREFIXES = ("module.", "model.", "_orig_mod.")  # of all names, where a wrapped network was saved
OWN_PREFIX = "classifier.backbone.model."  # in a checkpoint of this program
Download = Callable[[str, Path, str], None]  # URL, where to, checksum; see `data.download.download`


class MissingWeightsError(UserError):
    """Pretrained weights that are not on this machine and cannot be downloaded."""


@dataclass(frozen=True)
class ObtainedWeights:
    """What a run starts from: the file (None for random weights) and what `metrics.json` says."""

    path: Path | None
    name: str
    source: str
    sha256: str | None


@dataclass(frozen=True)
class PretrainedWeights:
    """The pretrained weights of one network.

    Attributes:
        name: timm's name with tag; `<name>.safetensors` in our cache folder comes first.
        url: where the file lies on the network.
        checksum: by which it is checked, as `data.download.download` takes it.
        repository: of the Hugging Face hub; empty for Keras' own file.
    """

    name: str
    url: str
    checksum: str
    repository: str

    @property
    def placed(self) -> Path:
        """Where in our cache folder the file at `url` is put, by hand or by us."""
        hub, keras = f"{self.name}{self._suffix}", self.url.rpartition("/")[2]
        return cache_folder() / (hub if self.repository else keras)

    @property
    def _suffix(self) -> str:
        return ".json" if self.url.endswith(".json") else ".safetensors"

    def find(self) -> Path | None:
        """The file on this machine, if it is there.

        Raises:
            UserError: it is another than was published.
        """
        for path in (self.placed.with_name(f"{self.name}{self._suffix}"), self.placed):
            if path.is_file():
                if path.suffix != self._suffix:  # which by hand may be anybody's
                    self._check(path, *self.checksum.split(":"))
                return path
        name = self.url.rpartition("/")[2]
        cached = try_to_load_from_cache(self.repository, name) if self.repository else None
        if not isinstance(cached, str):
            return None
        blob = Path(cached).resolve()
        if len(blob.name) == 64:  # the hub's client names files by their sha256 and never looks
            self._check(blob, "sha256", blob.name)
        return Path(cached)

    def fetch(self, download: Download) -> Path:
        """The file, downloaded if it is not on this machine.

        Raises:
            MissingWeightsError: it is not here and cannot be downloaded; says what to do.
            UserError: the file has another checksum than the published one.
        """
        cache_folder().mkdir(parents=True, exist_ok=True)
        with FileLock(cache_folder() / f".{self.name}.lock"):  # jobs of a sweep start together
            if path := self.find():
                return path
            try:
                if self.repository and constants.HF_HUB_OFFLINE:
                    raise OSError("HF_HUB_OFFLINE is set")
                download(self.url, self.placed, self.checksum)
            except OSError as error:
                raise MissingWeightsError(self._advice(error)) from error
            return self.placed

    def _check(self, path: Path, algorithm: str, published: str) -> None:
        if (arrived := digest(path, algorithm)) != published:
            raise UserError(
                f"{path}: has the {algorithm} checksum {arrived}, published is {published}; "
                "delete it, or give a file of your own as backbone.weights=PATH"
            )

    def _advice(self, error: OSError) -> str:
        problem = " ".join(str(error).replace(f"{self.url}: ", "").split())
        return (
            f"backbone.weights=pretrained: the weights of {self.name} are not on this machine and "
            f"{self.url} could not be downloaded ({problem}). Put that file at {self.placed}, or "
            "say where it is with backbone.weights=PATH; with a network, `python -m "
            "cardiomegaly.weights fetch` brings all; backbone.weights=none trains from scratch"
        )


def cache_folder() -> Path:
    """Where files put by hand are looked for and downloaded and converted weights are kept."""
    root = os.environ.get("CARDIOMEGALY_CACHE") or "~/.cache/cardiomegaly"
    return Path(root).expanduser() / "weights"


def pretrained_weights(timm_name: str) -> PretrainedWeights:
    """What `weights=pretrained` means for a network.

    Raises:
        UserError: timm does not know the name, or has no pretrained weights for it.
    """
    if timm_name.startswith(HUB):
        return _hub_file(timm_name, "model.safetensors", "x-linked-etag")
    try:
        cfg = timm.models.get_pretrained_cfg(timm_name)
    except RuntimeError:  # an unknown tag
        cfg = None
    architecture = timm_name.partition(".")[0]
    if cfg is not None and architecture == "resnet152v2":
        url, md5 = resnet152v2.URL, resnet152v2.MD5
        return PretrainedWeights(f"resnet152v2.{cfg.tag}", url, f"md5:{md5}", "")
    if cfg is None or not cfg.hf_hub_id:
        known = timm.list_models(f"{architecture}.*", pretrained=True)
        raise UserError(
            f"backbone.model={timm_name}: timm has no pretrained weights of that name; "
            + (f"it has {', '.join(known)}; " if known else near_models(architecture))
            + "or give backbone.weights=PATH, or backbone.weights=none to train from scratch"
        )
    url = hf_hub_url(cfg.hf_hub_id, cfg.hf_hub_filename or "model.safetensors")
    return PretrainedWeights(f"{cfg.architecture}.{cfg.tag}", url, "x-linked-etag", cfg.hf_hub_id)


def near_models(architecture: str) -> str:
    """Words of a message: timm's names that resemble one that it does not know."""
    known = timm.is_model(architecture)
    near = [] if known else get_close_matches(architecture, timm.list_models())
    return f"did you mean {' or '.join(near)}? " if near else ""


def hub_network(name: str, download: Download) -> tuple[str, dict[str, Any]]:
    """What a network of the hub is: timm's name of it, and its options with mean and deviation.

    Args:
        name: `hf_hub:OWNER/NAME`, as timm calls it.
        download: brings a file from the network.

    Raises:
        MissingWeightsError: its description cannot be had without a network.
        UserError: it is none of timm's.
    """
    path = _hub_file(name, "config.json", "").fetch(download)
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        published = described.get("pretrained_cfg", described)  # older ones hold it at the top
        overlay = {key: published[key] for key in ("mean", "std")}
        options = {**(described.get("model_args") or {}), "pretrained_cfg_overlay": overlay}
        return str(described["architecture"]), options
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"backbone.model={name}: {path} describes no network of timm's ({error!r}); such "
            "repositories name an architecture, mean and std"
        ) from error


def _hub_file(name: str, file: str, checksum: str) -> PretrainedWeights:
    repository = name.partition(":")[2]
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise UserError(f"backbone.model={name}: must be hf_hub:OWNER/NAME")
    url = hf_hub_url(repository, file)
    return PretrainedWeights(repository.replace("/", "--"), url, checksum, repository)


def obtain(timm_name: str, weights: str, download: Download) -> ObtainedWeights:
    """The file that a run starts from, downloaded if need be.

    Args:
        timm_name: timm's name of the network, with or without tag.
        weights: `pretrained`, `none`, or a file (safetensors, a torch state dict, Keras' HDF5).
        download: brings a file from the network.

    Raises:
        MissingWeightsError: they cannot be had without a network.
        UserError: the file is missing.
        UserError: there are no pretrained weights for this network, or a wrong checksum.
    """
    if weights == "none":
        return ObtainedWeights(None, "none", "random", None)
    if weights == "pretrained":
        published = pretrained_weights(timm_name)
        path, name, source = published.fetch(download), published.name, published.url
    else:
        path = Path(weights).expanduser()
        name, source = path.name, str(path)
        if not path.is_file():
            raise UserError(
                f"backbone.weights={weights}: must be pretrained, none or a file; there is no "
                "such file"
            )
    return ObtainedWeights(path, name, source, digest(path, "sha256"))


def digest(path: Path, algorithm: str) -> str:
    """Checksum of a file, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


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

    A checkpoint may hold its state dict as `state_dict` or `model`, and names may begin with what a
    network was wrapped in. Of a checkpoint of this program it is the backbone's.

    Raises:
        UserError: none of these, or broken.
    """
    if path.suffix in (".h5", ".hdf5"):
        return resnet152v2.read_keras_weights(path)
    try:
        if path.suffix == ".safetensors":
            return _unwrapped(load_file(path))
        with torch.serialization.safe_globals([Namespace]):  # words of a command, beside weights
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path}: not a readable file of weights ({' '.join(str(error).split())[:200]}); "
            "safetensors, a torch state dict (.pt, .pth, .bin) and Keras' .h5 are"
        ) from error
    for key in NESTED:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise UserError(
            f"{path}: holds {type(state).__name__}, must be a plain state dict of names and tensors"
        )
    return _unwrapped(state)


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's own names."""
    own = {k.removeprefix(OWN_PREFIX): t for k, t in state.items() if k.startswith(OWN_PREFIX)}
    names = own or dict(state)
    while shared := [p for p in PREFIXES if names and all(name.startswith(p) for name in names)]:
        names = {name.removeprefix(shared[0]): tensor for name, tensor in names.items()}
    return names


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


def convert_keras(source: Path, target: Path) -> None:
    """Write Keras' HDF5 weights of ResNet152V2 (without its classifier) as safetensors.

    Raises:
        UserError: there is no such file, or tensors are missing, left over or misshapen.
    """
    if not source.is_file():
        raise UserError(f"source={source}: there is no such file")
    state = resnet152v2.read_keras_weights(source)
    with torch.device("meta"):
        own = timm.create_model("resnet152v2", num_classes=0).state_dict()
    check_fit(source, state, own)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    part.write_bytes(save(state, metadata={"format": "pt", "source": source.name}))
    part.replace(target)
