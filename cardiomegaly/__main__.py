"""Lists the commands."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import cardiomegaly
from cardiomegaly import UserError, cli

HELPERS = ("__init__", "__main__", "cli", "config")


def main() -> int:
    """Print a line for each command."""
    words = [word for word in sys.argv[1:] if word not in ("-h", "--help")]
    if words:
        return cli.refuse(UserError(f"{words[0]!r}: say python -m cardiomegaly.COMMAND WORDS"))
    print(f"{cardiomegaly.__doc__}\n\npython -m cardiomegaly.COMMAND, each with --help:\n")
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in HELPERS:
            about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            print(f"  {path.stem:<10} {about.splitlines()[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
