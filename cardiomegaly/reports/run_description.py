"""Describes runs: where their data are, who stood where, what was trained, which are smoke runs.

The figures of a smoke run show that the program works; they never stand beside published ones
without being called that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from cardiomegaly import UserError
from cardiomegaly.config import DataConfig, data_of, read_data
from cardiomegaly.data.tables import patient_ids
from cardiomegaly.training.record import SPLIT, Run

HYDRA = Path(".hydra") / "hydra.yaml"
FEW_EPOCHS = 5
TRAINED = {
    "none": "frozen backbone",
    "last_stage": "last stage of the backbone trained",
    "all": "all of the network trained",
}


def data_root(run: Run) -> Path | None:
    """The folder of a run's data if it is still there; old runs name it from where they started."""
    root = Path(run.meta.get("data_root") or "none")
    if not root.is_dir() and (run.folder / HYDRA).is_file():
        hydra: Any = OmegaConf.load(run.folder / HYDRA)
        root = Path(hydra.hydra.runtime.cwd) / root
    return root if root.is_dir() else None


def data_config(run: Run) -> DataConfig:
    """How a run read its label table; older runs recorded less, and theirs was NIH's."""
    recorded = run.config["data"]
    return data_of(recorded) if "columns" in recorded else read_data("nih")


def label_file(run: Run) -> Path | None:
    """The label file that a run was trained with, if it is still there."""
    root = data_root(run)
    path = root / str(run.meta.get("label_file")) if root else None
    return path if path and path.is_file() else None


def read_split(run: Run) -> pd.DataFrame:
    """Who stood where in a run: image, patient_id and part (train, val, test).

    Raises:
        UserError: the file is missing or damaged.
    """
    path = run.folder / SPLIT
    try:
        split = pd.read_csv(path, dtype={"image": str, "split": str, "patient_id": str})
        split["patient_id"] = patient_ids(split["patient_id"])
        return split[["image", "patient_id", "split"]].rename(columns={"split": "part"})
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is missing or damaged ({str(error).splitlines()[0]})") from error


def weights_of(run: Run) -> str:
    """Which weights a run started from: "pretrained", "random", or the name of a file or run."""
    recorded, configured = run.meta.get("weights") or {}, run.config.get("backbone") or {}
    if "backbone" in (run.meta.get("init") or {}).get("parts", ()):
        return str(recorded["name"])
    if recorded.get("name") == "none":
        return "random"
    word = str(configured.get("weights") or recorded.get("name") or "not recorded")
    return "random" if word == "none" else word.rsplit("/", 1)[-1]


def learned_by(run: Run) -> str:
    """Loss and optimiser of a run, schedule and average if it had them, by their classes."""
    used = [run.meta.get(name) for name in ("loss", "optimizer", "schedule", "averaging")]
    parts = [str(each["_target_"]).rpartition(".")[2] for each in used if each]
    if run.meta.get("attention_weight"):
        parts.append(f"attention drawn to hearts by {run.meta['attention_weight']:g}")
    if run.meta.get("region"):
        parts.append("the region of the heart alone")
    return ", ".join(parts) or "not recorded"


def kinds_of(runs: Sequence[Run]) -> str:
    """Backbones, weights and what was trained, of one run or of several."""
    kinds: dict[str, dict[str, None]] = {}
    for run in runs:
        how = TRAINED.get(str(run.meta.get("trainable")), "training not recorded")
        kinds.setdefault(f"{weights_of(run)} weights, {how}", {})[str(run.meta["backbone"])] = None
    return "; ".join(f"{', '.join(names)} ({kind})" for kind, names in kinds.items())


def smoke_reasons(*runs: Run) -> list[str]:
    """Why some of these runs show that the program works and no more; empty if none is such."""
    reasons = []
    for run in runs:
        trainer = run.config.get("trainer") or {}
        limit, epochs = trainer.get("limit_train_batches"), trainer.get("max_epochs")
        if run.meta.get("data") == "phantom":
            reasons.append("generated images, the phantom cohort")
        if weights_of(run) == "random" and run.meta.get("trainable") == "none":
            reasons.append("a frozen backbone of random weights")
        if isinstance(limit, int):
            reasons.append(f"only {limit} batches an epoch")
        elif isinstance(limit, float) and limit < 1:
            reasons.append(f"only {limit:.0%} of the batches an epoch")
        if isinstance(epochs, int) and epochs < FEW_EPOCHS:
            reasons.append(f"at most {epochs} epochs")
    return list(dict.fromkeys(reasons))
