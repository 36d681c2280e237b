"""Explanations of many images: a picture each, a contact sheet, a table and a page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from cardiomegaly import UserError
from cardiomegaly.data.boxes import NUMBERS, read_boxes
from cardiomegaly.evaluation.localisation import blind_boxes, score_boxes, score_maps
from cardiomegaly.inference.detector import Detector
from cardiomegaly.inference.explanation import Explanation, MapScore, draw
from cardiomegaly.inference.metadata import HEART, NOT_CLINICAL
from cardiomegaly.reports.pages import Report, write_report

BLIND = "mean heart box"  # of other images: it never saw this one
DPI = 130
WHOLE = 1.0  # fraction of a map for its box, which is not judged here
SHEET = 24  # images on the contact sheet and on the page: more than anybody looks at


class HeartBoxes:
    """Hearts of NIH's box list, and how a box does that never saw the image.

    Args:
        path: a list like NIH's `BBox_List_2017.csv`, with at least two hearts.
    """

    def __init__(self, path: Path) -> None:
        table = read_boxes(path)
        table = table[table["finding"].str.lower() == HEART].drop_duplicates("image")
        self.boxes = table[NUMBERS].to_numpy(np.float64)
        self.rows = {image: row for row, image in enumerate(table["image"])}
        self.blind = score_boxes(blind_boxes(self.boxes)["mean box"], self.boxes)

    def judge(self, explanation: Explanation) -> None:
        """Set the box of an explanation and the scores of its maps, where the list has one."""
        row = self.rows.get(Path(explanation.row.image).name)
        if row is None:
            return
        explanation.box = self.boxes[row]
        for name, saliency in explanation.maps.items():
            score = score_maps([saliency], self.boxes[row : row + 1], WHOLE).iloc[0]
            explanation.scores[name] = MapScore(
                bool(score["pointing"]),
                float(score["energy"]),
                bool(self.blind["pointing"].iloc[row]),
                float(self.blind["energy"].iloc[row]),
            )


def write_gallery(
    detector: Detector, files: Iterable[str], boxes: HeartBoxes | None, folder: Path
) -> Report:
    """Explain files into a folder: `NUMBER_NAME.png` each, `sheet.png`, `explanations.csv` and
    `explanations.html`. An image that cannot be read is a row of the table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept: list[Explanation] = []
    rows, pictures = [], []
    for number, file in enumerate(files):
        try:
            explanation = detector.explain(file)
        except UserError as mistake:
            rows.append({"image": file, "reason": str(mistake)})
            continue
        if boxes is not None:
            boxes.judge(explanation)
        name = f"{number:04}_{Path(file).stem}.png"
        explanation.figure().savefig(folder / name, dpi=DPI)
        rows.append(explanation.row._asdict() | _columns(explanation))
        if len(kept) < SHEET:
            kept.append(explanation)
            pictures.append((explanation.title, name))
    if kept:
        draw(kept).savefig(folder / "sheet.png", dpi=DPI)
    table = pd.DataFrame(rows)
    table.to_csv(folder / "explanations.csv", index=False)
    values = {
        "pictures": pictures, "table": summary(table).to_dict("records"),
        "images": len(table), "drawn": len(pictures), "notice": NOT_CLINICAL,
        "models": [model.metadata for model in detector.models],
    }  # fmt: skip
    page = folder / "explanations.md"
    return write_report("explanations.md", page, page.with_suffix(".html"), values)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Each map, and the mean heart box, on the images with a heart box."""
    rows = []
    for column in table.filter(like=" energy").columns:
        name = column.removesuffix(" energy")
        judged = table[table[column].notna()]
        row = {
            "map": name, "images": len(judged), "energy": judged[column].mean(),
            "pointing": judged[f"{name} pointing"].astype(float).mean(),
        }  # fmt: skip
        if f"{name} worse" in judged:
            row["worse"] = judged[f"{name} worse"].astype(float).mean()
        rows.append(row)
    return pd.DataFrame(rows)


def _columns(explanation: Explanation) -> dict[str, float | bool]:
    columns: dict[str, float | bool] = {}
    for name, score in explanation.scores.items():
        columns |= {f"{name} pointing": score.pointing, f"{name} energy": score.energy}
        columns |= {f"{name} worse": score.worse, f"{BLIND} pointing": score.blind_pointing}
        columns[f"{BLIND} energy"] = score.blind_energy
    return columns
