"""The command on phantom cohorts, whose truth is known: what it finds, writes and refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cardiomegaly import evaluate
from cardiomegaly.config import read_data
from cardiomegaly.data.boxes import read_boxes
from cardiomegaly.data.images import decode_image
from cardiomegaly.data.phantom.cohort import generate_phantom
from cardiomegaly.data.tables import read_labels
from cardiomegaly.evaluation.localisation import blind_boxes, score_boxes
from cardiomegaly.evaluation.metrics import binary_metrics
from cardiomegaly.training.record import read_run, write_results
from tests.other_tables import rewritten
from tests.reports.test_pages import refuse_references


def run(*words: str) -> int:
    return evaluate.main(list(words))


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return found


def rows(found: dict[str, Any], table: str) -> pd.DataFrame:
    return pd.DataFrame(found["tables"][table])


def auroc(found: dict[str, Any]) -> float:
    table = rows(found, "thresholds").set_index(["rule", "metric"])
    return float(table.loc[("fixed", "auroc"), "value"])


def write(path: Path, table: pd.DataFrame) -> Path:
    table.to_csv(path, index=False)
    return path


def theirs(phantom_root: Path) -> pd.DataFrame:
    """Predictions of the phantom that are good but not perfect."""
    labels = read_labels(phantom_root / "Data_Entry_2017.csv", read_data("nih"))
    noise = np.random.default_rng(0).normal(size=len(labels))
    return pd.DataFrame(
        {"image": labels["image"], "p": 1 / (1 + np.exp(-(labels["target"] + noise)))}
    )


def labels_of(root: Path) -> str:
    return f"labels={root / 'Data_Entry_2017.csv'}"


def linked(run: Path, folder: Path, *without: str) -> Path:
    """A run folder that is like another but for some files."""
    folder.mkdir()
    for item in run.iterdir():
        if item.name not in without:
            (folder / item.name).symlink_to(item)
    return folder


@pytest.fixture(scope="module")
def evaluated(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    assert run(f"run={trained_run}", f"output={folder}") == 0
    return folder


def test_a_run_is_evaluated_with_every_part(evaluated: Path, trained_run: Path) -> None:
    found = results(evaluated)
    test = read_run(trained_run).part("test")
    expected = binary_metrics(test["target"], test["probability"])
    fixed = rows(found, "thresholds").set_index(["rule", "metric"]).loc["fixed"]["value"]
    for name in ("auroc", "average_precision", "brier", "accuracy", "f1_weighted"):
        assert fixed[name] == pytest.approx(expected[name])
    assert found["n"] == len(test) and found["fitted_on"] == "the validation part"
    assert found["metadata_model_fitted_on"] == "the training part"
    assert {"calibration", "prevalence", "subgroups", "shortcuts", "localisation"} <= set(
        found["tables"]
    )
    assert found["label_audit"]["patients"] == test["patient_id"].nunique()
    methods = set(rows(found, "localisation")["method"])
    assert {"attention", "Grad-CAM", "mean box", "half-size mean box"} <= methods
    assert "held out" in set(rows(found, "localisation")["part"])


def test_the_page_needs_nothing_from_elsewhere(evaluated: Path) -> None:
    page = (evaluated / "evaluation.html").read_text()
    assert page.count("data:image/png;base64,") >= 10
    refuse_references(page)
    for title in ("Calibration", "Subgroups", "Label audit", "Localisation", "without the image"):
        assert title in page


def test_the_report_begins_with_five_sentences(
    evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whom, good, reference, distrust, looks = results(evaluated)["summary"]
    assert whom.startswith("A smoke run (at most 2 epochs): mobilenetv1 (random weights, all of")
    figures = rows(results(evaluated), "thresholds").set_index(["rule", "metric"])
    auroc = figures.loc[("fixed", "auroc")]
    interval = f"{auroc['value']:.3f} ({auroc['low']:.3f} to {auroc['high']:.3f})"
    assert f"its AUROC is {interval}" in good
    assert "sees no image" in reference and "labels" in distrust and "smoke run" in distrust
    table = rows(results(evaluated), "localisation")
    table = table[(table["part"] == "held out") & (table["metric"] == "pointing")]
    pointing = table.set_index("method").loc["attention", "value"]
    assert looks.startswith("The highest point of its attention map") and f"{pointing:.0%}" in looks
    markdown = (evaluated / "evaluation.md").read_text()
    assert markdown.split("## ")[0].count("\n- ") == 5


def test_the_markdown_names_pictures_that_are_there(evaluated: Path) -> None:
    names = re.findall(r"^!\[.*\]\((.*)\)$", (evaluated / "evaluation.md").read_text(), re.M)
    assert len(names) >= 10 and all((evaluated / name).is_file() for name in names)


def test_tables_are_written_as_csv(evaluated: Path) -> None:
    table = pd.read_csv(evaluated / "thresholds.csv")
    assert list(table.columns) == ["rule", "threshold", "metric", "value", "low", "high"]
    assert len(pd.read_csv(evaluated / "localisation_images.csv")) > 4


def test_flips_and_several_runs_are_averaged_and_compared(
    trained_run: Path, tmp_path: Path
) -> None:
    other = linked(trained_run, tmp_path / "other")
    words = (f"run=[{trained_run},{other}]", "flip=true", "gradcam=false", f"output={tmp_path}/out")
    assert run(*words) == 0
    found = results(tmp_path / "out")
    assert found["name"] == "mean of 2 runs with flips"
    table = rows(found, "comparison")
    pairs = set(zip(table["first"], table["second"], strict=True))
    assert pairs == {(found["name"], "run"), (found["name"], "other"), ("run", "other")}
    same = table[(table["first"] == "run") & (table["metric"] == "auroc")].iloc[0]
    assert same["difference"] == 0 and same["p"] == 1
    methods = set(rows(found, "localisation")["method"])
    assert "attention, run" in methods and not any("Grad-CAM" in name for name in methods)


def test_anybodys_predictions_are_cross_fitted(phantom_root: Path, tmp_path: Path) -> None:
    table = theirs(phantom_root).rename(columns={"image": "Image Index"})
    table["Image Index"] = "images/" + table["Image Index"].str.removesuffix(".png")
    path = write(tmp_path / "theirs.csv", table)
    words = (labels_of(phantom_root), "image_column=Image Index", "probability_column=p")
    assert run(f"predictions={path}", *words) == 0
    found = results(tmp_path / "theirs_evaluation")
    assert "cross-fitted by patient" in found["fitted_on"]
    assert "cross-fitted by patient" in (tmp_path / "theirs_evaluation/evaluation.html").read_text()
    labels = read_labels(phantom_root / "Data_Entry_2017.csv", read_data("nih"))
    assert auroc(found) == pytest.approx(roc_auc_score(labels["target"], table["p"]))


def test_predictions_are_judged_by_the_table_of_any_set(phantom_root: Path, tmp_path: Path) -> None:
    cohort = rewritten(phantom_root, tmp_path / "chexpert", "chexpert")
    table = pd.read_csv(cohort / "train.csv", keep_default_na=False)
    table = table[table["Frontal/Lateral"] == "Frontal"]
    table = table[~table["Path"].str.contains("view9")]  # whose label is uncertain
    effusion = (table["Pleural Effusion"] == "1.0").astype(int)
    noise = np.random.default_rng(0).random(len(table))
    table = table.assign(image=table["Path"], p=(effusion + noise) / 2)[["image", "p"]]
    path = write(tmp_path / "theirs.csv", table)
    words = ("data=chexpert", f"data.root={cohort}", "data.finding=Pleural Effusion")
    assert run(f"predictions={path}", *words, "probability_column=p") == 0
    folder = tmp_path / "theirs_evaluation"
    assert auroc(results(folder)) == pytest.approx(roc_auc_score(effusion, table["p"]))
    page = (folder / "evaluation.md").read_text()
    assert f"{effusion.sum()} labelled pleural effusion" in page
    assert "cardiomegaly" not in page.partition("Where the figures")[0].lower()


def test_the_true_boxes_score_one_and_the_blind_mean_box_what_it_is(
    phantom_root: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "theirs.csv", theirs(phantom_root))
    boxes = phantom_root / "BBox_List_2017.csv"
    words = (labels_of(phantom_root), "probability_column=p", f"boxes={boxes}")
    assert run(f"predictions={path}", *words, f"given_boxes={boxes}") == 0
    table = rows(results(tmp_path / "theirs_evaluation"), "localisation")
    given = table[table["method"] == "boxes given"].set_index("metric")
    assert given["value"].to_numpy() == pytest.approx(1)
    true = read_boxes(boxes)
    true = true[true["finding"] == "Cardiomegaly"][["x", "y", "width", "height"]].to_numpy()
    expected = score_boxes(blind_boxes(true)["mean box"], true).mean()
    mean = table[table["method"] == "mean box"].set_index("metric")["value"]
    assert mean.to_dict() == pytest.approx(expected.to_dict())
    assert given.loc["iou", "lift"] == pytest.approx(1 - expected["iou"])


@pytest.mark.parametrize("heart", [False, True])
def test_a_planted_shortcut_is_found(heart: bool, tmp_path: Path) -> None:
    """A model of pixels: without a heart, all it can learn is what gives the view away."""
    root = tmp_path / "phantom"
    bias = 0.1 if heart else 1.0
    generate_phantom(root, images=300, size=64, seed=3, label_noise=0, heart=heart, view_bias=bias)
    labels = read_labels(root / "Data_Entry_2017.csv", read_data("nih"))
    pixels = [
        decode_image(root / "images" / name, 16, "stretch").ravel() / 255
        for name in labels["image"]
    ]
    tested = labels["image"].isin((root / "test_list.txt").read_text().split()).to_numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    model.fit(np.stack(pixels)[~tested], labels["target"][~tested])
    score = model.predict_proba(np.stack(pixels)[tested])[:, 1]
    path = write(tmp_path / "p.csv", pd.DataFrame({"image": labels["image"][tested], "p": score}))
    assert run(f"predictions={path}", labels_of(root), "probability_column=p") == 0
    found = results(tmp_path / "p_evaluation")
    view = rows(found, "shortcuts").set_index("source").loc["view"]
    assert auroc(found) > 0.9
    page = " ".join((tmp_path / "p_evaluation" / "evaluation.md").read_text().split())
    assert ("view in place of the heart" in page) is not heart
    assert ("view" in found["shortcuts_suspected"]) is not heart
    assert (view["residual_auroc"] > 0.9) == heart and (view["explained"] > 0.5) != heart


@pytest.mark.parametrize("kind", ["one class", "constant"])
def test_what_is_undefined_is_said(kind: str, phantom_root: Path, tmp_path: Path) -> None:
    table = theirs(phantom_root)
    if kind == "constant":
        table["p"] = 0.3
    else:
        labels = read_labels(phantom_root / "Data_Entry_2017.csv", read_data("nih"))
        table = table[(labels["target"] == 0).to_numpy()]
    path = write(tmp_path / "theirs.csv", table)
    assert run(f"predictions={path}", labels_of(phantom_root), "probability_column=p") == 0
    found = results(tmp_path / "theirs_evaluation")
    page = (tmp_path / "theirs_evaluation" / "evaluation.html").read_text()
    if kind == "one class":
        assert np.isnan(auroc(found)) and "undefined" in page
        assert "two patients with a positive image" in found["undefined"]["threshold Youden"]
        assert "Undefined: shortcuts." in page
    else:
        assert auroc(found) == 0.5
        assert found["tables"]["calibration"][0]["slope"] is None


def spoil(table: pd.DataFrame, what: str) -> pd.DataFrame:
    if what == "twice":
        return pd.concat([table, table.iloc[:2]])
    if what == "column":
        return table.rename(columns={"p": "score"})
    if what == "unknown":
        return table.assign(image=table["image"].replace(table["image"].iloc[3], "x_000.png"))
    if what == "none":
        return table.iloc[:0]
    table["p"] = table["p"].astype(object)
    table.iloc[1, 1] = {"outside": 1.5, "nan": np.nan, "word": "high"}[what]
    return table


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("twice", "predictions: each image may stand once, 2 rows repeat one"),
        ("column", "has no column 'p'; say probability_column=NAME, one of image, score"),
        ("unknown", "1 of 90 images of"),
        ("none", "has a header but no rows"),
        ("outside", "line 3: p must be a number from 0 to 1, got '1.5' (1 such rows)"),
        ("nan", "line 3: p must be a number from 0 to 1, got ''"),
        ("word", "line 3: p must be a number from 0 to 1, got 'high'"),
    ],
)
def test_bad_predictions_are_one_clear_line(
    what: str, message: str, phantom_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "theirs.csv", spoil(theirs(phantom_root), what))
    assert run(f"predictions={path}", labels_of(phantom_root), "probability_column=p") == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "run or predictions: one of the two is needed"),
        (["run=a", "predictions=b"], "run or predictions: one of the two is needed"),
        (["run=nowhere"], "run folder nowhere does not exist"),
        (["run=[a,b]"], "output: several runs need a folder"),
        (["run=[]"], "run: at least one folder is needed"),
        (["predictions=b.csv"], "labels: predictions need NIH's label file"),
        (["predictions=b.csv", "labels=none.csv"], "labels: none.csv does not exist"),
        (["predictions=b.csv", "LABELS"], "predictions: b.csv does not exist"),
        (["predictions=b.csv", "LABELS", "flip=true"], "flip: a run is needed"),
        (["RUN", "sensitivity=90"], "sensitivity: a number from 0 to 1 is allowed, got 90"),
        (["RUN", "minimum=0"], "minimum: 1 or more positive images are needed"),
        (["RUN", "images=nowhere"], "images: the folder nowhere does not exist"),
        (["RUN", "boxes=none.csv"], "box list none.csv does not exist"),
        (["RUN", "device=gpu"], "device: must be auto, cpu or cuda, got 'gpu'"),
        (["RUN", "fraction=2"], "fraction: a number over 0 and up to 1 is allowed, got 2"),
        (["run=[RUN,RUN]", "output=x"], "run: each run may be given once"),
    ],
)
def test_mistakes_are_one_clear_line(
    words: list[str],
    message: str,
    trained_run: Path,
    phantom_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [word.replace("RUN", str(trained_run)) for word in words]
    given = [word if word != str(trained_run) else f"run={word}" for word in given]
    given = [labels_of(phantom_root) if word == "LABELS" else word for word in given]
    assert evaluate.main(given) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_runs_of_different_test_images_are_refused(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = linked(trained_run, tmp_path / "other", "predictions.csv", "metrics.json")
    record = read_run(trained_run)
    table = record.predictions
    fewer = table.drop(index=table.index[table["split"] == "test"][:1])
    write_results(other, record.config, fewer, record.metrics)
    assert run(f"run=[{trained_run},{other}]", f"output={tmp_path / 'out'}") == 2
    assert "were tested on different images (1 stand in one" in capsys.readouterr().err


def test_a_run_whose_data_are_gone_is_evaluated_as_far_as_it_goes(
    trained_run: Path, tmp_path: Path
) -> None:
    moved = linked(trained_run, tmp_path / "moved", "metrics.json")
    metrics = json.loads((trained_run / "metrics.json").read_text())
    metrics["meta"] |= {"data_root": str(tmp_path / "gone"), "label_file_sha256": "0"}
    (moved / "metrics.json").write_text(json.dumps(metrics))
    assert run(f"run={moved}") == 0
    found = results(moved / "evaluation")
    assert "label file is not at hand" in found["warnings"][1]
    assert "label audit" in found["undefined"] and "no list of boxes" in found["notes"][0]
    assert {"view", "sex", "age"} == set(rows(found, "subgroups")["dimension"])
    labels = read_run(trained_run).meta
    given = f"labels={Path(labels['data_root']) / labels['label_file']}"
    assert run(f"run={moved}", given, f"output={tmp_path / 'again'}") == 0
    assert "is not the label file" in results(tmp_path / "again")["warnings"][1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("predictions.csv", "image,patient_id", "is missing or not the file that the run wrote"),
        ("split.csv", "image,patient_id", "is missing or not the file that the run wrote"),
        ("metrics.json", '{"val": ', "metrics.json is damaged"),
        ("history.csv", "", "is missing or not the file that the run wrote"),
    ],
)
def test_damaged_records_are_one_line_that_names_the_file(
    name: str,
    content: str,
    message: str,
    trained_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = linked(trained_run, tmp_path / "run", name)
    (broken / name).write_text(content)
    assert run(f"run={broken}") == 2
    error = capsys.readouterr().err
    assert message in error and str(broken / name) in error and error.count("\n") == 1


def test_without_a_checkpoint_the_figures_are_still_reported(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = linked(trained_run, tmp_path / "run", "checkpoints")
    assert run(f"run={broken}") == 0
    assert capsys.readouterr().out.count(str(broken / "checkpoints")) == 1
    found = results(broken / "evaluation")
    assert "thresholds" in found["tables"] and "localisation" not in found["tables"]
