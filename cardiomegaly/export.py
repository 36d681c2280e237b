"""Export a run as ONNX, TorchScript, OpenVINO or a bundle, or check what was exported.

Examples:
  python -m cardiomegaly.export run=outputs/train/first format=onnx
  python -m cardiomegaly.export run=outputs/train/first format=[onnx,torchscript,openvino]
  python -m cardiomegaly.export run=outputs/train/first format=bundle output=FOLDER
  python -m cardiomegaly.export run=outputs/train/first/export/model.onnx check=true
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from cardiomegaly import cli


@dataclass
class Options:
    run: str = cli.option("run folder or checkpoint; with check=true what was exported", MISSING)
    format: Any = cli.option("onnx, torchscript, openvino, [several], or bundle", "onnx")
    output: str | None = cli.option("folder; null for RUN/export")
    check: bool = cli.option(
        "export nothing; compare with the reference_outputs.csv beside it", False
    )
    trust: Any = cli.option("modules of your own whose classes a run may name")


def act(options: Options) -> None:
    """Export and print the table of formats, or check."""
    # Not imported above: --help and a mistake in the words need none of it.
    from cardiomegaly.inference.loading import load
    from cardiomegaly.inference.reference import FILE, check_reference

    source = Path(options.run).expanduser()
    (model,) = load(source, device="cpu", trust=cli.as_list(options.trust)).models
    if options.check:
        folder = source if source.is_dir() else source.parent
        difference = check_reference(model, folder)
        print(f"{options.run}: within {difference:.1g} of {folder / FILE}")
        return
    from cardiomegaly.inference.exporting import as_text, export

    beside = source if source.is_dir() else source.parent
    folder = beside / "export" if options.output is None else Path(options.output)
    formats = cli.as_list(options.format)
    if formats == ["bundle"]:
        from cardiomegaly.inference.bundle import write_bundle

        write_bundle(source, model, folder)
    else:
        print(as_text(export(model, formats, folder)))
    print(f"\nexported: {folder}")


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return cli.run(Options, act, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
