"""Predict images: a table with probability and decision, or the reason why there is none.

Examples:
  python -m cardiomegaly.predict model=outputs/train/first input=FOLDER output=predictions.csv
  python -m cardiomegaly.predict model=[outputs/a,outputs/b] input='images/*.dcm' flips=true
  python -m cardiomegaly.predict model=model.onnx input=[a.png,b.jpg]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from cardiomegaly import UserError, cli


@dataclass
class Options:
    model: Any = cli.option(
        "run folder, .ckpt, .onnx or bundle, or [several], which are averaged", MISSING
    )
    input: Any = cli.option("file, folder or pattern, or [several] of them", MISSING)
    output: str = cli.option("CSV file to write", "predictions.csv")
    dicom: str | None = cli.option("folder for structured reports and overlays of DICOM files")
    flips: bool | None = cli.option(
        "average each image with its mirror image; null: as the model was tested"
    )
    threshold: float | None = cli.option("on the probability; null for the model's own")
    refuse: bool = cli.option("false: unfit images get a probability and a warning", True)
    batch_size: int = cli.option("images a batch", 32)
    workers: int = cli.option("processes that read images; 0 for threads of this one", 0)
    device: str = cli.option("auto, cpu or cuda", "auto")
    trust: Any = cli.option("modules of your own whose classes a run may name")
    progress_bar: bool = cli.option("show one in a terminal", True)


def act(options: Options) -> None:
    """Write the table and say how many images were refused."""
    # Not imported above: --help and a mistake in the words need none of it.
    from cardiomegaly.inference.inputs import InputFiles
    from cardiomegaly.inference.loading import load
    from cardiomegaly.inference.table import write_table
    from cardiomegaly.model.memory import keep_freed_memory

    for name, least in (("batch_size", 1), ("workers", 0)):
        value = getattr(options, name)
        if value < least:
            raise UserError(f"{name}: must be at least {least}, got {value}")
    keep_freed_memory()
    files = InputFiles(cli.as_list(options.input))
    detector = load(
        cli.as_list(options.model), device=options.device, trust=cli.as_list(options.trust),
        flips=options.flips, threshold=options.threshold, refuse=options.refuse,
    )  # fmt: skip
    output, each = Path(options.output), []
    if options.dicom is not None:
        from cardiomegaly.inference.structured_report import DicomWriter

        each.append(DicomWriter(detector, Path(options.dicom)).write)
    total, refused = write_table(
        output, detector, files, batch_size=options.batch_size, workers=options.workers,
        progress=options.progress_bar and sys.stderr.isatty(), each=each,
    )  # fmt: skip
    print(f"{total:,} images, {refused:,} of them refused (column reason): {output}")


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return cli.run(Options, act, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
