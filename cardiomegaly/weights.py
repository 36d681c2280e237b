"""The backbones' pretrained weights: what is needed, what is here, and how to bring it.

    python -m cardiomegaly.weights list
    python -m cardiomegaly.weights fetch [backbone=all|NAME]
    python -m cardiomegaly.weights convert source=FILE.h5 target=FILE.safetensors

`fetch` prepares a machine that will be offline. `convert` takes Keras' official HDF5 file of
ResNet152V2 without its classifier.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import timm
import torch
from omegaconf import MISSING, OmegaConf

from cardiomegaly import UserError, cli
from cardiomegaly.config import CONF_DIR
from cardiomegaly.model.pretrained import WeightsSource, cache_folder, pretrained_source
from cardiomegaly.model.state import convert_keras

MB = 1e6


@dataclass
class ListOptions:
    """`list` takes no options."""


@dataclass
class FetchOptions:
    backbone: str = field(default="all", metadata={"help": "all, or one of conf/backbone"})


@dataclass
class ConvertOptions:
    source: str = field(default=MISSING, metadata={"help": "Keras' HDF5 file"})
    target: str = field(default=MISSING, metadata={"help": "safetensors file to write"})


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    verb, rest = (words[0], words[1:]) if words else ("--help", [])
    if verb in ("-h", "--help"):
        print(__doc__)
        return 0
    if verb == "list":
        return cli.run(ListOptions, list_backbones, __doc__, rest)
    if verb == "fetch":
        return cli.run(FetchOptions, fetch, __doc__, rest)
    if verb == "convert":
        return cli.run(ConvertOptions, convert, __doc__, rest)
    print(f"error: {verb!r}: the first word must be list, fetch or convert", file=sys.stderr)
    return cli.USER_ERROR


def list_backbones(_: ListOptions) -> None:
    """Print for each backbone which weights it needs, their size, and where they are."""
    for backbone, source in _sources().items():
        found = source.find()
        megabytes = (found.stat().st_size if found else _bytes(source.name)) / MB
        where = str(found) if found else f"missing; {source.url}"
        print(f"{backbone:<15} {source.name:<36} {megabytes:4.0f} MB  {where}")
    print(f"Put files by hand into {cache_folder()} as NAME.safetensors (second column).")


def fetch(options: FetchOptions) -> int:
    """Bring the weights of one backbone or of all; go on where one cannot be had."""
    sources = _sources()
    if options.backbone != "all" and options.backbone not in sources:
        raise UserError(
            f"backbone: must be all or one of {', '.join(sources)}, got {options.backbone!r}"
        )
    failed = 0
    for backbone in sources if options.backbone == "all" else [options.backbone]:
        try:
            print(f"{backbone:<15} {sources[backbone].fetch()}")
        except UserError as error:
            print(f"error: {backbone}: {error}", file=sys.stderr)
            failed = cli.USER_ERROR
    return failed


def convert(options: ConvertOptions) -> None:
    """Turn Keras' HDF5 file into safetensors."""
    convert_keras(Path(options.source), Path(options.target))
    print(options.target)


def _sources() -> dict[str, WeightsSource]:
    """The pretrained weights of every backbone in `conf/`, by the study's name."""
    files = sorted((CONF_DIR / "backbone").glob("[!_]*.yaml"))
    return {file.stem: pretrained_source(OmegaConf.load(file).model) for file in files}


def _bytes(timm_name: str) -> int:
    """How large the file is about to be, counted on the network as its authors published it."""
    with torch.device("meta"):
        state = timm.create_model(timm_name).state_dict()
    return sum(tensor.nbytes for tensor in state.values())


if __name__ == "__main__":
    sys.exit(main())
