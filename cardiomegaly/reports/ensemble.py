"""Several models, or an image and its mirror image, averaged into one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, log_expit, logsumexp

from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.evaluation.comparison import common_images
from cardiomegaly.training.record import Run


def average(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Average the probabilities of models on the same images; the logit is that of the mean.

    Raises:
        UserError: the models were not tested on the same images.
    """
    aligned = list(common_images(tables).values())
    if all("logit" in table for table in aligned):
        return _with_mean(aligned[0], np.stack([table["logit"] for table in aligned]))
    mean = np.mean([table["probability"] for table in aligned], axis=0)
    return aligned[0].drop(columns="logit", errors="ignore").assign(probability=mean)


def average_flips(run: Run, folder: ImageFolder, device: str) -> pd.DataFrame:
    """Predict a run's images anew, each together with its mirror image, on auto, cpu or cuda."""
    # Networks and their libraries take seconds and most of a GiB: only where they are needed.
    from cardiomegaly.model.predictor import Predictor, choose_device

    predictor, logits = Predictor.from_checkpoint(run.checkpoint, choose_device(device)), []
    for pixels in folder.batches(run.predictions["image"].tolist(), predictor.image_size):
        pair = [predictor.predict(view.copy()).logits for view in (pixels, pixels[..., ::-1])]
        logits.append(np.stack(pair))
    return _with_mean(run.predictions, np.concatenate(logits, axis=1))


def _with_mean(table: pd.DataFrame, logits: NDArray[np.float64]) -> pd.DataFrame:
    """Set the mean of the probabilities of logits (models, n), and its logit without rounding."""
    logit = logsumexp(log_expit(logits), axis=0) - logsumexp(log_expit(-logits), axis=0)
    return table.assign(probability=expit(logit), logit=logit)
