"""A model as one folder that `cardiomegaly.load` and Hugging Face's upload take.

It holds `model.safetensors`, `config.json`, `refusal.npz`, `reference_outputs.csv` and the card,
which is called README.md there, as Hugging Face wants it. Nothing in it can be executed.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from cardiomegaly import UserError
from cardiomegaly.inference import metadata
from cardiomegaly.inference.detector import Model
from cardiomegaly.inference.reference import write_reference
from cardiomegaly.model.predictor import Predictor, build_classifier, read_checkpoint
from cardiomegaly.model.refusal import of_bytes
from cardiomegaly.training.files import write_json, write_text
from cardiomegaly.training.record import MODEL_CARD, REFUSAL, read_run

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
SETTINGS = ("backbone", "head")  # of the hyper-parameters: what builds the network


def write_bundle(run_folder: Path, model: Model, folder: Path) -> None:
    """Write a run's model into a folder.

    Args:
        run_folder: of a finished run.
        model: as it was loaded from there.
        folder: to write into.

    Raises:
        UserError: it is no finished run, or its card is missing.
    """
    run = read_run(run_folder)
    if not model.card:
        card = run_folder / MODEL_CARD
        raise UserError(f"run: {card} is missing; a run of this version writes it, train it again")
    checkpoint = read_checkpoint(run.checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint["state_dict"].items()}
    # Not by its save_file, after which nobody else may read the file.
    (folder / WEIGHTS).write_bytes(save(tensors, {"format": "pt"}))
    settings = {key: checkpoint["hyper_parameters"][key] for key in SETTINGS}
    about = {"metadata": json.loads(model.metadata.to_json()), "hyper_parameters": settings}
    write_json(folder / CONFIG, about)
    write_text(folder / CARD, model.card)
    if model.refusal is not None:
        (folder / REFUSAL).write_bytes(model.refusal.to_bytes())
    write_reference(model, folder)


def read_bundle(folder: Path, device: torch.device, trust: Collection[str]) -> Model:
    """Read what `write_bundle` wrote; it may come from anybody.

    Raises:
        UserError: a file is missing or damaged, or names a class that is not trusted.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
        card = (folder / CARD).read_text(encoding="utf-8")
        settings, about = config["hyper_parameters"], json.dumps(config["metadata"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"model: {folder} is no readable bundle ({error})") from error
    checkpoint = {"hyper_parameters": settings, "state_dict": tensors}
    classifier = build_classifier(checkpoint, folder / WEIGHTS, trust)
    kept = folder / REFUSAL
    refusal = of_bytes(kept.read_bytes(), kept) if kept.is_file() else None
    return Model(Predictor(classifier, device), metadata.of_json(about, folder), refusal, card)
