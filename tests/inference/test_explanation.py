"""What a picture says of its maps: what they are, and whether they are worth showing."""

from __future__ import annotations

import numpy as np
import pytest

from cardiomegaly.inference import metadata
from cardiomegaly.inference.detector import Detector, Model
from cardiomegaly.inference.explanation import Explanation, MapScore, Row, describe
from cardiomegaly.model.predictor import Predictor
from tests.model.test_saliency import IMAGES, classifier

PIXELS = IMAGES[0, 0].numpy()


def texts(explanation: Explanation) -> str:
    """All that is written into the picture."""
    axes = explanation.figure().axes
    return "\n".join(one.get_xlabel() for one in axes)


@pytest.mark.filterwarnings("ignore")  # grad-cam's
def test_a_head_without_pooling_weights_gets_gradcam() -> None:
    pytest.importorskip("pytorch_grad_cam", reason="the extra explain is not installed")
    about = metadata.of_checkpoint("dense", "0", 64)
    model = Model(Predictor(classifier("DenseHead")), about, None)
    explanation = Detector([model]).explain(PIXELS)
    expected = model.predictor.predict(PIXELS[None, None]).probability[0]
    assert explanation.row.probability == pytest.approx(expected)
    assert list(explanation.maps) == ["Grad-CAM"]
    assert explanation.contribution.shape == PIXELS.shape
    assert "Grad-CAM, " in texts(explanation)


def test_a_map_worse_than_a_blind_box_says_so() -> None:
    saliency = np.eye(7, dtype=np.float32)
    good, bad = MapScore(True, 0.6, True, 0.4), MapScore(True, 0.3, True, 0.4)
    beside = MapScore(False, 0.6, True, 0.4)
    said = "worse than the mean heart box, which never saw the image"
    assert [said in describe("attention", saliency, score) for score in (good, bad, beside)] == [
        False, True, True,
    ]  # fmt: skip
    row = Row("a.png", 0.7, 0.8, 0.5, "cardiomegaly", False, "")
    explanation = Explanation(row, PIXELS, saliency, saliency, "contribution")
    explanation.scores = {"attention": good, "contribution": bad}
    assert texts(explanation).replace("\n", " ").count(said) == 1


def test_a_refused_image_has_no_maps() -> None:
    row = Row("a.png", None, None, 0.5, "", True, "inverted")
    saliency = np.eye(7, dtype=np.float32)
    explanation = Explanation(row, PIXELS, saliency, saliency, "contribution")
    assert explanation.maps == {} and texts(explanation) == "a.png: refused, inverted"
