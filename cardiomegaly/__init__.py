"""Does this chest X-ray show an enlarged heart? Detectors on NIH ChestX-ray14."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cardiomegaly.inference.loading import load

__all__ = ["RunError", "UserError", "__version__", "load"]
__version__ = "0.1.0"
# ONNX Runtime (1.32 at least) reports its use to its maker, unless this is set before its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class UserError(ValueError):
    """A mistake of the user's: every command prints it in one line and ends with exit code 2.

    Its message names the field, what is allowed, what came and what to do. Any other exception is
    a bug and keeps its traceback.
    """

    exit_code = 2


class RunError(UserError):
    """What stops a run that was rightly begun: a loss that is not finite, a disk that is full.

    It is told in one line as a mistake is, and every command ends with exit code 1.
    """

    exit_code = 1


def __getattr__(name: str) -> Any:
    """`load`, whose import takes a second and which most commands do not need."""
    if name == "load":
        from cardiomegaly.inference.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
