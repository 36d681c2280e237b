"""What a frozen network gives without a head: logistic regression on its pooled features.

Features are the mean over positions, standardised on the training images; both classes weigh the
same. C was set to 0.001 before any figure was seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cardiomegaly.data.image_folder import ImageFolder
from cardiomegaly.model.backbone import Backbone

C = 0.001


def pooled_features(backbone: Backbone, images: ImageFolder, names: Sequence[str]) -> pd.DataFrame:
    """The mean over positions of the features of each image: a row an image, by name."""
    backbone.eval()
    with torch.no_grad():
        batches = [
            backbone(torch.from_numpy(pixels)).mean((2, 3)).numpy()
            for pixels in images.batches(names, backbone.image_size)
        ]
    return pd.DataFrame(np.concatenate(batches), index=list(names))


def fit_and_predict(
    split: pd.DataFrame, predictions: pd.DataFrame, features: pd.DataFrame
) -> pd.DataFrame:
    """The table of predictions, with the logits of a regression on the training images.

    Args:
        split: columns image, split and target, as in a run's `split.csv`.
        predictions: column image, of the images to predict.
        features: of `pooled_features`.
    """
    training = split[split["split"] == "train"]
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=C, class_weight="balanced", max_iter=1000)
    )
    model.fit(features.loc[training["image"]].to_numpy(), training["target"])
    logit = model.decision_function(features.loc[predictions["image"]].to_numpy())
    return predictions.assign(logit=logit)
