"""Look at a data set before training: counts, prevalence, missing values, odd and doubled images.

    python -m cardiomegaly.explore data=nih data.root=FOLDER [output=FOLDER]

All that describes data, cohort and split is set as in a training (python -m cardiomegaly.train
--help). Writes exploration.html, exploration.md, CSV tables and plots into output, by default
outputs/explore/NAME.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cardiomegaly import UserError, cli, config
from cardiomegaly.config import CONF_DIR


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    if any(word in ("-h", "--help") for word in words):
        cli.end_with_reader()
        print(__doc__)
        return 0
    try:
        words = cli.read_words(words)
        output = [word.partition("=")[2] for word in words if word.startswith("output=")]
        rest = [word for word in words if not word.startswith("output=")]
        settings = config.check(cli.compose(CONF_DIR, rest))
        folder = Path(output[-1].strip("'") if output else f"outputs/explore/{settings.data.name}")
        look(settings, folder)
    except UserError as mistake:
        return cli.refuse(mistake)
    return 0


def look(settings: config.Config, folder: Path) -> None:
    """Write the page, say it in short and say where it is."""
    # Not imported above: --help and a mistake in the words need none of it.
    from cardiomegaly.data.phantom.cohort import generate_phantom
    from cardiomegaly.reports.exploration_page import write_exploration
    from cardiomegaly.training.files import check_writable

    check_writable(folder, "output")
    if (phantom := settings.data.phantom) is not None:
        generate_phantom(
            Path(settings.data.root), phantom.images, phantom.size, phantom.seed,
            phantom.label_noise,
        )  # fmt: skip
    print(write_exploration(settings, folder, progress=sys.stderr.isatty()))


if __name__ == "__main__":
    sys.exit(main())
