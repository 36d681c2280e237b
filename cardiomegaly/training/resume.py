"""`resume=FOLDER` and `sweep.resume=FOLDER`: what goes on is what was begun.

A folder may come from anybody, so the words recorded in it are data: those that could make Hydra
build or run something are refused. The configuration that they give is compared with the recorded
one, and only settings that say where and how a run is computed may differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cardiomegaly import UserError
from cardiomegaly.config import CONF_DIR, TRUSTED, is_trusted

CONFIG = Path(".hydra") / "config.yaml"
OVERRIDES = Path(".hydra") / "overrides.yaml"
LOCK = ".lock"  # of a run folder, held by the process that trains into it
SWEEP = "sweep.json"  # the words that started a sweep last, and the keys that name its jobs
# Settings that say where and how a run is computed, not what: they may change between its starts.
MAY_CHANGE = (
    "hydra", "resume", "sweep", "launcher", "logger", "trust", "data.root", "data.cache",
    "data.workers", "data.prefetch", "trainer.name", "trainer.accelerator", "trainer.devices",
    "trainer.progress_bar", "trainer.log_every_n_steps",
)  # fmt: skip
LONGER = "trainer.max_epochs"  # a single run may go on for longer: as if begun with that many
PLAIN_WORD = re.compile(r"[+~]{0,2}[A-Za-z_][\w.]*(/\w+)*(=.*)?", re.DOTALL)
# What builds objects, and what looks outside: Hydra's own keys, and interpolations.
ACTIVE = re.compile(r"_(target|args|partial|recursive|convert)_|\$\{")
# Of Hydra's own settings, those of a sweep that cannot be made to run anything.
HYDRA_WORD = re.compile(
    r"\+?hydra(/\w+|\.(mode|sweeper\.(trials|at_once|seed)|launcher\.(n_jobs|pre_dispatch|"
    r"timeout_min|cpus_per_task|gpus_per_node|mem_gb|partition|account|qos|constraint|"
    r"max_num_timeout|ray\.(remote|init)\.num_[cg]pus)))=[\w.,:-]*"
)


def key_of(word: str) -> str:
    """`head` of the word `+head=gap`."""
    return word.lstrip("+~").partition("=")[0]


def value_of(word: str) -> str:
    """`a=b` of the word `resume='a=b'`; the elements of a list with commas between them."""
    value = OverridesParser.create().parse_override(word).value()
    parts = value if isinstance(value, list) else [value]
    return ",".join(str(part.text if isinstance(part, QuotedString) else part) for part in parts)


def quoted(text: str) -> str:
    """A text as the value of a word, whatever it holds."""
    return QuotedString(text, Quote.single).with_quotes()


def resume_words(words: list[str]) -> list[str]:
    """Put the words that started a run before those that go on with it (`resume=FOLDER`).

    Raises:
        UserError: the folder is not one of a run, or its record holds what is not plain data.
    """
    given = {key_of(word): word for word in words}
    folder = value_of(given["resume"]) if "resume" in given else "null"
    if folder in ("null", "None"):
        return words
    path = Path(folder) / OVERRIDES
    if not path.is_file():
        raise UserError(
            f"resume: {folder!r} is not a run folder (no {path}); give the folder that the "
            "training named when it began"
        )
    try:
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    begun = recorded(before, path, given)
    if "data" not in given and "data" not in map(key_of, begun):
        begun = [*_data_of(Path(folder)), *begun]
    return [*begun, *words, f"hydra.run.dir={quoted(folder)}"]


def _data_of(run: Path) -> list[str]:
    """The word that chooses a run's data, whose default depends on the environment."""
    data = _configuration(run).get("data")
    name = str(data.get("name")) if isinstance(data, dict) else ""
    there = re.fullmatch(r"\w+", name) and (CONF_DIR / "data" / f"{name}.yaml").is_file()
    return [f"data={name}"] if there else []


def sweep_words(words: list[str]) -> list[str]:
    """Put the words that started a sweep before those that go on with it (`sweep.resume=FOLDER`).

    Raises:
        UserError: the folder is not one of a sweep, or its record holds what is not plain data.
    """
    given = {key_of(word): word for word in words}
    folder = value_of(given["sweep.resume"]) if "sweep.resume" in given else "null"
    if folder in ("null", "None"):
        return words
    path = Path(folder) / SWEEP
    if not path.is_file():
        raise UserError(
            f"sweep.resume: {folder!r} is not the folder of a sweep (it has no {SWEEP})"
        )
    before = recorded(remembered(Path(folder))["words"], path, given)
    rest = [word for word in words if key_of(word) not in ("sweep.resume", "sweep.name")]
    return [*before, *rest, f"hydra.sweep.dir={quoted(folder)}", "hydra.mode=MULTIRUN"]


def remembered(folder: Path) -> dict[str, list[str]]:
    """How a sweep was last started, its words and the keys of its jobs; empty for a new one.

    Raises:
        UserError: the record is damaged.
    """
    path = folder / SWEEP
    if not path.is_file():
        return {"words": [], "keys": []}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"words": list(record["words"]), "keys": [str(key) for key in record["keys"]]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({error!r}); delete it, and start the sweep by its words"
        ) from error


def recorded(before: Any, path: Path, given: dict[str, str]) -> list[str]:
    """The recorded words that are not given anew, each of them plain data.

    Args:
        before: what the file holds, a list of words.
        path: of that file.
        given: the words of this start by their keys, `trust` among them.

    Raises:
        UserError: the file is damaged, or a word could make Hydra build or run something.
    """
    if not isinstance(before, list) or not all(isinstance(word, str) for word in before):
        raise UserError(f"{path} is damaged: it must be a list of words")
    trust = value_of(given["trust"]).split(",") if "trust" in given else []
    words = [word for word in before if key_of(word) not in given]
    for word in words:
        if not (word.startswith("~") or "=" in word):
            raise UserError(f"{path} is damaged: {word!r} is not of the form key=value")
        if not _is_data(word, trust):
            key, _, value = word.lstrip("+~").partition("=")
            remedy = (
                f"say trust={value.rpartition('.')[0]}" if "_target_" in key else "say it again"
            )
            raise UserError(
                f"{path}: {word!r} could run code and is not taken from a file; "
                f"{remedy} if it is yours and you know what it does"
            )
    return words


def _is_data(word: str, trust: list[str]) -> bool:
    key, _, value = word.lstrip("+~").partition("=")
    if key.partition(".")[0].partition("/")[0] == "hydra":
        return HYDRA_WORD.fullmatch(word) is not None
    group, _, rest = key.partition(".")
    if rest == "_target_" and group in TRUSTED:
        return all(is_trusted(target, group, trust) for target in value.split(","))
    if "." not in key and (CONF_DIR / key).is_dir():  # a choice: a file of conf/, no path
        return re.fullmatch(r"[\w.,() -]*", value) is not None and ".." not in value
    return PLAIN_WORD.fullmatch(word) is not None and ACTIVE.search(word) is None


def settings(words: Iterable[str]) -> dict[str, str]:
    """Those of Hydra's words that must not change between the starts of a run."""
    return {key_of(word): word for word in words if not _may_change(key_of(word))}


def check_unchanged(run: Path, composed: DictConfig, advice: str, longer: bool = False) -> None:
    """Refuse to go on with a run that was begun with other settings.

    Args:
        run: its folder; one without a recorded configuration was not begun.
        composed: the configuration it would go on with.
        advice: what to do, for the message.
        longer: whether it may go on for more epochs.

    Raises:
        UserError: names the setting, its value then and now.
    """
    before = _configuration(run)
    if not before:
        return
    own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    for key, then, now in _differences(before, OmegaConf.to_container(own, resolve=True)):
        if not _may_change(key) and not (longer and key == LONGER and now > then):
            raise UserError(f"{run} was begun with {key}={then}, now it is {now}: {advice}")


def _configuration(run: Path) -> dict[Any, Any]:
    """What a run recorded of its configuration, as it stands there; empty where it did not."""
    if not (run / CONFIG).is_file():
        return {}
    try:
        config = OmegaConf.to_container(OmegaConf.load(run / CONFIG), resolve=False)
    except (OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{run / CONFIG} is damaged: {' '.join(str(error).split())}") from error
    return config if isinstance(config, dict) else {}


def _differences(before: Any, now: Any, key: str = "") -> Iterable[tuple[str, Any, Any]]:
    """The keys whose values differ, with both; an absent value is None."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted({*before, *now}, key=str):
            below = f"{key}.{name}" if key else str(name)
            yield from _differences(before.get(name), now.get(name), below)
    elif before != now:
        yield key, before, now


def _may_change(key: str) -> bool:
    return any(key == name or key.startswith((f"{name}.", f"{name}/")) for name in MAY_CHANGE)
