"""What the pages say is there: paths, commands, targets, versions; the README's examples run."""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import cardiomegaly
from cardiomegaly.config import read_data
from cardiomegaly.data.labels import load_labelled_images
from tests import words

TOP = words.repository()
PAGES = [TOP / "README.md", TOP / "CONTRIBUTING.md", *sorted((TOP / "docs").glob("*.md"))]
PLACEHOLDER = re.compile(r"[A-Z]{3,}|[<>*{}$=\s]|\.\.\.|^~|^(outputs|mine|val|test)\b|^/")
FILE = re.compile(r"^[\w.-]+\.(py|yaml|md|toml|sh|cff|txt|png|csv|ipynb)$")
LEFT_BY_RUNS = {  # file names that a run or a data set has, not this project
    "metrics.json", "predictions.csv", "history.csv", "split.csv", "summary.csv", "summary.md",
    "best.yaml", "train_val_list.txt", "test_list.txt", "valid.csv", "train.csv", "mine.csv",
    "reference_outputs.csv", "explanations.csv", "explanations.html",
    "Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv", "BBox_List_2017.csv", "MODEL_CARD.md",
    ".hydra/", "checkpoints/", "plots/",
}  # fmt: skip


def pages() -> list[pytest.param]:
    return [pytest.param(page, id=page.name) for page in PAGES if page.is_file()]


def paths_named(text: str) -> set[str]:
    """Link targets, words in backticks that look like paths of this project, and listed trees."""
    links = {target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text)}
    names = {target for target in links if target and "://" not in target}
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for word in re.findall(r"`([^`\n]+)`", prose):
        looks = "/" in word.rstrip("/") or FILE.match(word) or word.endswith("/")
        if looks and not PLACEHOLDER.search(word) and word not in LEFT_BY_RUNS:
            names.add(word)
    return names


def exists(name: str, page: Path) -> bool:
    """Whether it is a path from the top, from the page, from the package, or a file's own name."""
    if any((folder / name).exists() for folder in (TOP, page.parent, TOP / "cardiomegaly")):
        return True
    return bool(FILE.match(name) or name.endswith("/")) and any(
        found for folder in ("cardiomegaly", "conf", "tests", "benchmarks", "docs")
        for found in (TOP / folder).rglob(name)
    )  # fmt: skip


@pytest.mark.parametrize("page", pages())
def test_paths_exist(page: Path) -> None:
    missing = {name for name in paths_named(page.read_text()) if not exists(name, page)}
    assert not missing


def test_readme_names_every_page() -> None:
    linked = paths_named((TOP / "README.md").read_text())
    assert {str(page.relative_to(TOP)) for page in PAGES[1:]} <= linked


def test_tree_is_there() -> None:
    page = TOP / "CONTRIBUTING.md"
    tree = page.read_text().partition("## The tree\n\n```\n")[2].partition("```")[0]
    names = [name.strip(",;") for name in tree.split()]
    named = {name for name in names if FILE.match(name) or name.endswith("/")}
    assert len(named) > 20
    assert not {name for name in named if not exists(name, page)}
    modules = {path.name for path in (TOP / "cardiomegaly").glob("[a-z]*.py")}
    assert modules <= named


def commands_in(text: str) -> list[list[str]]:
    """`python -m cardiomegaly...` in fenced blocks and in backticks, as words."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(python -m [^`\n]+)`", text)
    given = [shlex.split(line, comments=True) for line in lines if line.startswith("python -m ")]
    return [[word.replace("...", "run") for word in line[2:]] for line in given]


@pytest.mark.parametrize("page", pages())
def test_commands_are_valid(page: Path) -> None:
    text = page.read_text().partition("## Worked examples")[0]  # run by tests/test_contributing.py
    for module, *given in commands_in(text):
        file = TOP.joinpath(*module.split("."))
        name = module if file.with_suffix(".py").is_file() else f"{module}.__main__"
        command = importlib.import_module(name)
        if any(
            word.startswith(("sweep.resume=", "resume=", "-")) and word != "-m" for word in given
        ):
            continue  # needs the folder of a run, or only lists
        if module == "cardiomegaly.train":
            assert words.compose_training(given)
        elif module == "cardiomegaly.evaluate":
            of_data, others = command.words_of_data(given)
            assert words.compose_training(of_data)
            words.parse_options(name, others)
        elif hasattr(command, "Options"):
            words.parse_options(name, [word for word in given if "=" in word])


@pytest.mark.parametrize("page", [*pages(), pytest.param(TOP / ".ci" / "run", id="run")])
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text(), flags=re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), flags=re.MULTILINE)
    assert set(named) <= targets


def test_hooks_and_workflow_run_what_ci_runs() -> None:
    ci = (TOP / ".ci" / "run").read_text()
    expected = re.findall(r"^make [a-z-]+", ci, flags=re.MULTILINE)
    hooks = yaml.safe_load((TOP / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"]
    assert [hook["entry"] for hook in hooks[0]["hooks"]] == expected
    workflow = yaml.safe_load((TOP / ".github" / "workflows" / "ci.yml").read_text())
    job = workflow["jobs"]["test"]
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    oldest, newest = (11, 13)
    wanted = [f"3.{minor}" for minor in range(oldest, newest + 1)]
    assert job["strategy"]["matrix"]["python"] == wanted
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">=3.{oldest},<3.{newest + 1}"


def test_versions_agree() -> None:
    version = cardiomegaly.__version__
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((TOP / "CITATION.cff").read_text())
    assert version == project["version"] == citation["version"]
    assert f"## {version}" in (TOP / "CHANGELOG.md").read_text()
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_audit_fails_for_a_known_vulnerability_alone() -> None:
    verdict = runpy.run_path(str(TOP / ".ci" / "audit.py"))["verdict"]
    sound = '{"name": "a", "version": "1", "vulns": []}'
    weak = '{"name": "b", "version": "2", "vulns": [{"id": "X-1", "fix_versions": ["3"]}]}'
    unknown = '{"name": "c", "skip_reason": "not found"}'
    assert verdict(f'{{"dependencies": [{sound}, {unknown}]}}', "") == (
        0, "audit: 1 of 2 packages, sound",
    )  # fmt: skip
    assert verdict(f'{{"dependencies": [{sound}, {weak}]}}', "") == (1, "b 2: X-1, mended in 3")
    assert "audit skipped" in verdict(f'{{"dependencies": [{unknown}]}}', "")[1]
    assert verdict("", "trace\nConnectionError: no")[1].endswith("ConnectionError: no")


def python_block(page: Path) -> str:
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    return block


@pytest.fixture
def mine(tmp_path: Path, phantom_root: Path) -> Path:
    """A folder of PNGs, sorted as the README wants it, after its Python lines were run there."""
    for row in load_labelled_images(
        read_data("nih", {"root": str(phantom_root)})
    ).table.itertuples():
        kind = tmp_path / "mine" / ("enlarged" if row.target else "normal")
        kind.mkdir(parents=True, exist_ok=True)
        shutil.copy(row.path, kind)
    lines = python_block(TOP / "README.md")
    subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, check=True)  # noqa: S603
    return tmp_path


def test_a_folder_of_pngs_is_read(mine: Path, phantom_root: Path) -> None:
    columns = {"image": "file", "target": "heart", "patient_id": "person"}
    table = {"root": str(mine / "mine"), "columns": columns, "positive": "enlarged"}
    own = load_labelled_images(read_data("table", table)).table.set_index("image")["target"]
    given = load_labelled_images(read_data("nih", {"root": str(phantom_root)})).table.set_index(
        "image"
    )["target"]
    assert own.sort_index().tolist() == given.sort_index().tolist()


@pytest.mark.slow
def test_a_folder_of_pngs_is_trained_on(mine: Path, small: list[str]) -> None:
    (command,) = [
        line for line in commands_in((TOP / "README.md").read_text()) if "data.root=mine" in line
    ]
    shrunk = [word for word in small if not word.startswith("data")]
    subprocess.run(  # noqa: S603
        [sys.executable, "-m", *command, *shrunk, "hydra.run.dir=run"], cwd=mine, check=True
    )
    assert (mine / "run" / "metrics.json").is_file()
