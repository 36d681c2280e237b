"""Bring NIH ChestX-ray14, or look whether a folder holds all of it.

    python -m cardiomegaly.download target=FOLDER
    python -m cardiomegaly.download target=FOLDER archives=[1,2] source=URL_OR_FOLDER
    python -m cardiomegaly.download verify=FOLDER

Started again it goes on where it was and brings only what is missing. The exit code is 0 if all is
there and whole, 1 if something lacks, 2 for a mistake.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cardiomegaly import UserError, cli
from cardiomegaly.data import nih_archives as nih
from cardiomegaly.data.nih_tables import fetch_tables
from cardiomegaly.data.verify import verify

NAMED = 5  # images of each kind that are told by name


@dataclass
class Options:
    target: str | None = cli.option("folder to fill")
    verify: str | None = cli.option("folder to check")
    archives: list[int] = field(
        default_factory=lambda: [archive.number for archive in nih.ARCHIVES],
        metadata={"help": "which archives"},
    )
    source: str = cli.option("a mirror: URL or local folder", nih.NIH)
    parallel: int = cli.option("archives at once", 2)
    keep_archives: bool = cli.option("leave them in target/archives", False)


def main(argv: list[str] | None = None) -> int:
    try:
        return cli.run(Options, act, __doc__, argv)
    except KeyboardInterrupt:
        print("stopped; the same words again go on", file=sys.stderr)
        return 130


def act(options: Options) -> int:
    """Download or verify, as the words say."""
    if options.verify is not None and options.target is None:
        return check(Path(options.verify))
    if options.target is None or options.verify is not None:
        raise UserError("say target=FOLDER to download, or verify=FOLDER to check what is there")
    if options.parallel < 1:
        raise UserError(f"parallel: must be at least 1, got {options.parallel}")
    target, source = Path(options.target), options.source.rstrip("/")
    if "://" not in source:
        if not Path(source).is_dir():
            raise UserError(f"source={source}: must be a URL or a folder; there is no such folder")
        source = Path(source).resolve().as_uri()
    missing = nih.missing_archives(target, options.archives)
    target.mkdir(parents=True, exist_ok=True)
    problems = [fetch_tables(target, source)]
    if missing:
        how = (options.parallel, options.keep_archives)
        print(nih.check_room(target, missing, *how))
        problems += nih.fetch_archives(target, missing, source, *how)
    for problem in filter(None, problems):
        print(f"error: {problem}", file=sys.stderr)
    lacking = nih.missing_archives(target, options.archives)
    for archive, images in lacking:
        print(f"archive {archive.number}: {images:,} of {archive.images:,} images lack")
    if lacking or any(problems):
        print("not complete; the same words again bring what is missing")
        return 1
    print(f"complete: python -m cardiomegaly.train data=nih data.root={target}")
    return 0


def check(folder: Path) -> int:
    """Say what a folder holds of the images in its label table."""
    listed, problems = verify(folder)
    missing = problems.pop("missing")
    print(f"{listed - len(missing):,} of {listed:,} images are there")
    for number, count in sorted(Counter(map(nih.archive_of, missing)).items()):
        print(f"archive {number}: {count:,} images are missing")
    for problem, paths in problems.items():
        if paths:
            more = ", ..." if len(paths) > NAMED else ""
            print(f"{len(paths):,} are {problem}: {', '.join(paths[:NAMED])}{more}")
    return 1 if missing or any(problems.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
