"""A classifier that was exported to ONNX, run by ONNX Runtime: a start takes no torch.

The file says all that is needed: names of outputs, image size, and what `formats` put into its
metadata.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cardiomegaly import UserError
from cardiomegaly.model.prediction import Images, Prediction

NEEDED = {"logit", "probability", "pooled"}  # outputs


class OnnxPredictor:
    """An exported classifier, on the processor.

    Args:
        path: written by `python -m cardiomegaly.export`; it may come from anybody.

    Raises:
        UserError: the file cannot be read, is not such an export, or ONNX Runtime is not installed.
    """

    def __init__(self, path: Path | str) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(
                "model: an .onnx file needs ONNX Runtime; say pip install 'cardiomegaly[export]'"
            ) from error
        if not Path(path).is_file():
            raise UserError(f"model: {path} does not exist; give a run, a checkpoint or an .onnx")
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors have no common class
            raise UserError(f"{path} is not a readable ONNX file ({_first_line(error)})") from error
        (pixels, *others), outputs = self.session.get_inputs(), self.session.get_outputs()
        self.outputs = [output.name for output in outputs]
        size = pixels.shape[-1]
        if others or not set(self.outputs) >= NEEDED or not isinstance(size, int):
            raise UserError(
                f"{path} is no export of this program: it needs one input of a fixed size and the "
                f"outputs {', '.join(sorted(NEEDED))}, got {', '.join(self.outputs)}"
            )
        self.image_size: int = size
        self.contribution_name = "contribution"
        self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map

    def predict(self, images: Images) -> Prediction:
        """Predict images (B, 1, H, W) `uint8`."""
        names = [name for name in ("logit", "pooled", "attention") if name in self.outputs]
        logits, pooled, *attention = self._run(names, images)
        return Prediction(logits.astype(np.float64), attention[0] if attention else None, pooled)

    def contribution(self, images: Images) -> NDArray[np.float32]:
        """What each position of images (B, 1, H, W) adds to the logit (B, h, w).

        Raises:
            UserError: the head cannot say so; Grad-CAM needs the run itself.
        """
        if "contribution" not in self.outputs:
            raise UserError(
                "model: this ONNX file has no contribution map, since its head has none; explain "
                "the run itself"
            )
        return self._run(["contribution"], images)[0]

    def _run(self, names: list[str], images: Images) -> list[NDArray[np.float32]]:
        (pixels,) = self.session.get_inputs()
        return list(self.session.run(names, {pixels.name: np.ascontiguousarray(images)}))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
