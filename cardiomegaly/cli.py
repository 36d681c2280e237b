"""The door of the small commands: `key=value` words in, one clear line out when they are wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, TypeVar

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cardiomegaly import UserError

USER_ERROR = 2
Options = TypeVar("Options")


def run(
    schema: type[Options],
    act: Callable[[Options], int | None],
    description: str | None,
    argv: list[str] | None = None,
) -> int:
    """Parse `key=value` words into the dataclass `schema`, call `act`, return the exit code.

    A `ValueError` or `FileNotFoundError` is a user's mistake: one line on stderr, exit code 2.
    """
    words = sys.argv[1:] if argv is None else argv
    if any(word in ("-h", "--help") for word in words):
        print(_help(schema, description or ""))
        return 0
    try:
        return act(parse(schema, words)) or 0
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return USER_ERROR


def parse(schema: type[Options], words: list[str]) -> Options:
    """Read `key=value` words as OmegaConf does, into an instance of the dataclass `schema`.

    Raises:
        UserError: a word without `=`, an unknown key, a value of the wrong type, or a required
            key that is absent.
    """
    known = [field.name for field in fields(schema)]  # type: ignore[arg-type]
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals:
            raise UserError(f"{word!r} is not of the form key=value; keys: {', '.join(known)}")
        if key.split(".")[0] not in known:
            near = get_close_matches(key, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise UserError(f"unknown key {key!r}{hint}; keys: {', '.join(known)}")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.from_cli(words))
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    missing = sorted(str(key) for key in OmegaConf.missing_keys(merged))
    if missing:
        raise UserError(f"{missing[0]}: required but not given; say {missing[0]}=... (--help)")
    return OmegaConf.to_object(merged)  # type: ignore[return-value]


def _help(schema: type[Any], description: str) -> str:
    lines = [description.strip(), "", "Options (key=value):"]
    for field in fields(schema):
        default = "required" if field.default is MISSING else f"default {_default(field)}"
        note = field.metadata.get("help", "")
        lines.append(f"  {field.name:<20} {note} ({default})".replace("  (", " ("))
    return "\n".join(lines)


def _default(field: Any) -> Any:
    """The value that a dataclass field takes when it is not given."""
    factory = field.default_factory
    return factory() if callable(factory) else field.default
