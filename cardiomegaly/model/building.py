"""An object from a configuration: `_target_` names its class, everything beside it is an option.

Design choices: a configuration may come out of a stranger's checkpoint, where Hydra's `instantiate`
would call whatever a `_target_` names at any depth. Here the class must be of the kind that is
asked for, such as `nn.Module`, its options are plain values, and of what a file says only trusted
classes are even looked for.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cardiomegaly import UserError
from cardiomegaly.config import is_trusted

TARGET = "_target_"
CONTROL = re.compile(r"_\w+_")  # Hydra's own keys: _target_, _args_, _partial_ and so on
Built = TypeVar("Built")


def build(
    settings: Mapping[str, Any],
    field: str,
    kind: type[Built],
    arguments: Mapping[str, Any],
    offered: Mapping[str, Any] | None = None,
) -> Built:
    """Build the object that a configuration describes, one from a file after `check_trusted`.

    Args:
        settings: `_target_`, the dotted name of a class, and its options.
        field: where the configuration stands, for messages, such as `head`.
        kind: what the class must be a subclass of.
        arguments: what the program itself hands to the class.
        offered: what it hands over besides, where the class names it and the options do not.

    Raises:
        UserError: the class cannot be found, is not of this kind or does not take these options; or
            an option holds a `_target_` or another of Hydra's keys.
    """
    options = dict(settings)
    target = options.pop(TARGET, None)
    if not isinstance(target, str):
        raise UserError(f"{field}.{TARGET}: must be the dotted name of a class, got {target!r}")
    _check_plain(options, field)
    chosen = _find_class(target, f"{field}.{TARGET}", kind)
    named = inspect.signature(chosen).parameters
    options = {key: value for key, value in (offered or {}).items() if key in named} | options
    try:
        inspect.signature(chosen).bind(**options, **arguments)
    except TypeError as error:
        raise UserError(
            f"{field}: {target} takes {_parameters(chosen, arguments)}; "
            f"got {', '.join(options) or 'none'} ({error})"
        ) from error
    try:
        return chosen(**options, **arguments)
    except ValueError as error:  # what a class says of the values of its options
        raise UserError(f"{field}: {target}: {error}") from error


def check_trusted(settings: Any, field: str, trust: Collection[str] = ()) -> None:
    """Refuse what a file says to build unless its class is this program's or trusted by the user.

    Args:
        settings: what stands in the file.
        field: where it stands, for messages.
        trust: modules named on the own command line; see `config.is_trusted`.

    Raises:
        UserError: no mapping with a `_target_`, or one that is not trusted.
    """
    target = settings.get(TARGET) if isinstance(settings, Mapping) else None
    if not isinstance(target, str):
        raise UserError(f"{field}: must be a mapping with the name of a class as {TARGET}")
    if not is_trusted(target, field, trust):
        module = target.rpartition(".")[0] or "MODULE"
        raise UserError(
            f"{field}.{TARGET}: {target!r} is none of this program's classes, and nothing is run "
            f"because a file names it; if {module} is yours, say trust={module}"
        )


def _check_plain(value: Any, field: str) -> None:
    """Refuse mappings in which Hydra would see something to build."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str) or CONTROL.fullmatch(key):
                raise UserError(
                    f"{field}.{key}: is refused; options are plain values, and only the "
                    f"{TARGET} of the whole is a class"
                )
            _check_plain(item, f"{field}.{key}")
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            _check_plain(item, f"{field}[{place}]")


def _find_class(target: str, field: str, kind: type[Built]) -> type[Built]:
    module_name, _, name = target.rpartition(".")
    if not module_name:
        raise UserError(f"{field}: must be MODULE.CLASS, such as myfile.MyHead; got {target!r}")
    here = str(Path.cwd())
    if here not in sys.path:  # an installed command does not look where one stands
        sys.path.append(here)
    try:
        chosen = getattr(importlib.import_module(module_name), name, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # something that the user's module itself imports
        raise UserError(
            f"{field}: there is no module {error.name!r} to import for {target}; it is looked for "
            f"in {here} and among the installed packages"
        ) from error
    if not (isinstance(chosen, type) and issubclass(chosen, kind)):
        # as torch.nn.Module calls itself, not torch.nn.modules.module.Module
        name = f"{kind.__module__.partition('.modules')[0]}.{kind.__qualname__}"
        raise UserError(f"{field}: {target} must be a class of {name}, got {chosen!r}")
    return chosen


def _parameters(chosen: type[Any], arguments: Mapping[str, Any]) -> str:
    """The names of the options that a class takes, those with defaults in brackets."""
    names = [
        f"[{name}]" if parameter.default is not parameter.empty else name
        for name, parameter in inspect.signature(chosen).parameters.items()
        if name not in arguments
    ]
    return ", ".join(names) or "no options"
