"""Reports: everything is escaped, nothing is fetched, HTML and Markdown say the same."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cardiomegaly.reports.pages import to_html, write_report
from cardiomegaly.reports.plots import save_note
from cardiomegaly.reports.sweep_runs import Sweep

VOID = {"meta", "img", "br", "link", "input", "hr"}
DASH = "–"  # noqa: RUF001
NASTY = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](https://example.org)",
    "![see](https://example.org/x.png)",
    "<https://example.org>",
    "a | b \\| c",
    "*bold* `code` &lt; _x_",
    "one\n\n# two",
    "- item",
    "12. item",
)


class Checker(HTMLParser):
    """Collects attributes and text, and refuses tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def refuse_references(text: str) -> None:
    """Fail where a page names anything outside itself."""
    for tag, name, value in Checker(text).attributes:
        assert tag not in ("script", "link", "iframe", "object") and not name.startswith("on")
        if name in ("src", "href"):
            assert value.startswith(("data:image/png;base64,", "#")), (tag, value[:60])
    style = re.search(r"<style>(.*?)</style>", text, re.S)
    assert style and "url(" not in style[1] and "@import" not in style[1]


def write_sweep(folder: Path, **values: Any) -> tuple[str, str]:
    """A report from the sweep's template with one table; its HTML and its Markdown."""
    frame = pd.DataFrame({"MobileNetV1": ["0.8"]}, index=["balanced"])
    jobs = pd.DataFrame({"job": ["1"], "status": ["failed"]})
    known = {
        "best": None, "differences": "D", "now": "today", "finding": "Mass", "HEART": "Mass",
        "sweep": Sweep(folder, [], [], frame, jobs), "study": frame,
    }  # fmt: skip
    write_report("sweep.md", folder / "a.md", folder / "a.html", known | values)
    return (folder / "a.html").read_text("utf-8"), (folder / "a.md").read_text("utf-8")


@pytest.mark.parametrize("nasty", NASTY)
def test_whatever_stands_in_a_run_is_text(nasty: str, tmp_path: Path) -> None:
    table = pd.DataFrame({nasty: [nasty]}, index=[nasty])
    jobs = pd.DataFrame({"job": [nasty], "message": [nasty]})
    given = {"now": nasty, "differences": nasty, "study": table}
    html, markdown = write_sweep(tmp_path, **given, sweep=Sweep(tmp_path, [], [], table, jobs))
    refuse_references(html)
    on_one_line = " ".join(nasty.split())
    # Subtitle, paragraph, three cells of one table and two of the other.
    assert "".join(Checker(html).words).count(on_one_line) == 7 and "<h1" in html
    assert len(re.findall(r"^#", markdown, re.M)) == 3
    assert not re.search(r"(?<!\\)[<\[]", markdown.replace("![", "["))


def test_pictures_travel_inside_the_page(tmp_path: Path) -> None:
    save_note("nothing", tmp_path / "plots" / "plot.png")
    html = to_html('# T\n\n![a "quoted" <caption>](plots/plot.png)\n\n## First\n', tmp_path)
    refuse_references(html)
    picture = base64.b64encode((tmp_path / "plots" / "plot.png").read_bytes()).decode()
    assert f"data:image/png;base64,{picture}" in html
    assert 'a "quoted" <caption>' in Checker(html).words
    assert ("img", "alt", 'a "quoted" <caption>') in Checker(html).attributes


def test_contents_lead_to_every_heading() -> None:
    html = to_html("# Title\n\nwords\n\n## First\n\n### Part\n\n## Second `x`\n", Path())
    found = Checker(html).attributes
    ids = [value for _, name, value in found if name == "id"]
    links = [value for _, name, value in found if name == "href"]
    assert links == [f"#{anchor}" for anchor in ids[1:]] and len(ids) == 4
    assert html.index("words") < html.index("<nav") < html.index("<h2")
    assert "<title>Title</title>" in html


def test_html_and_markdown_say_the_same(tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": [3, 4], "f1": [0.12345, np.nan]}, index=["a", "b"])
    html, markdown = write_sweep(tmp_path, study=frame)
    warning = "1 of 1 jobs are not finished; the tables show the others."
    assert f"> **Warning.** {warning}\n" in markdown
    assert f"<strong>Warning.</strong> {warning}</p>" in html
    assert f"| b | 4 | {DASH} |" in markdown and "| --- | ---: | ---: |" in markdown
    words = [word.strip() for word in Checker(html).words]
    assert words.index("a") < words.index("0.123") < words.index("b") < words.index(DASH)
