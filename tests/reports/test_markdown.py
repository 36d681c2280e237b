"""Values and tables as Markdown: rounded, aligned, escaped."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cardiomegaly.reports.markdown import cell, column, escape_markdown, to_table, with_interval

DASH = "–"  # noqa: RUF001


def test_cells_are_rounded_and_the_missing_is_a_dash() -> None:
    assert cell(0.12349) == "0.123" and cell(np.float32(0.5), ".1f") == "0.5"
    assert cell(12345) == "12345" and cell(np.int64(3)) == "3"
    assert cell(True) == "yes" and cell(np.bool_(False)) == "no"
    assert {cell(v) for v in (None, float("nan"), np.inf, pd.NA, pd.NaT)} == {DASH}


def test_tables_align_figures_and_show_an_index_with_names() -> None:
    frame = pd.DataFrame({"run": ["a", "b"], "value": [0.5, None], "span": ["1 (0-2)", "-3"]})
    assert to_table(frame).splitlines() == [
        "| run | value | span |", "| --- | ---: | ---: |", "| a | 0.500 | 1 (0-2) |",
        f"| b | {DASH} | -3 |",
    ]  # fmt: skip
    assert to_table(frame.set_index("run")).splitlines()[2] == "| a | 0.500 | 1 (0-2) |"
    assert to_table(frame.iloc[:0]).splitlines() == [
        "| run | value | span |",
        "| --- | --- | --- |",
    ]


def test_figures_carry_their_interval() -> None:
    assert with_interval(0.5, 0.4, 0.6) == "0.500 (0.400 to 0.600)"
    assert with_interval(0.5, np.nan, np.nan, ".2f") == "0.50"
    assert with_interval(np.nan, 0.1, 0.2) == "undefined"
    frame = pd.DataFrame({"f1": [0.5], "f1_low": [0.4], "f1_high": [0.6], "n": [3]})
    assert column(frame, "f1 f1_low f1_high:.1f") == ["0.5 (0.4 to 0.6)"]
    assert column(frame, "f1:.0%") == ["50%"] and column(frame, "n") == ["3"]


def test_a_table_has_the_columns_it_is_asked_for_and_the_frame_has() -> None:
    frame = pd.DataFrame({"run": ["a"], "f1": [0.5], "f1_low": [0.4], "f1_high": [0.6]})
    columns = {"F1": "f1 f1_low f1_high", "AUROC": "auroc", "PPV": "ppv ppv_low ppv_high"}
    assert to_table(frame, "run", columns).splitlines() == [
        "|  | F1 |",
        "| --- | ---: |",
        "| a | 0.500 (0.400 to 0.600) |",
    ]


def test_escaping_is_undone_by_a_reader_of_markdown() -> None:
    assert escape_markdown("out of <memory>") == "out of \\<memory\\>"
    assert escape_markdown("two\nlines") == "two lines"
