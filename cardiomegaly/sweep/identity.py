"""What tells one job of a sweep from another: its name, and the settings that must not change."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cardiomegaly import UserError
from cardiomegaly.training.record import CONFIG

NAMING = ("backbone", "balance")  # first in a job's name, whether swept over or not
LONGEST = 120  # characters of a name
# Settings that say where and how a job is computed, not what: they may change between its starts.
MAY_CHANGE = (
    "hydra", "resume", "sweep", "launcher", "logger", "data.root", "data.cache", "data.workers",
    "data.prefetch", "trainer.name", "trainer.accelerator", "trainer.devices",
    "trainer.progress_bar", "trainer.log_every_n_steps",
)  # fmt: skip


def key_of(word: str) -> str:
    """`head` of the word `+head=gap`."""
    return word.lstrip("+").partition("=")[0]


def job_name(keys: Iterable[str], overrides: Iterable[str]) -> str:
    """The name of a job, and of its run folder: what it sets of `keys`.

    Example: `backbone-mobilenetv1_balance-True_seed-1`. It needs no quotes in a shell or in Hydra.
    """
    given = {key_of(word): word.partition("=")[2] for word in overrides}
    order = [*NAMING, *sorted(set(keys) - set(NAMING))]
    words = [f"{key}-{given[key].rpartition('/')[2]}" for key in order if key in given]
    plain = "".join(c if c.isalnum() or c in "-._" else "-" for c in "_".join(words)) or "run"
    if len(plain) <= LONGEST:
        return plain
    return f"{plain[:LONGEST]}-{sha256(plain.encode()).hexdigest()[:8]}"


def settings(words: Iterable[str]) -> dict[str, str]:
    """Those of Hydra's words that must not change between the starts of a job."""
    return {key_of(word): word for word in words if not _may_change(key_of(word))}


def check_unchanged(run: Path, composed: DictConfig) -> None:
    """Refuse to go on with a job that was begun with other settings.

    Raises:
        UserError: names the setting, its value then and now.
    """
    if not (run / CONFIG).is_file():
        return
    before = _flat(OmegaConf.to_container(OmegaConf.load(run / CONFIG), resolve=False))
    now = _flat(OmegaConf.to_container(composed, resolve=False))
    for key in sorted(before.keys() & now.keys()):
        if before[key] != now[key] and not _may_change(key):
            raise UserError(
                f"{run} was begun with {key}={before[key]}, now it is {now[key]}: give the sweep "
                "another sweep.name, or delete that folder to run the job again"
            )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _may_change(key: str) -> bool:
    return any(key == name or key.startswith((f"{name}.", f"{name}/")) for name in MAY_CHANGE)
