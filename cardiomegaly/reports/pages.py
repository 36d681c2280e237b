"""Writes a report twice: as Markdown from a template, and as one self-contained HTML page.

A report is a Markdown template (templates/*.md) in which every value is escaped; the page is made
from that Markdown (markdown-it-py, which passes no HTML through), its pictures travel inside, and
its own policy forbids the browser to fetch anything.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import escape

from cardiomegaly.training.files import write_text

RANKING = {
    "auroc": "AUROC", "average_precision": "average precision", "brier": "Brier score", "ece": "ECE"
}  # fmt: skip
THRESHOLDED = {
    "sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV",
    "accuracy": "accuracy", "f1": "F1 (cardiomegaly)", "f1_weighted": "F1 (weighted)",
    "f1_macro": "F1 (macro)",
}  # fmt: skip
METRICS = RANKING | THRESHOLDED
NOTHING = "–"  # noqa: RUF001 - what stands in a table where there is no figure
SCREEN_SCALE = 96 / 130  # the plots have 130 points an inch, a browser's inch has 96


class Markdown(str):
    """Text that is Markdown already, so that a template does not escape it."""


def write_report(template: str, markdown: Path, html: Path, values: dict[str, Any]) -> list[str]:
    """Write a report as Markdown and as HTML, each in one step.

    Args:
        template: its name below templates/.
        markdown, html: where to; pictures are named relative to the folder of the first.
        values: of the template.

    Returns:
        The sentences of its first list, which say it in short, as plain text.
    """
    text = TEMPLATES.get_template(template).render(values)
    text = re.sub(r"\n{3,}", "\n\n", text)
    write_text(markdown, text)
    write_text(html, to_html(text, markdown.parent))
    tokens = PARSER.parse(text)
    end = next(place for place, token in enumerate(tokens) if token.type == "bullet_list_close")
    start = next(place for place, token in enumerate(tokens) if token.type == "bullet_list_open")
    return [_plain(token) for token in tokens[start:end] if token.type == "inline"]


def to_html(markdown: str, folder: Path) -> str:
    """Make the page of a report: its first heading is the title, its pictures are put inside."""
    tokens = PARSER.parse(markdown)
    headings: list[tuple[str, str, str]] = []
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", f"section-{len(headings)}")
            headings.append((f"section-{len(headings)}", token.tag, _plain(tokens[place + 1])))
        if [child.type for child in token.children or []] == ["image"]:
            token.type = "figure"
            tokens[place - 1].hidden = tokens[place + 1].hidden = True  # the paragraph around it
    start = next((i for i, token in enumerate(tokens) if token.tag == "h2"), len(tokens))
    summary, body = (
        PARSER.renderer.render(part, PARSER.options, {"folder": folder})
        for part in (tokens[:start], tokens[start:])
    )
    return PAGE.get_template("page.html").render(headings=headings, summary=summary, body=body)


def cell(value: object, decimals: int = 3) -> str:
    """One value of a table as text: rounded, yes or no, a dash for what is missing."""
    if value is None or value is pd.NA or value is pd.NaT:
        return NOTHING
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return str(value)
    if isinstance(value, Real):
        number = float(value)
        return f"{number:.{decimals}f}" if np.isfinite(number) else NOTHING
    return str(value)


def with_interval(value: float, low: float, high: float, decimals: int = 3) -> str:
    """A figure and its interval as text."""
    if not np.isfinite(value):
        return "undefined"
    if not np.isfinite(low):
        return f"{value:.{decimals}f}"
    return f"{value:.{decimals}f} ({low:.{decimals}f} to {high:.{decimals}f})"


def interval_column(
    table: pd.DataFrame, value: str, prefix: str = "", decimals: int = 3
) -> list[str]:
    """Every row's figure with its interval, from the columns value, {prefix}low, {prefix}high."""
    columns = zip(table[value], table[f"{prefix}low"], table[f"{prefix}high"], strict=True)
    return [with_interval(*row, decimals) for row in columns]


def escape_markdown(value: object) -> str:
    """Text that Markdown shows as it is, on one line; whole numbers with commas."""
    if isinstance(value, Markdown):
        return value
    if isinstance(value, Integral) and not isinstance(value, bool):
        return f"{value:,}"
    text = re.sub(r"([\\`*<>&#\[\]|]|\b_\B|\B_\b)", r"\\\1", " ".join(str(value).split()))
    return re.sub(r"^(\d*)([-+.)])(?=\s)", r"\1\\\2", text)  # what would begin a list


def to_table(frame: pd.DataFrame) -> Markdown:
    """A Markdown table; the index stands first if it carries names, figures on the right."""
    named = not isinstance(frame.index, pd.RangeIndex)
    rows = [[cell(value) for value in row] for row in frame.to_numpy(dtype=object)]
    figures = [bool(column) and all(map(_is_figure, column)) for column in zip(*rows, strict=True)]
    marks = ["---:" if right else "---" for right in figures] or ["---"] * frame.shape[1]
    lines: list[Sequence[object]] = [list(frame.columns), [Markdown(mark) for mark in marks], *rows]
    if named:
        first = ["", Markdown("---"), *frame.index]
        lines = [[label, *line] for label, line in zip(first, lines, strict=True)]
    return Markdown("\n".join(f"| {' | '.join(map(escape_markdown, line))} |" for line in lines))


def to_figure(path: str, caption: str) -> Markdown:
    """A picture, named from the folder of the report; the caption also describes it."""
    return Markdown(f"![{escape_markdown(caption)}]({path})")


def _is_figure(text: str) -> bool:
    return text in (NOTHING, "undefined") or text.lstrip("-")[:1].isdigit()


def _plain(inline: Token) -> str:
    children = inline.children or []
    return "".join(" " if child.type == "softbreak" else child.content for child in children)


def _embed(renderer: Any, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
    """The HTML of a picture, which then needs no file."""
    (image,) = tokens[place].children or []
    content = (env["folder"] / str(image.attrGet("src"))).read_bytes()
    width = round(struct.unpack(">I", content[16:20])[0] * SCREEN_SCALE)
    caption, data = escape(_plain(image)), base64.b64encode(content).decode("ascii")
    return (
        f'<figure><div class="scroll"><img style="--width: {width}px" alt="{caption}" '
        f'src="data:image/png;base64,{data}"></div><figcaption>{caption}</figcaption></figure>\n'
    )


PARSER = MarkdownIt("commonmark", {"html": False}).enable("table")
PARSER.add_render_rule("figure", _embed)
PARSER.add_render_rule("table_open", lambda *_: '<div class="scroll"><table>\n')
PARSER.add_render_rule("table_close", lambda *_: "</table></div>\n")
PAGE = Environment(
    loader=PackageLoader("cardiomegaly.reports"), autoescape=True, undefined=StrictUndefined
)
TEMPLATES = PAGE.overlay(autoescape=False, finalize=escape_markdown, trim_blocks=True)
TEMPLATES.filters |= {"table": to_table, "figure": to_figure}
