"""Several models, or an image and its mirror image, averaged into one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.special import expit

from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.evaluation.comparison import common_images
from cardiomegaly.model.prediction import mean_logit, predict_views
from cardiomegaly.training.record import Run


def average(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Average the probabilities of models on the same images; the logit is that of the mean.

    Raises:
        UserError: the models were not tested on the same images.
    """
    aligned = list(common_images(tables).values())
    if all("logit" in table for table in aligned):
        logit = mean_logit(np.stack([table["logit"] for table in aligned]))
        return aligned[0].assign(probability=expit(logit), logit=logit)
    mean = np.mean([table["probability"] for table in aligned], axis=0)
    return aligned[0].drop(columns="logit", errors="ignore").assign(probability=mean)


def average_flips(run: Run, folder: ImageFolder, device: str) -> pd.DataFrame:
    """Predict a run's images anew, each together with its mirror image, on auto, cpu or cuda."""
    # Networks and their libraries take seconds and most of a GiB: only where they are needed.
    from cardiomegaly.model.predictor import Predictor, choose_device

    predictor = Predictor.from_checkpoint(run.checkpoint, choose_device(device))
    batches = folder.batches(run.predictions["image"].tolist(), predictor.image_size)
    logit = np.concatenate([predict_views(predictor, batch, True).logits for batch in batches])
    return run.predictions.assign(probability=expit(logit), logit=logit)
