"""The backbones' pretrained weights: what is needed, what is here, and how to bring it.

    python -m cardiomegaly.weights list
    python -m cardiomegaly.weights fetch [backbone=all|NAME]
    python -m cardiomegaly.weights convert source=FILE.h5 target=FILE.safetensors

`fetch` prepares a machine that will be offline. `convert` takes Keras' official HDF5 file of
ResNet152V2 without its classifier. The first word is short for action=list and so on.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import timm
import torch

from cardiomegaly import UserError, cli
from cardiomegaly.config import backbones
from cardiomegaly.data.download import download
from cardiomegaly.model.weights import (
    HUB,
    PretrainedWeights,
    cache_folder,
    convert_keras,
    hub_network,
    pretrained_weights,
)

MB = 1e6


@dataclass
class Options:
    action: str = cli.option("list, fetch or convert", "list")
    backbone: str = cli.option("all, one of conf/backbone, or a name that timm knows", "all")
    source: str = cli.option("Keras' HDF5 file, to convert", "")
    target: str = cli.option("safetensors file to write", "")


def main(argv: list[str] | None = None) -> int:
    return cli.run(Options, act, __doc__, spell_out(sys.argv[1:] if argv is None else argv))


def spell_out(words: list[str]) -> list[str]:
    """The first word, `list`, as action=list."""
    return [f"action={words[0]}", *words[1:]] if words and words[0].isalpha() else words


def act(options: Options) -> int:
    """List, fetch or convert."""
    if options.action == "convert":
        for key in ("source", "target"):
            if not getattr(options, key):
                raise UserError(f"{key}: required but not given; say {key}=FILE")
        convert_keras(Path(options.source), Path(options.target))
        print(options.target)
        return 0
    if options.action not in ("list", "fetch"):
        raise UserError(f"action: must be list, fetch or convert, got {options.action!r}")
    models, chosen = backbones(), options.backbone
    if chosen != "all":
        models = {chosen: models.get(chosen, chosen)}
    weights = {name: pretrained_weights(model) for name, model in models.items()}
    if options.action == "list":
        return show(weights)
    if chosen.startswith(HUB):
        hub_network(chosen, download)
    return fetch(weights)


def show(weights: dict[str, PretrainedWeights]) -> int:
    """Print for each backbone which weights it needs, their size, and where they are."""
    for backbone, published in weights.items():
        path = published.find()
        megabytes = (path.stat().st_size if path else _bytes(published.name)) / MB
        where = str(path) if path else f"missing; {published.url}"
        print(f"{backbone:<15} {published.name:<36} {megabytes:4.0f} MB  {where}")
    print(
        f"Put files by hand into {cache_folder()}: NAME.safetensors (second column), or Keras' own "
        ".h5 as it is called there."
    )
    return 0


def fetch(weights: dict[str, PretrainedWeights]) -> int:
    """Bring the weights of one backbone or of all; go on where one cannot be had."""
    code = 0
    for backbone, published in weights.items():
        try:
            print(f"{backbone:<15} {published.fetch(download)}")
        except UserError as error:
            print(f"error: {backbone}: {error}", file=sys.stderr)
            code = cli.USER_ERROR
    return code


def _bytes(timm_name: str) -> int:
    """How large the file is about to be, counted on the network as its authors published it."""
    if not timm.is_model(timm_name):  # of somebody else's on the hub
        return 0
    with torch.device("meta"):
        state = timm.create_model(timm_name).state_dict()
    return sum(tensor.nbytes for tensor in state.values())


if __name__ == "__main__":
    sys.exit(main())
