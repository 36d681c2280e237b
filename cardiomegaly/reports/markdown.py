"""Values, tables and pictures as Markdown, escaped; and the names of metrics in the reports."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

RANKING = {
    "auroc": "AUROC", "average_precision": "average precision", "brier": "Brier score", "ece": "ECE"
}  # fmt: skip
THRESHOLDED = {
    "sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV",
    "accuracy": "accuracy", "f1": "F1 (of the finding)", "f1_weighted": "F1 (weighted)",
    "f1_macro": "F1 (macro)",
}  # fmt: skip
METRICS = RANKING | THRESHOLDED
NOTHING = "–"  # noqa: RUF001 - what stands in a table where there is no figure


class Markdown(str):
    """Text that is Markdown already, so that a template does not escape it."""


def cell(value: Any, style: str = ".3f") -> str:
    """One value of a table as text: rounded, yes or no, a dash for what is missing."""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if pd.isna(value) or (isinstance(value, Real) and not np.isfinite(float(value))):
        return NOTHING
    if isinstance(value, Real) and not isinstance(value, Integral):
        return format(float(value), style)
    return str(value)


def with_interval(value: float, low: float, high: float, style: str = ".3f") -> str:
    """A figure and its interval as text."""
    if not np.isfinite(value):
        return "undefined"
    interval = f" ({low:{style}} to {high:{style}})" if np.isfinite(low) else ""
    return f"{value:{style}}{interval}"


def column(frame: pd.DataFrame, content: str) -> list[str]:
    """A column of a table as text, rounded.

    Args:
        frame: has a row a row of the table.
        content: the frame's column, or "value low high", its three columns of a figure with its
            interval; after a colon how numbers are written, three decimals if it says nothing.
    """
    names, _, style = content.partition(":")
    style = style or ".3f"
    if " " not in names:
        return [cell(value, style) for value in frame[names]]
    value, low, high = (frame[name] for name in names.split())
    return [with_interval(*row, style) for row in zip(value, low, high, strict=True)]


def escape_markdown(value: object) -> str:
    """Text that Markdown shows as it is, on one line; whole numbers with commas."""
    if isinstance(value, Markdown):
        return value
    if isinstance(value, Integral) and not isinstance(value, bool):
        return f"{value:,}"
    text = re.sub(r"([\\`*<>&#\[\]|]|\b_\B|\B_\b)", r"\\\1", " ".join(str(value).split()))
    return re.sub(r"^(\d*)([-+.)])(?=\s)", r"\1\\\2", text)  # what would begin a list


def to_table(
    frame: pd.DataFrame, rows: str | None = None, columns: Mapping[str, str] | None = None
) -> Markdown:
    """A Markdown table, figures on the right.

    Args:
        frame: its index stands first if it carries names.
        rows: the column that names the rows, in place of the index.
        columns: what each column shows, by its title; see `column`. What the frame lacks is left
            out. All columns if none are named.
    """
    if rows is not None:
        frame = frame.set_index(rows)
    if columns is None:
        texts = {str(name): [cell(value) for value in frame[name]] for name in frame}
    else:
        known = {
            title: content
            for title, content in columns.items()
            if set(content.partition(":")[0].split()) <= set(frame)
        }
        texts = {title: column(frame, content) for title, content in known.items()}
    marks = ["---:" if text and all(map(_is_figure, text)) else "---" for text in texts.values()]
    lines: list[Sequence[object]] = [
        list(texts), [Markdown(mark) for mark in marks], *zip(*texts.values(), strict=True)
    ]  # fmt: skip
    if not isinstance(frame.index, pd.RangeIndex):
        first = ["", Markdown("---"), *frame.index]
        lines = [[label, *line] for label, line in zip(first, lines, strict=True)]
    return Markdown("\n".join(f"| {' | '.join(map(escape_markdown, line))} |" for line in lines))


def to_figure(path: str, caption: str) -> Markdown:
    """A picture, named from the folder of the report; the caption also describes it."""
    return Markdown(f"![{escape_markdown(caption)}]({path})")


def _is_figure(text: str) -> bool:
    return text in (NOTHING, "undefined") or text.lstrip("-")[:1].isdigit()
