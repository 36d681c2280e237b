"""The one way in which a trained model is used: pixels in; logit, probability and attention out.

The test of a run, flips, localisation, prediction, explanation and the page all come through
here, on the device that was asked for.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cardiomegaly import UserError
from cardiomegaly.config import BackboneConfig
from cardiomegaly.model.building import check_trusted
from cardiomegaly.model.classifier import CardiomegalyClassifier
from cardiomegaly.model.prediction import Prediction, join, predict_views
from cardiomegaly.model.saliency import gradcam_maps
from cardiomegaly.model.weights import check_fit

PREFIX = "classifier."  # of the network's tensors in a checkpoint


class Predictor:
    """A trained classifier, ready to be used.

    Args:
        classifier: with its weights; it is moved to the device and put into eval mode.
        device: to compute on.
        precision: Lightning's word for it, such as `32-true` or `bf16-mixed`.
    """

    def __init__(
        self,
        classifier: CardiomegalyClassifier,
        device: torch.device | str = "cpu",
        precision: str = "32-true",
    ) -> None:
        self.device = torch.device(device)
        self.precision = precision
        self.classifier = classifier.to(self.device).to(memory_format=torch.channels_last).eval()
        self.image_size = classifier.backbone.image_size
        self.head: Any = classifier.head
        explained = hasattr(self.head, "contribution")
        self.contribution_name = "contribution" if explained else "Grad-CAM"

    @classmethod
    def from_checkpoint(
        cls,
        path: Path | str,
        device: torch.device | str = "cpu",
        precision: str = "32-true",
        trust: Collection[str] = (),
    ) -> Predictor:
        """Load the model of a checkpoint; see `load_classifier`."""
        return cls(load_classifier(path, trust), device, precision)

    def predict(
        self, images: torch.Tensor | NDArray[np.uint8] | Mapping[str, torch.Tensor]
    ) -> Prediction:
        """Predict images (B, 1 or 3, H, W), `uint8` or float in [0, 1], or a batch of a loader."""
        batch = images if isinstance(images, Mapping) else {"image": torch.as_tensor(images)}
        inputs = {key: batch[key].to(self.device) for key in ("image", "features") if key in batch}
        with torch.inference_mode(), autocast(self.device, self.precision):
            features = self.classifier.features(inputs)
            output = self.classifier.head(features)
        attention = output.attention
        if attention is not None:
            attention = self.classifier.backbone.whole(attention)
        return Prediction(
            output.logits.double().cpu().numpy(),
            None if attention is None else attention[:, 0].float().cpu().numpy(),
            features.float().mean(dim=(2, 3)).cpu().numpy(),
        )

    def predict_batches(
        self, batches: Iterable[Mapping[str, torch.Tensor]], flips: bool = False
    ) -> Prediction:
        """Predict the images of every batch of a loader, as one; see `prediction.predict_views`."""
        return join([predict_views(self, batch["image"].numpy(), flips) for batch in batches])

    def contribution(self, images: torch.Tensor | NDArray[np.uint8]) -> NDArray[np.float32]:
        """What each position of images (B, 1, H, W) adds to the logit (B, h, w).

        Grad-CAM (B, H, W) where the head cannot say so.
        """
        if not hasattr(self.head, "contribution"):
            return self.gradcam(images)
        batch = {"image": torch.as_tensor(images).to(self.device)}
        with torch.inference_mode(), autocast(self.device, self.precision):
            features = self.classifier.features(batch)
            contribution = self.classifier.backbone.whole(self.head.contribution(features))
        return contribution.float().cpu().numpy()

    def gradcam(self, images: torch.Tensor | NDArray[np.uint8]) -> NDArray[np.float32]:
        """Grad-CAM (B, H, W) from 0 to 1 of images (B, 1, H, W); see `saliency.gradcam_maps`."""
        return gradcam_maps(self.classifier, torch.as_tensor(images).to(self.device))


def load_classifier(path: Path | str, trust: Collection[str] = ()) -> CardiomegalyClassifier:
    """The network of a checkpoint, in eval mode on the CPU.

    Args:
        path: of a checkpoint, which may come from anybody: nothing in it is run.
        trust: modules of the user's own whose classes it may name; see `config.is_trusted`.

    Raises:
        UserError: as `read_checkpoint`; or not a checkpoint of this program, or one with a class
            that is not trusted.
    """
    return build_classifier(read_checkpoint(path), path, trust)


def build_classifier(
    checkpoint: Mapping[str, Any], path: Path | str, trust: Collection[str] = ()
) -> CardiomegalyClassifier:
    """The network that a checkpoint's `hyper_parameters` and `state_dict` describe.

    Args:
        checkpoint: as read, not yet believed.
        path: where it was read, for messages.
        trust: as in `load_classifier`.

    Raises:
        UserError: as `load_classifier`.
    """
    try:
        settings = checkpoint["hyper_parameters"]
        state = checkpoint["state_dict"].items()  # a loss may have tensors too
        tensors = {key.removeprefix(PREFIX): t for key, t in state if not key.startswith("loss.")}
        if not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
            raise TypeError("its state_dict holds more than tensors")
        check_trusted(settings["head"], "head", trust)
        backbone = BackboneConfig(**settings["backbone"])
        if backbone._target_ is not None:
            check_trusted(settings["backbone"], "backbone", trust)
        classifier = CardiomegalyClassifier(backbone, settings["head"])
    except UserError as mistake:
        raise UserError(f"{path}: {mistake}") from mistake
    except Exception as error:  # whatever a damaged or hostile file makes torch and timm say
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path} is not a readable checkpoint of this program ({reason})"
        ) from error
    own = classifier.state_dict()
    check_fit(Path(path), tensors, own)
    classifier.load_state_dict(own | tensors)
    return classifier.eval()


def load_parts(
    classifier: CardiomegalyClassifier, path: Path | str, parts: Collection[str]
) -> None:
    """Load the weights of some parts, of `backbone` and `head`, from a checkpoint of another run.

    Raises:
        UserError: as `read_checkpoint`, or they are of another network.
    """
    state = read_checkpoint(path).get("state_dict", {})
    for part in parts:
        module, prefix = classifier.get_submodule(part), f"{PREFIX}{part}."
        tensors = {k.removeprefix(prefix): t for k, t in state.items() if k.startswith(prefix)}
        own = module.state_dict()
        try:
            check_fit(Path(path), tensors, own)
        except UserError as mistake:
            raise UserError(f"{mistake}; say {part}=... of that run, or init.parts") from mistake
        module.load_state_dict(own | tensors)


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """What a checkpoint holds, its checksums checked, which torch does not do.

    Raises:
        UserError: no such file, or it is damaged or not a checkpoint.
    """
    if not Path(path).is_file():
        raise UserError(f"checkpoint {path} does not exist; give the checkpoint of a run")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} does not have its checksum")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes zipfile and torch say
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path} is not a readable checkpoint of this program ({reason})"
        ) from error


def choose_device(name: str) -> torch.device:
    """The device called `auto` (a CUDA device where there is one), `cpu` or `cuda`.

    Raises:
        UserError: another name, or there is no CUDA device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"device: must be auto, cpu or cuda, got {name!r}")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("device: cuda is asked for but torch finds no CUDA device; use device=cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision as Lightning switches it on."""
    dtype = torch.float16 if precision.startswith("16") else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled="mixed" in precision)
