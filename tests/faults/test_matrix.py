"""The table of docs/reliability.md: every row has its tests, every test of this folder a row."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests import words

TOP = words.repository()
PAGE = TOP / "docs" / "reliability.md"
TEST = re.compile(r"\[`(test_\w+)`\]\(\.\./(tests/[\w/]+/test_\w+\.py|tests/test_\w+\.py)\)")


def collected(path: Path) -> set[str]:
    """The tests that pytest collects from a file."""
    tree = ast.parse(path.read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    return {name for name in functions if name.startswith("test_")}


def test_every_fault_is_tried_and_every_try_is_told() -> None:
    tables = PAGE.read_text().partition("## The soak")[0]
    rows = [line for line in tables.splitlines() if line.startswith("| ")]
    faults = [row for row in rows if not row.startswith(("| fault ", "| --- "))]
    assert len(faults) > 40
    assert all(TEST.search(row) for row in faults)
    named = {(path, name) for row in faults for name, path in TEST.findall(row)}
    assert not {(path, name) for path, name in named if name not in collected(TOP / path)}
    ours = {
        (f"tests/faults/{path.name}", name)
        for path in Path(__file__).parent.glob("test_*.py")
        if path != Path(__file__)
        for name in collected(path)
    }
    assert ours <= named
