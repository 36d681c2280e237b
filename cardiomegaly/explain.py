"""Explain predictions: where a model looks, and what each place adds to its answer.

Examples:
  python -m cardiomegaly.explain model=outputs/train/first input=image.png
  python -m cardiomegaly.explain model=model.onnx input=FOLDER boxes=BBox_List_2017.csv
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
    model: str = cli.option("run folder, .ckpt, .onnx file or bundle", MISSING)
    input: Any = cli.option("file, folder or pattern, or [several] of them", MISSING)
    output: str = cli.option("folder for the pictures", "explanations")
    boxes: str | None = cli.option("list of heart boxes like NIH's, to judge the maps by")
    threshold: float | None = cli.option("on the probability; null for the model's own")
    device: str = cli.option("auto, cpu or cuda", "auto")
    trust: Any = cli.option("modules of your own whose classes a run may name")


def act(options: Options) -> None:
    """Draw the pictures, say it in short and say where they are."""
    # Not imported above: --help and a mistake in the words need none of it.
    from cardiomegaly.inference.gallery import HeartBoxes, write_gallery
    from cardiomegaly.inference.inputs import InputFiles
    from cardiomegaly.inference.loading import load
    from cardiomegaly.inference.metadata import HEART
    from cardiomegaly.model.memory import keep_freed_memory

    keep_freed_memory()
    files = InputFiles(cli.as_list(options.input))
    boxes = HeartBoxes(Path(options.boxes)) if options.boxes is not None else None
    detector = load(
        options.model, device=options.device, trust=cli.as_list(options.trust),
        threshold=options.threshold,
    )  # fmt: skip
    if boxes is not None and detector.finding != HEART:
        raise UserError(f"boxes: they are of hearts, the model finds {detector.finding}")
    print(write_gallery(detector, files, boxes, Path(options.output)))


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return cli.run(Options, act, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
