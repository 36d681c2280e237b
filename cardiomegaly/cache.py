"""List what caches and unfinished runs take, and remove what nobody has used for long.

Examples:
  python -m cardiomegaly.cache                       lists, removes nothing
  python -m cardiomegaly.cache remove=true           removes what was not used for 30 days
  python -m cardiomegaly.cache remove=true days=0    removes every cache that nobody uses now
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cardiomegaly import UserError, cli, config
from cardiomegaly.data import caches

RUN, RESULT = Path(".hydra") / "config.yaml", "metrics.json"  # of a run: begun with, ended with
RUN_DAYS = 1.0  # a run that wrote nothing for so long is not running


@dataclass
class Options:
    """What can be chosen."""

    cache: str | None = cli.option("folder of the caches; null: that of the training")
    runs: str = cli.option("folder below which runs lie", "outputs")
    days: float = cli.option("unused for at least so long", caches.UNUSED_DAYS)
    remove: bool = cli.option("remove what is that old", False)


def act(options: Options) -> None:
    """List, and remove where that is wanted.

    Raises:
        UserError: `days` is negative, or a folder cannot be removed.
    """
    if not options.days >= 0:
        raise UserError(f"days: must be 0 or more, got {options.days:g}")
    cache = Path(options.cache or cli.compose(config.CONF_DIR, []).data.cache)
    print(f"{'size':>10}  {'last used':<16}  folder")
    for store in caches.list_stores(cache).to_dict("records"):
        state = "in use" if store["in_use"] else ""
        tell(store["folder"], store["bytes"], store["last_used"].timestamp(), state)
    unfinished = unfinished_runs(Path(options.runs))
    for run, (size, time) in unfinished.items():
        tell(run, size, time, "unfinished run")
    oldest = datetime.now().timestamp() - 86400 * max(options.days, RUN_DAYS)
    old = [run for run, (_, time) in unfinished.items() if time <= oldest]
    if not options.remove:
        unused = caches.unused_stores(cache, options.days)
        print(
            f"{len(unused)} caches and {len(old)} unfinished runs were not used for "
            f"{options.days:g} days (runs: at least one); remove=true removes them"
        )
        return
    try:
        removed = caches.remove_unused(cache, options.days) if cache.is_dir() else ()
        for run in old:
            shutil.rmtree(run)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be removed ({error.strerror})") from error
    print(f"removed {len(removed)} caches and {len(old)} unfinished runs")


def unfinished_runs(root: Path) -> dict[Path, tuple[int, float]]:
    """Run folders without results: bytes, and when they were last written to."""
    runs = {}
    for folder in (path.parents[1] for path in sorted(root.rglob(str(RUN)))):
        if not (folder / RESULT).exists():
            files = [path.stat() for path in folder.rglob("*") if path.is_file()]
            runs[folder] = sum(f.st_size for f in files), max(f.st_mtime for f in files)
    return runs


def tell(folder: Path, size: int, time: float, state: str) -> None:
    """Print a line."""
    when = datetime.fromtimestamp(time).strftime("%Y-%m-%d %H:%M")
    print(f"{size / 1e9:>7.3f} GB  {when}  {folder}  {state}".rstrip())


def main() -> int:
    """The command."""
    return cli.run(Options, act, __doc__)


if __name__ == "__main__":
    sys.exit(main())
