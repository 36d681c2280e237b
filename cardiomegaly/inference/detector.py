"""A trained model in somebody's hands: files or pixels in; a table, or maps and a figure, out.

import cardiomegaly

detector = cardiomegaly.load("outputs/train/...")  # or an .onnx file, a checkpoint, a bundle
table = detector.predict(["a.png", "b.dcm"])
explanation = detector.explain("a.png")
explanation.figure().savefig("a_explained.png")
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cardiomegaly import UserError
from cardiomegaly.inference.explanation import Explanation, Row
from cardiomegaly.inference.inputs import Loaded, Shape, Source, as_sources, load, load_batches
from cardiomegaly.inference.metadata import Metadata
from cardiomegaly.model.prediction import ImagePredictor, predict_views
from cardiomegaly.model.refusal import Refusal

if TYPE_CHECKING:
    import pandas as pd

BATCH = 32


@dataclass(frozen=True)
class Model:
    """One trained network with what it says of itself, and its card in Markdown, or none."""

    predictor: ImagePredictor
    metadata: Metadata
    refusal: Refusal | None
    card: str = ""

    @property
    def shape(self) -> Shape:
        """Of the pixels that it takes."""
        return self.metadata.image_size, self.metadata.fit


class Detector:
    """One or several models, whose probabilities are averaged.

    Args:
        models: at least one.
        flips: average each image with its mirror image; None where the model was tested so.
        threshold: on the probability; None for the models' own.
        refuse: unfit images get no probability; False gives one with a warning.
    """

    def __init__(
        self,
        models: Sequence[Model],
        flips: bool | None = None,
        threshold: float | None = None,
        refuse: bool = True,
    ) -> None:
        if not models:
            raise UserError("model: at least one is needed, got an empty list")
        if threshold is not None and not 0 < threshold < 1:
            raise UserError(f"threshold: must lie between 0 and 1, got {threshold!r}")
        findings = sorted({model.metadata.finding for model in models})
        if len(findings) > 1:
            raise UserError(f"model: all must find the same, got {' and '.join(findings)}")
        self.models = models
        self.finding = findings[0]
        self.flips = flips
        self.refuse = refuse
        own = float(np.mean([model.metadata.calibrated_threshold for model in models]))
        self.threshold = own if threshold is None else threshold

    @property
    def identity(self) -> str:
        """What decides the figures: models, flips, threshold, refusal."""
        models = [(model.metadata.sha256, model.metadata.calibration) for model in self.models]
        return repr((models, self.flips, self.threshold, self.refuse))

    def predict(self, images: Path | Source | Sequence[Path | Source]) -> pd.DataFrame:
        """A row an image, in order, with the columns of `Row`.

        Args:
            images: a file, folder or pattern, or a list of them; or grey pixels (H, W) `uint8`, or
                a list of such.

        Raises:
            UserError: there is no such file, or an array is none of grey `uint8` pixels.
        """
        import pandas as pd

        rows = [row for batch in self.predict_batches(as_sources(images)) for row in batch]
        return pd.DataFrame(rows, columns=Row._fields)

    def predict_batches(
        self, sources: Iterable[Source], batch_size: int = BATCH, workers: int = 0
    ) -> Iterator[list[Row]]:
        """The rows of each batch; as `predict`, without keeping them."""
        for batch in load_batches(sources, self._shapes, batch_size, workers):
            yield self.rows(batch)

    def rows(self, batch: Sequence[Loaded]) -> list[Row]:
        """The rows of images that were read."""
        readable = [image for image in batch if not image.reason]
        scored = self._score(readable) if readable else iter(())
        return [self._unreadable(image) if image.reason else next(scored) for image in batch]

    def explain(self, image: Path | Source) -> Explanation:
        """Probability, attention and contribution of one image.

        Raises:
            UserError: it cannot be read, or the model cannot explain it.
        """
        (loaded,) = load(as_sources(image), self._shapes)
        if loaded.reason:
            raise UserError(f"input: {loaded.reason}")
        model = self.models[0]
        pixels = loaded.pixels[model.shape]
        attention = model.predictor.predict(pixels[None, None]).attention
        return Explanation(
            row=self.rows([loaded])[0],
            pixels=pixels,
            attention=None if attention is None else attention[0],
            contribution=model.predictor.contribution(pixels[None, None])[0],
            contribution_name=model.predictor.contribution_name,
        )

    def decide(self, probability: float, threshold: float) -> str:
        """The decision in words, such as `no cardiomegaly`."""
        return self.models[0].metadata.classes[int(probability >= threshold)]

    @property
    def _shapes(self) -> list[Shape]:
        return sorted({model.shape for model in self.models})

    def _score(self, images: Sequence[Loaded]) -> Iterator[Row]:
        """Rows of images: the mean over models and flips; the first model refuses."""
        scores: list[NDArray[np.float64]] = []
        remarks: list[tuple[bool, str]] = []
        for model in self.models:
            pixels = np.stack([image.pixels[model.shape] for image in images])
            flips = model.metadata.flips if self.flips is None else self.flips
            prediction = predict_views(model.predictor, pixels[:, None], flips)
            calibrated = model.metadata.calibrate(prediction.logits)
            scores.append(np.stack([calibrated, prediction.probability], axis=1))
            if not remarks and model.refusal is not None:
                remarks = model.refusal.reasons(pixels, prediction.pooled)
        remarks = remarks or [(False, "")] * len(images)
        mean = np.mean(scores, axis=0).tolist()
        for image, (probability, raw), (unfit, remark) in zip(images, mean, remarks, strict=True):
            refused, why = unfit or bool(image.unfit), image.unfit or remark
            yield self._row(image.name, probability, raw, refused, why)

    def _row(self, name: str, probability: float, raw: float, unfit: bool, remark: str) -> Row:
        if unfit and self.refuse:
            return Row(name, None, None, self.threshold, "", True, remark)
        decision = self.decide(probability, self.threshold)
        remark = f"warning: {remark}" if unfit else remark
        return Row(name, probability, raw, self.threshold, decision, False, remark)

    def _unreadable(self, image: Loaded) -> Row:
        return Row(image.name, None, None, self.threshold, "", True, image.reason)
