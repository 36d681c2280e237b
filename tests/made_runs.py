"""Run folders made without a training, for the tests of what reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf
from scipy.special import expit

from cardiomegaly.evaluation.metrics import binary_metrics
from cardiomegaly.training.files import write_csv, write_json

HASH = "0123456789abcdef" * 4
OTHER_HASH = "fedcba9876543210" * 4


def make_predictions(signal: float, seed: int, patients: int = 60) -> pd.DataFrame:
    """Two images a patient; the same patients and targets for every seed and signal."""
    patient = np.repeat(np.arange(patients), 2)
    target = np.random.default_rng(0).random(len(patient)) < 0.3
    noise = np.random.default_rng(seed + 1).normal(size=len(patient))
    logit = signal * (target - 0.5) + noise
    return pd.DataFrame(
        {
            "image": [f"{p:08d}_{i % 2:03d}.png" for i, p in enumerate(patient)],
            "patient_id": patient,
            "split": np.where(patient < patients // 3, "val", "test"),
            "target": target.astype(int),
            "logit": logit,
            "probability": expit(logit),
            "view_position": np.where(patient % 3 == 0, "AP", "PA"),
            "sex": np.where(patient % 2 == 0, "M", "F"),
            "age": 20.0 + patient % 60,
        }
    )


def make_history(epochs: int, seed: int = 0) -> pd.DataFrame:
    """A plausible history: the loss falls, the AUROC rises."""
    epoch, noise = np.arange(epochs), np.random.default_rng(seed).normal(0, 0.01, (3, epochs))
    return pd.DataFrame(
        {
            "epoch": epoch,
            "train/loss": 0.35 + 0.35 * np.exp(-epoch / 4) + noise[0],
            "val/loss": 0.45 + 0.25 * np.exp(-epoch / 3) + noise[1],
            "val/auroc": 0.85 - 0.25 * np.exp(-epoch / 3) + noise[2],
        }
    )


def make_run(
    folder: Path,
    backbone: str = "mobilenetv1",
    balance: bool = True,
    seed: int = 1,
    signal: float = 2.0,
    epochs: int = 6,
    patients: int = 60,
    **meta: Any,
) -> Path:
    """Write a finished run folder; `meta` replaces or adds entries of metrics.json's meta."""
    predictions = make_predictions(signal, seed, patients)
    parts = {
        part: binary_metrics(rows["target"], rows["probability"], logit=rows["logit"])
        for part, rows in predictions.groupby("split")
    }
    known = {
        "backbone": backbone, "balance": balance, "head": "gwap", "seed": seed,
        "trainable": "none", "features": "live", "image_size": 224, "data": "nih",
        "cohort": "study", "split": "patient", "split_hash": HASH, "label_file_sha256": HASH,
        "n_train": 400, "n_val": int((predictions["split"] == "val").sum()),
        "n_test": int((predictions["split"] == "test").sum()), "parameters": 3_400_000,
        "parameters_trainable": 180_000, "epochs": epochs, "best_epoch": epochs - 1,
        "train_seconds": 83.0, "images_per_second": 61.5, "peak_memory_mb": 1200.0,
        "device": "cpu", "precision": "32-true",
        "overrides": [f"backbone={backbone}", f"balance={str(balance).lower()}", f"seed={seed}"],
    }  # fmt: skip
    write_csv(folder / "predictions.csv", predictions)
    write_csv(folder / "history.csv", make_history(epochs, seed))
    write_json(folder / "metrics.json", parts | {"meta": known | meta})
    configure(
        folder,
        {"backbone": {"name": backbone, "weights": "pretrained"}, "balance": balance, "seed": seed},
    )
    return folder


def configure(folder: Path, config: dict[str, Any]) -> None:
    """Write the configuration that makes a folder one of a run."""
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    groups: dict[str, Any] = {"backbone": {}, "data": {}, "trainer": {}}
    OmegaConf.save(OmegaConf.create(groups | config), folder / ".hydra" / "config.yaml")


LEDGER = ["job", "status", "overrides", "run_dir", "error", "started", "finished", "host"]


def make_ledger(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    """Rows of job, status, overrides, run_dir, error."""
    return pd.DataFrame([(*row, "2026-01-02T03:04", None, "host") for row in rows], columns=LEDGER)
