"""The run folder: what a training writes, and what every later command reads.

What is read is checked: its tables by their hashes in `metrics.json`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cardiomegaly import UserError
from cardiomegaly.data.tables import patient_ids
from cardiomegaly.training.files import sha256, write_csv, write_json
from cardiomegaly.training.resume import CONFIG

METRICS = "metrics.json"
PREDICTIONS = "predictions.csv"
HISTORY = "history.csv"
SPLIT = "split.csv"
REFUSAL = "refusal.npz"
MODEL_CARD = "MODEL_CARD.md"
CHECKPOINT = Path("checkpoints") / "best.ckpt"
LAST_CHECKPOINT = CHECKPOINT.with_name("last.ckpt")

PREDICTION_COLUMNS = (  # and `logit`, which older runs lack
    "image", "patient_id", "split", "target", "probability", "view_position", "sex", "age",
)  # fmt: skip
TEXT_COLUMNS: Any = dict.fromkeys(("image", "patient_id", "split", "view_position", "sex"), str)
HASHED = {  # in metrics.json's meta
    "split_sha256": SPLIT, "history_sha256": HISTORY, "predictions_sha256": PREDICTIONS,
}  # fmt: skip


class UnfinishedRunError(UserError):
    """The folder of a run that has not come to its end."""


@dataclass(frozen=True)
class Run:
    """A finished run as read from its folder.

    `metrics` is metrics.json with its parts val, test and meta (undefined figures are None);
    `predictions` has the columns of PREDICTION_COLUMNS and `logit`; `history` has a row an epoch.
    """

    folder: Path
    name: str
    config: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    predictions: pd.DataFrame
    history: pd.DataFrame

    @property
    def meta(self) -> dict[str, Any]:
        return self.metrics["meta"]

    @property
    def split_hash(self) -> str | None:
        return self.meta.get("split_hash")

    @property
    def label_file_sha256(self) -> str | None:
        return self.meta.get("label_file_sha256")

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    def part(self, split: str) -> pd.DataFrame:
        """The predictions of one part of the split ("val" or "test")."""
        return self.predictions[self.predictions["split"] == split].reset_index(drop=True)


def write_results(
    folder: Path,
    config: dict[str, Any],
    predictions: pd.DataFrame,
    metrics: dict[str, dict[str, Any]],
) -> Run:
    """Write `predictions.csv`, then `metrics.json` with its hash, which finishes the run."""
    write_csv(folder / PREDICTIONS, predictions)
    hashes = {key: sha256(folder / name) for key, name in HASHED.items()}
    metrics = metrics | {"meta": metrics["meta"] | hashes}
    write_json(folder / METRICS, metrics)
    history = _read_table(folder / HISTORY, ("epoch",))
    return Run(folder, folder.resolve().name, config, metrics, predictions, history)


def read_run(folder: Path | str) -> Run:
    """Read a finished run folder.

    Raises:
        UnfinishedRunError: the run has not come to its end.
        UserError: the folder is missing or not a run folder, or a file of it is damaged or not
            the one that the run wrote.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"run folder {folder} does not exist: give the folder of a run")
    if not (folder / CONFIG).is_file():
        runs = find_runs(folder)
        hint = f"did you mean {runs[0]}?" if runs else "give the folder that the training named"
        raise UserError(f"{folder} is not a run folder (it has no {CONFIG}): {hint}")
    for name in (METRICS, PREDICTIONS, HISTORY):
        if not (folder / name).is_file():
            raise UnfinishedRunError(
                f"the run in {folder} is unfinished (it has no {name}): "
                f"go on with it by `python -m cardiomegaly.train resume={folder}`"
            )
    metrics = _read_metrics(folder / METRICS)
    for key, name in HASHED.items():
        if key in metrics["meta"]:  # older runs have none
            check_hash(folder / name, metrics["meta"][key])
    return Run(
        folder=folder,
        name=folder.resolve().name,
        config=_read_config(folder / CONFIG),
        metrics=metrics,
        predictions=_read_predictions(folder / PREDICTIONS),
        history=_read_table(folder / HISTORY, ("epoch",)),
    )


def checkpoint_of(run: str) -> Path:
    """The best checkpoint of a run, which need not be finished: its folder, or the file itself.

    Raises:
        UserError: there is none.
    """
    given = Path(run).expanduser()
    path = given if given.is_file() else given / CHECKPOINT
    if not path.is_file():
        raise UserError(
            f"init.run={run}: must be the folder of a run or a checkpoint; there is no {path}"
        )
    return path


def check_hash(path: Path, recorded: str) -> None:
    """Refuse a file that is not the one whose hash was recorded.

    Raises:
        UserError: it is missing, or its hash is another.
    """
    if not path.is_file() or sha256(path) != recorded:
        raise UserError(
            f"{path} is missing or not the file that the run wrote (its hash is another): restore "
            "it, or train the run again"
        )


def find_runs(sweep_folder: Path | str) -> list[Path]:
    """List the run folders below a folder, finished or not, in natural order (2 before 10).

    Raises:
        UserError: the folder does not exist.
    """
    root = Path(sweep_folder)
    if not root.is_dir():
        raise UserError(f"sweep folder {root} does not exist: give the folder of a sweep")
    found = [path.parent.parent for path in root.rglob(str(CONFIG))]
    return sorted((folder for folder in found if folder != root), key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    pieces = re.split(r"(\d+)", str(path))
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in pieces]


def _read_config(path: Path) -> dict[str, Any]:
    try:
        # Unresolved: interpolations such as ${hydra:...} mean something only inside the run.
        config = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OmegaConfBaseException, yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is damaged: expected a mapping, found a list")
    for group in ("backbone", "data", "trainer"):
        if not isinstance(config.get(group), dict):
            raise UserError(f"{path} is damaged: it has no {group!r}; restore it, or train again")
    return {str(key): value for key, value in config.items()}


def _read_metrics(path: Path) -> dict[str, dict[str, Any]]:
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; train the run again") from error
    for part in ("val", "test", "meta"):
        if not isinstance(metrics, dict) or not isinstance(metrics.get(part), dict):
            raise UserError(f"{path} is damaged: it has no part '{part}'; train the run again")
    return dict(metrics)


def _read_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, dtype=TEXT_COLUMNS)
    except ValueError as error:  # pandas' own errors and a wrong encoding are ValueErrors
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    if "patient_id" in frame:
        frame["patient_id"] = patient_ids(frame["patient_id"])
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise UserError(f"{path} has no column {', '.join(missing)}; found: {list(frame.columns)}")
    return frame


def _read_predictions(path: Path) -> pd.DataFrame:
    frame = _read_table(path, PREDICTION_COLUMNS)
    probability = pd.to_numeric(frame["probability"], errors="coerce")
    if not probability.between(0.0, 1.0).all():
        raise UserError(f"{path} is damaged: probabilities must be numbers from 0 to 1")
    if "logit" in frame and not np.isfinite(pd.to_numeric(frame["logit"], errors="coerce")).all():
        raise UserError(f"{path} is damaged: logits must be finite numbers")
    if not frame["target"].isin([0, 1]).all():
        raise UserError(f"{path} is damaged: targets must be 0 or 1")
    return frame
