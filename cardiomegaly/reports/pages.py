"""Writes a report twice: as Markdown from a template, and as one self-contained HTML page.

A report is a Markdown template (templates/*.md) in which every value is escaped; the page is made
from that Markdown (markdown-it-py, which passes no HTML through), its pictures travel inside, and
its own policy forbids the browser to fetch anything.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

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


class Report(NamedTuple):
    """A report that was written: the sentences it begins with and its warnings, as plain text."""

    page: Path
    summary: list[str]
    warnings: list[str]

    def __str__(self) -> str:
        warnings = [f"warning: {warning}" for warning in self.warnings]
        return "\n".join([*self.summary, *warnings, "", f"report: {self.page}"])


def write_report(template: str, markdown: Path, html: Path, values: dict[str, Any]) -> Report:
    """Write a report as Markdown and as HTML, each in one step.

    Args:
        template: its name below templates/.
        markdown, html: where to; pictures are named relative to the folder of the first.
        values: of the template.
    """
    text = re.sub(r"\n{3,}", "\n\n", TEMPLATES.get_template(template).render(values))
    write_text(markdown, text)
    write_text(html, to_html(text, markdown.parent))
    summary: list[str] = []
    warnings: list[str] = []
    for token in PARSER.parse(text.split("\n## ")[0]):
        if token.type in ("bullet_list_open", "blockquote_open"):
            kind = summary if token.type == "bullet_list_open" else warnings
        elif token.type == "inline" and token.level > 1:
            kind.append(_plain(token).removeprefix("Warning. "))
    return Report(html, summary, warnings)


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
TEMPLATES.filters |= {
    "table": to_table,
    "column": column,
    "figure": to_figure,
    "markdown": Markdown,
}
