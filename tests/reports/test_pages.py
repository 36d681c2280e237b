"""The page: everything is escaped, nothing is fetched, tables read as they were given."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cardiomegaly import UserError
from cardiomegaly.reports.pages import Page, cell
from cardiomegaly.reports.style import save_note

VOID = {"meta", "img", "br", "link", "input", "hr"}


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
        if name in ("src", "href"):
            assert value.startswith(("data:image/png;base64,", "#")), (tag, value[:60])
        assert tag not in ("script", "link", "iframe", "object")
    style = re.search(r"<style>(.*?)</style>", text, re.S)
    assert style and "url(" not in style[1] and "@import" not in style[1]
    assert "http://" not in text and "https://" not in text


def test_a_page_with_everything_stands_alone(tmp_path: Path) -> None:
    save_note("nothing", tmp_path / "plot.png")
    page = Page("Title <1>", "a & b")
    page.heading("First")
    page.text("text with <b>tags</b> & signs")
    page.items(["one", "<two>"])
    page.heading("Second")
    page.heading("Part", level=3)
    page.warning("careful: 1 < 2")
    page.code("error: <nothing>")
    page.table(pd.DataFrame({"<name>": ["<i>"]}, index=["<row>"]), "caption & more")
    page.figure(tmp_path / "plot.png", 'a "quoted" caption')
    page.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    refuse_references(text)
    for word in ("text with <b>tags</b> & signs", "<two>", "careful: 1 < 2", "<row>", "<name>"):
        assert word in Checker(text).words
    assert "<b>" not in text and "<i>" not in text
    picture = base64.b64encode((tmp_path / "plot.png").read_bytes()).decode()
    assert f"data:image/png;base64,{picture}" in text


def test_contents_lead_to_every_heading_once_there_are_three() -> None:
    page = Page("Title")
    page.heading("First")
    page.heading("Second")
    assert "<nav" not in page.html()
    page.heading("Part", level=3)
    found = Checker(page.html()).attributes
    ids = [value for _, name, value in found if name == "id"]
    links = [value for _, name, value in found if name == "href"]
    assert links == [f"#{anchor}" for anchor in ids] and len(ids) == 3


def test_cells_are_rounded_and_the_missing_is_a_dash() -> None:
    assert cell(0.12349) == "0.123" and cell(np.float32(0.5), 1) == "0.5"
    assert cell(12345) == "12345" and cell(np.int64(3)) == "3"
    assert cell(True) == "yes" and cell(np.bool_(False)) == "no"
    assert {cell(v) for v in (None, float("nan"), np.inf, pd.NA, pd.NaT)} == {"–"}  # noqa: RUF001


def test_tables_align_figures_and_show_an_index_with_names() -> None:
    frame = pd.DataFrame({"run": ["a", "b"], "value": [0.5, None], "span": ["1 (0-2)", "-3"]})
    page = Page("Title")
    page.table(frame)
    text = page.html()
    assert "<td>a</td>" in text
    assert '<td class="number">0.500</td>' in text and '<td class="number">–</td>' in text  # noqa: RUF001
    assert '<td class="number">1 (0-2)</td>' in text
    assert 'scope="row"' not in text
    page.table(frame.set_index("run"))
    assert '<th scope="row">a</th>' in page.html()
    page.table(frame.iloc[:0], "empty")
    Checker(page.html())


def test_a_picture_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plot.png").write_bytes(b"GIF89a")
    with pytest.raises(UserError, match="a PNG is needed"):
        Page("Title").figure(tmp_path / "plot.png")
    with pytest.raises(FileNotFoundError):
        Page("Title").figure(tmp_path / "absent.png")
