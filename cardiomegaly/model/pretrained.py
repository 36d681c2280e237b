"""Where pretrained weights lie, on this machine and on the network.

They are looked for in our cache folder (`$CARDIOMEGALY_CACHE` or `~/.cache/cardiomegaly`, subfolder
`weights`), where a file may also be put by hand, then in the cache of the Hugging Face hub, then on
the network. Nothing falls back to random weights, and no server is waited for longer than seconds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import timm
from filelock import FileLock
from huggingface_hub import (
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)

from cardiomegaly import UserError
from cardiomegaly.model import download
from cardiomegaly.model.keras_weights import RESNET152V2
from cardiomegaly.model.state import convert_keras


@dataclass(frozen=True)
class WeightsSource:
    """The pretrained weights of one network.

    Attributes:
        name: timm's name with tag; `<name>.safetensors` is looked for in our cache folder.
        url: where the file lies on the network.
        repository, file: of the Hugging Face hub; the repository is empty for Keras' own file.
    """

    name: str
    url: str
    repository: str
    file: str

    @property
    def placed(self) -> Path:
        """The file in our cache folder, put there by hand or by us."""
        return cache_folder() / f"{self.name}.safetensors"

    def find(self) -> Path | None:
        """The file on this machine, if it is there; Keras' own counts before it is converted."""
        if self.placed.is_file():
            return self.placed
        if not self.repository:
            original = cache_folder() / self.file
            return original if original.is_file() else None
        cached = try_to_load_from_cache(self.repository, self.file)
        return Path(cached) if isinstance(cached, str) else None

    def fetch(self) -> Path:
        """The file, downloaded if it is not on this machine.

        Raises:
            UserError: it is not here and cannot be downloaded; says what to do.
            UserError: the file has another checksum than the published one.
        """
        if self.placed.is_file():
            return self.placed
        try:
            return self._from_hub() if self.repository else self._from_keras()
        except OSError as error:
            raise UserError(self._advice(error)) from error

    def _from_hub(self) -> Path:
        if found := self.find():
            return found
        # The hub's client retries for minutes where there is no network: ask once, briefly, first.
        url = hf_hub_url(self.repository, self.file)
        try:
            download.within(
                download.PATIENCE, lambda: get_hf_file_metadata(url, timeout=download.PATIENCE)
            )
            return Path(hf_hub_download(self.repository, self.file))
        except Exception as error:  # the client's own types change with its versions
            raise OSError(f"{url}: {error or type(error).__name__}") from error

    def _from_keras(self) -> Path:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with FileLock(cache_folder() / f".{self.name}.lock"):  # jobs of a sweep start together
            found = self.find()
            if found == self.placed:
                return self.placed
            original = cache_folder() / self.file
            if found is None:
                download.download(self.url, original, RESNET152V2.md5)
            elif (md5 := download.digest(original, "md5")) != RESNET152V2.md5:
                raise UserError(
                    f"{original}: has the md5 checksum {md5}, published is {RESNET152V2.md5}; "
                    "delete it, or give a file of your own as backbone.weights=PATH"
                )
            convert_keras(original, self.placed)
            if found is None:
                original.unlink()
        return self.placed

    def _advice(self, error: OSError) -> str:
        by_hand = self.placed if self.repository else cache_folder() / self.file
        problem = " ".join(str(error).replace(f"{self.url}: ", "").split())
        return (
            f"backbone.weights=pretrained: the weights of {self.name} are not on this machine and "
            f"{self.url} could not be downloaded ({problem}). Put that file at {by_hand}, or say "
            "where it is with backbone.weights=PATH; with a network, `python -m "
            "cardiomegaly.weights fetch` brings all; backbone.weights=none trains from scratch"
        )


def cache_folder() -> Path:
    """Where files put by hand are looked for and converted weights are kept."""
    root = os.environ.get("CARDIOMEGALY_CACHE") or "~/.cache/cardiomegaly"
    return Path(root).expanduser() / "weights"


def pretrained_source(timm_name: str) -> WeightsSource:
    """What `weights=pretrained` means for a network.

    Raises:
        UserError: timm does not know the name, or has no pretrained weights for it.
    """
    try:
        cfg = timm.models.get_pretrained_cfg(timm_name)
    except RuntimeError:  # an unknown tag
        cfg = None
    architecture = timm_name.partition(".")[0]
    if cfg is not None and architecture == "resnet152v2":
        return WeightsSource(f"resnet152v2.{cfg.tag}", RESNET152V2.url, "", RESNET152V2.name)
    if cfg is None or not cfg.hf_hub_id:
        known = timm.list_models(f"{architecture}.*", pretrained=True)
        raise UserError(
            f"backbone.model={timm_name}: timm has no pretrained weights of that name; "
            + (f"it has {', '.join(known)}; " if known else "")
            + "or give backbone.weights=PATH, or backbone.weights=none to train from scratch"
        )
    file = cfg.hf_hub_filename or "model.safetensors"
    url = hf_hub_url(cfg.hf_hub_id, file)
    return WeightsSource(f"{cfg.architecture}.{cfg.tag}", url, cfg.hf_hub_id, file)
