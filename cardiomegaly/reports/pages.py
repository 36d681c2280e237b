"""One self-contained HTML page: text, warnings, tables and pictures, nothing loaded from elsewhere.

Everything given is escaped; pictures are PNG and travel inside the page; the page's own policy
forbids the browser to fetch anything.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable
from html import escape
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pandas as pd

from cardiomegaly import UserError
from cardiomegaly.training.record import write_text

NOTHING = "–"  # noqa: RUF001 - what stands in a table where there is no figure
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SCREEN_SCALE = 96 / 130  # the plots have 130 points an inch, a browser's inch has 96

STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #222;
  background: #fff; max-width: 1180px; margin: 0 auto; padding: 24px }
h1 { font-size: 1.7em; line-height: 1.2; margin: 0 0 .2em }
h2 { font-size: 1.25em; margin: 2em 0 .5em; padding-bottom: .2em; border-bottom: 1px solid #ddd }
h3 { font-size: 1.05em; margin: 1.4em 0 .4em }
p, ul { max-width: 75ch }
a { color: #0060a0 }
.subtitle, figcaption, caption { color: #666; font-size: .9em }
nav { margin: 1em 0; font-size: .95em }
nav ul { list-style: none; padding: 0; margin: 0; columns: 2 18em; max-width: none }
nav li.sub { padding-left: 1.2em }
.warning { border-left: 4px solid #d55e00; background: #fdf1ea; padding: .6em .9em; margin: .8em 0;
  max-width: 85ch }
.scroll { overflow-x: auto; margin: 1em 0 }
table { border-collapse: collapse; font-size: .87em; font-variant-numeric: tabular-nums }
caption { text-align: left; padding-bottom: .4em; caption-side: top }
th, td { padding: .3em .55em; text-align: left; vertical-align: top; white-space: pre-line;
  border-bottom: 1px solid #eee }
thead th { white-space: pre-line; border-bottom: 1.5px solid #888; vertical-align: bottom }
tbody th { font-weight: 600; min-width: 11em; max-width: 20em }
td.number { text-align: right; white-space: pre }
th.number { text-align: right }
figure { display: inline-block; margin: 1em 1em 1em 0; vertical-align: top; max-width: 100% }
figure img { display: block; max-width: 100%; height: auto }
figcaption { max-width: 60ch; margin-top: .3em }
pre { background: #f5f5f5; padding: .6em .9em; overflow-x: auto; white-space: pre-wrap }
@page { size: A4 landscape; margin: 12mm }
@media print {
  body { font-size: 10pt; max-width: none; padding: 0 }
  .scroll { overflow: visible }
  table { font-size: 7.5pt }
  h2, h3 { break-after: avoid }
  figure, tr, .warning { break-inside: avoid }
}
"""


class Page:
    """A page that grows from top to bottom: call its methods in reading order, then `write`.

    A list of contents stands below the title as soon as there are three headings.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._body: list[str] = []
        self._headings: list[tuple[str, int, str]] = []

    def heading(self, text: str, level: int = 2) -> None:
        """Start a section (level 2) or a part of one (level 3)."""
        anchor = f"section-{len(self._headings) + 1}"
        self._headings.append((anchor, level, text))
        self._body.append(f'<h{level} id="{anchor}">{escape(text)}</h{level}>')

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._body.append(f"<p>{escape(text)}</p>")

    def items(self, texts: Iterable[str]) -> None:
        """Add a list with a bullet an item."""
        self._body.append("<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>")

    def code(self, text: str) -> None:
        """Add text as a terminal shows it, such as a command or an error."""
        self._body.append(f"<pre>{escape(text)}</pre>")

    def warning(self, text: str) -> None:
        """Add a box that cannot be overlooked."""
        self._body.append(f'<div class="warning" role="alert">{escape(text)}</div>')

    def table(self, frame: pd.DataFrame, caption: str = "", decimals: int = 3) -> None:
        """Add a table; the index is shown where it carries names, a line break stays one.

        Fractions are rounded to `decimals`, what is missing or nan becomes a dash.
        """
        named = not isinstance(frame.index, pd.RangeIndex)
        cells = [[cell(value, decimals) for value in row] for row in frame.to_numpy(dtype=object)]
        right = [
            bool(cells) and all(_is_figure(row[column]) for row in cells)
            for column in range(frame.shape[1])
        ]
        classes = [' class="number"' if is_right else "" for is_right in right]
        names = zip(classes, frame.columns, strict=True)
        head = "<th></th>" if named else ""
        head += "".join(f'<th scope="col"{kind}>{escape(str(name))}</th>' for kind, name in names)
        lines = []
        for label, row in zip(frame.index, cells, strict=True):
            first = f'<th scope="row">{escape(str(label))}</th>' if named else ""
            rest = zip(classes, row, strict=True)
            lines.append(first + "".join(f"<td{kind}>{escape(text)}</td>" for kind, text in rest))
        self._body.append(
            '<div class="scroll"><table>'
            + (f"<caption>{escape(caption)}</caption>" if caption else "")
            + f"<thead><tr>{head}</tr></thead><tbody>"
            + "".join(f"<tr>{line}</tr>" for line in lines)
            + "</tbody></table></div>"
        )

    def figure(self, png: Path | str | bytes, caption: str = "") -> None:
        """Add a picture from a PNG file or its bytes; the caption also serves as its description.

        Raises:
            UserError: the file does not exist.
            UserError: it is not a PNG.
        """
        content = png if isinstance(png, bytes) else Path(png).read_bytes()
        if not content.startswith(PNG_SIGNATURE):
            raise UserError(f"figure: a PNG is needed, {content[:8]!r} begins none; save it as PNG")
        width = round(struct.unpack(">I", content[16:20])[0] * SCREEN_SCALE)
        data = base64.b64encode(content).decode("ascii")
        self._body.append(
            f'<figure><img width="{width}" alt="{escape(caption)}" '
            f'src="data:image/png;base64,{data}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )

    def html(self) -> str:
        """The whole page."""
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
            "img-src data:; style-src 'unsafe-inline'\">\n"
            f"<title>{escape(self.title)}</title>\n<style>{STYLE}</style></head><body>\n"
            f"<h1>{escape(self.title)}</h1>\n"
            + (f'<p class="subtitle">{escape(self.subtitle)}</p>\n' if self.subtitle else "")
            + self._contents()
            + "\n".join(self._body)
            + "\n</body></html>\n"
        )

    def write(self, path: Path | str) -> None:
        """Write the page in one step."""
        write_text(path, self.html())

    def _contents(self) -> str:
        if len(self._headings) < 3:
            return ""
        entries = [
            f'<li{" class=sub" if level > 2 else ""}><a href="#{anchor}">{escape(text)}</a></li>'
            for anchor, level, text in self._headings
        ]
        return f'<nav aria-label="Contents"><ul>{"".join(entries)}</ul></nav>\n'


def cell(value: object, decimals: int = 3) -> str:
    """Write one value of a table in words: rounded, yes or no, a dash for what is missing."""
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


def _is_figure(text: str) -> bool:
    return text == NOTHING or text[:1].isdigit() or (text[:1] == "-" and text[1:2].isdigit())
