"""Loads a model from what a user has: a run folder, a checkpoint, an ONNX file, a bundle."""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from pathlib import Path

from cardiomegaly import UserError
from cardiomegaly.inference import metadata
from cardiomegaly.inference.detector import Detector, Model
from cardiomegaly.model.refusal import of_bytes


def load(
    source: str | Path | Sequence[str | Path],
    *,
    device: str = "auto",
    trust: Collection[str] = (),
    flips: bool | None = None,
    threshold: float | None = None,
    refuse: bool = True,
) -> Detector:
    """Load a trained model, or several whose probabilities are averaged.

    Args:
        source: a run folder, a checkpoint, an .onnx file, a bundle; or a list of these.
        device: auto, cpu or cuda; an .onnx file is computed on the processor.
        trust: modules of the user's own whose classes a run may name.
        flips: average each image with its mirror image; None where the model was tested so.
        threshold: on the probability; None for the model's own.
        refuse: unfit images get no probability; False gives one with a warning.

    Raises:
        UserError: it cannot be read, is damaged or is none of these.
    """
    sources = [source] if isinstance(source, str | Path) else source
    models = [_load(Path(one).expanduser(), device, trust) for one in sources]
    return Detector(models, flips, threshold, refuse)


def _load(path: Path, device: str, trust: Collection[str]) -> Model:
    if path.suffix == ".onnx":
        return _load_onnx(path)
    # Networks and their libraries take seconds: an ONNX file needs none of it.
    from cardiomegaly.model.predictor import Predictor, choose_device, load_classifier
    from cardiomegaly.training.files import sha256

    target = choose_device(device)
    if (path / "config.json").is_file():
        from cardiomegaly.inference.bundle import read_bundle

        return read_bundle(path, target, trust)
    if path.is_dir():
        from cardiomegaly.training.record import MODEL_CARD, REFUSAL, read_run

        run = read_run(path)
        predictor = Predictor(load_classifier(run.checkpoint, trust), target)
        about = metadata.of_run(run, sha256(run.checkpoint))
        kept, card = path / REFUSAL, path / MODEL_CARD  # which runs of before lack
        refusal = of_bytes(kept.read_bytes(), kept) if kept.is_file() else None
        text = card.read_text(encoding="utf-8") if card.is_file() else ""
        return Model(predictor, about, refusal, text)
    if path.suffix != ".ckpt":
        raise UserError(f"model: give a run folder, a .ckpt or an .onnx file, got {path}")
    classifier = load_classifier(path, trust)
    about = metadata.of_checkpoint(path.stem, sha256(path), classifier.backbone.image_size)
    return Model(Predictor(classifier, target), about, None)


def _load_onnx(path: Path) -> Model:
    from cardiomegaly.model.onnx import OnnxPredictor

    predictor = OnnxPredictor(path)
    about = metadata.of_json(predictor.metadata.get(metadata.KEY, ""), path)
    coded = predictor.metadata.get(metadata.REFUSAL_KEY)
    refusal = of_bytes(base64.b64decode(coded), path) if coded else None
    return Model(predictor, about, refusal, predictor.metadata.get(metadata.CARD_KEY, ""))
