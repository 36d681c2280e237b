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
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import escape

from cardiomegaly.reports.markdown import Markdown, column, escape_markdown, to_figure, to_table
from cardiomegaly.training.files import write_text

SCREEN_SCALE = 96 / 130  # the plots have 130 points an inch, a browser's inch has 96


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
