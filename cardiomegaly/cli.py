"""How every command reads its words, and how it says what is wrong with them.

All commands speak Hydra's grammar: words of the form key=value, checked against `conf/` (train) or
against a dataclass (the others). A mistake is one line on stderr and exit code 2.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from cardiomegaly import UserError

USER_ERROR = 2
HYDRA_VERSION = "1.3"  # whose behaviour is wanted, Hydra's `version_base`
CLOSING = {"[": "]", "{": "}"}
Options = TypeVar("Options")


def option(about: str, default: Any = None) -> Any:
    """A field of a command's dataclass, with the text that `--help` says of it."""
    return field(default=default, metadata={"help": about})


def run(
    schema: type[Options],
    act: Callable[[Options], int | None],
    description: str | None,
    argv: list[str] | None = None,
) -> int:
    """Read words into the dataclass `schema`, call `act` with it, return the exit code.

    A `UserError` is one line on stderr and exit code 2; any other exception is a bug and passes.
    """
    words = sys.argv[1:] if argv is None else argv
    if any(word in ("-h", "--help") for word in words):
        end_with_reader()
        print(_help(schema, description or ""))
        return 0
    if words[:1] in (["-sc"], ["--shell-completion"]):
        complete(schema)
        return 0
    try:
        return act(parse(schema, words)) or 0
    except UserError as mistake:
        return refuse(mistake)


def complete(schema: type[Any]) -> None:
    """Complete the word that the shell asks for; Hydra wants a function, which it does not call."""

    def task(_: DictConfig) -> None: ...

    task.__module__ = "__main__"  # or the folders beside a command's module were its choices
    ConfigStore.instance().store(name="options", node=schema)
    hydra.main(version_base=HYDRA_VERSION, config_path=None, config_name="options")(task)()


def refuse(mistake: Exception) -> int:
    """Print a mistake in its one line; returns the exit code that belongs to it."""
    print(f"error: {mistake}", file=sys.stderr)
    return getattr(mistake, "exit_code", USER_ERROR)


def end_with_reader() -> None:
    """End quietly where the reader of the output does (`--help | head`)."""
    if hasattr(signal, "SIGPIPE"):  # not on Windows
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def parse(schema: type[Options], words: list[str]) -> Options:
    """Read `key=value` words into an instance of the dataclass `schema`.

    Raises:
        UserError: as in `read_words` and `compose`, or a required key is not given.
    """
    words, known = read_words(words), [field.name for field in fields(schema)]  # type: ignore[arg-type]
    for key in (re.split(r"[.@=]", word.lstrip("+~"))[0] for word in words):
        if key not in known:
            raise UserError(_unknown("", key, known))
    own = OmegaConf.masked_copy(compose(schema, words), known)
    try:
        config = OmegaConf.merge(OmegaConf.structured(schema), own)
        for key in sorted(map(str, OmegaConf.missing_keys(config))):
            raise UserError(f"{key}: required but not given; say {key}=... (--help)")
        return OmegaConf.to_object(config)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise UserError(explain(error)) from error


def read_words(words: Iterable[str]) -> list[str]:
    """Bring words into Hydra's grammar as a shell hands them over.

    `[0.6, 0.1, 0.3]` and `{pad_type: same}`, which a shell splits at their blanks, are joined
    again; `~/nih` is in the home folder; a value that the grammar lacks (`a=b`) gets quotes.

    Raises:
        UserError: a word is not of the form key=value, or cannot be read.
    """
    joined: list[str] = []
    for word in words:
        if joined and _is_open(joined[-1]):
            joined[-1] += f" {word}"
        else:
            joined.append(word)
    return [_readable(word) for word in joined]


def as_list(value: Any) -> list[str]:
    """The value of a key that takes one or [several]; null is none."""
    if value is None:
        return []
    return [str(item) for item in (value if isinstance(value, list) else [value])]


def compose(source: Path | type, words: list[str], mode: RunMode = RunMode.RUN) -> DictConfig:
    """Compose a configuration from its source and words, as Hydra does.

    Args:
        source: a folder whose `config.yaml` says what there is, or a dataclass.
        words: of the form key=value.
        mode: MULTIRUN lets a word have several values.

    Raises:
        UserError: a key or a choice is unknown, or a value has the wrong type.
    """
    if isinstance(source, Path):
        name = "config"
        opened: Any = hydra.initialize_config_dir(str(source.resolve()), version_base=HYDRA_VERSION)
    else:
        name = "options"
        ConfigStore.instance().store(name=name, node=source)
        opened = hydra.initialize(config_path=None, version_base=HYDRA_VERSION)
    with opened:
        loader = GlobalHydra.instance().config_loader()
        single = mode == RunMode.RUN
        try:
            return loader.load_configuration(name, words, mode, validate_sweep_overrides=single)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(explain(error)) from error


def explain(error: Exception) -> str:
    """An error of Hydra's or OmegaConf's in one line, with what there is and what was meant."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        return _unknown(group, choice, [name for name in error.options if name[0] != "_"])
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    missing_key = (ConfigAttributeError, ConfigKeyError)
    if isinstance(cause, missing_key) and isinstance(cause.parent_node, DictConfig):
        parent = str(cause.full_key).rpartition(".")[0]
        return _unknown(parent, str(cause.key), map(str, cause.parent_node))
    if isinstance(cause, OmegaConfBaseException):
        return f"{cause.full_key or 'configuration'}: {str(cause).splitlines()[0]}"
    if "Ambiguous value" in str(error):
        return (
            f"{str(error).split(chr(39))[1]}: several values; put them in brackets for a list, the "
            "value in quotes if the comma belongs to it, or train a run of each with -m"
        )
    return " ".join(str(error).split())


def _unknown(place: str, name: str, choices: Iterable[str]) -> str:
    known = [choice for choice in choices if choice != "hydra"]
    near = get_close_matches(name, known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{place or 'this command'} has no {name!r}{hint}; it has: {', '.join(known)}"


def _is_open(word: str) -> bool:
    """Whether a list or a mapping begins in this word and does not end in it."""
    value = word.partition("=")[2]
    closing = CLOSING.get(value[:1])
    return closing is not None and value.count(value[0]) > value.count(closing)


def _readable(word: str) -> str:
    key, equals, value = word.partition("=")
    if _is_open(word):
        raise UserError(f"{word}: the bracket is not closed; '{key}=[a, b]' in quotes is one word")
    if not (key and equals) and not re.fullmatch(r"~[\w/@]+", word):
        raise UserError(f"{word!r} is not of the form key=value (--help)")
    if equals and not value:
        raise UserError(f"{key}: no value is given; say {key}=VALUE, or {key}=null for none")
    value = re.sub(r"(?<![^,\[])~(?=/|$)", lambda _: str(Path.home()), value)
    spelt = [key + equals + value]
    if value[:1] not in "[{'\"" and "${" not in value:
        spelt.append(f"{key}={QuotedString(value, Quote.single).with_quotes()}")
    for text in spelt:
        try:
            OverridesParser.create().parse_override(text)
        except HydraException as error:
            reason = str(error).splitlines()[0]
        else:
            return text
    raise UserError(f"{word}: {reason}; say key=value, with quotes around what is not plain text")


def _help(schema: type[Any], description: str) -> str:
    lines = [description.strip(), "", "Options (key=value):"]
    for each in fields(schema):
        factory = each.default_factory
        default = factory() if callable(factory) else each.default
        note = "required" if default is MISSING else f"default {default}"
        lines.append(f"  {each.name:<20} {each.metadata.get('help', '')} ({note})")
    return "\n".join(lines)
