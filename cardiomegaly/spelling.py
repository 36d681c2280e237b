"""Says what a misspelt word of a command line could have meant, where Hydra only refuses it."""

from __future__ import annotations

from difflib import get_close_matches

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from cardiomegaly.config import CONF_DIR

FREE = ("hydra", "head", "logger")  # keys below these depend on the choice, or are Hydra's own


def unknown_keys(words: list[str]) -> list[str]:
    """One line for each `key=value` whose key the configuration does not have, with the choices."""
    given = [word.partition("=")[0] for word in words if "=" in word and word[0].isalpha()]
    groups = {path.name for path in CONF_DIR.iterdir() if path.is_dir()}
    checked = [key for key in given if key not in groups and key.split(".")[0] not in FREE]
    if not checked:
        return []
    with initialize_config_dir(str(CONF_DIR.resolve()), version_base="1.3"):
        known = compose("config")
    lines = [_advice(key, known) for key in checked]
    return [line for line in lines if line]


def _advice(key: str, known: DictConfig) -> str | None:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(known, parent) if parent else known
    if not isinstance(node, DictConfig) or name in node:
        return None
    choices = [str(choice) for choice in node]
    near = get_close_matches(name, choices, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    place = parent or "the configuration"
    return f"{place} has no {name!r}{hint}; it has: {', '.join(choices)}"
