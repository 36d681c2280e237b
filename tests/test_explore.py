"""The page about a data set, by the command."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cardiomegaly import explore


def test_the_page(phantom_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data=nih", f"data.root={phantom_root}", f"output='{tmp_path / 'my page'}'"]
    assert explore.main(words) == 0
    told = capsys.readouterr().out
    page = (tmp_path / "my page" / "exploration.html").read_text()
    labels = pd.read_csv(phantom_root / "Data_Entry_2017.csv")
    positive = labels["Finding Labels"].str.contains("Cardiomegaly").sum()
    assert f"{positive} of {len(labels)} ({positive / len(labels):.1%}) show Cardiomegaly" in told
    assert len(told.split("\n\nreport:")[0].splitlines()) == 5
    assert f"report: {tmp_path / 'my page' / 'exploration.html'}" in told
    assert page.count("<img") == 3
    assert "http:" not in page.lower()
    assert "https:" not in page.lower()
    tables = {path.stem for path in (tmp_path / "my page").glob("*.csv")}
    assert tables == {
        "prevalence", "missing", "images", "outliers", "findings", "patients", "duplicates",
        "balance",
    }  # fmt: skip


def test_the_generated_cohort_needs_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["data.phantom.images=40", "data.phantom.size=64", "data.root=phantom"]
    assert explore.main(small) == 0
    assert (tmp_path / "outputs" / "explore" / "phantom" / "exploration.md").is_file()


def test_unreadable_and_doubled_images_are_named(
    phantom_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    labels = pd.read_csv(phantom_root / "Data_Entry_2017.csv")
    first, second = labels.groupby("Patient ID")["Image Index"].first().iloc[:2]
    labels.to_csv(root / "Data_Entry_2017.csv", index=False)
    for path in (phantom_root / "images").iterdir():
        (root / "images" / path.name).write_bytes(path.read_bytes())
    (root / "images" / first).write_bytes((phantom_root / "images" / second).read_bytes())
    third = labels["Image Index"].iloc[-1]
    (root / "images" / third).write_bytes(b"text")
    assert explore.main(["data=nih", f"data.root={root}", f"output={tmp_path / 'page'}"]) == 0
    assert "1 cannot be read" in capsys.readouterr().out
    text = (tmp_path / "page" / "exploration.md").read_text()
    assert f"{third} is not a PNG" in text.replace("\\", "")
    pairs = pd.read_csv(tmp_path / "page" / "duplicates.csv")
    assert pairs.iloc[0].tolist() == [*sorted([first, second]), 0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data=nih", "data.root=absent"], "data.root: no folder 'absent'"),
        (["data=nhi"], "did you mean 'nih'"),
        (["outptu=x"], "has no 'outptu'"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explore.main(words) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert explore.main(["--help"]) == 0
    assert "data=nih data.root=FOLDER" in capsys.readouterr().out
