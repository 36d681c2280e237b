"""A timm network as feature extractor: grey images in, feature maps out.

Design choices: normalisation belongs to the network, so nobody can forget it; a frozen network
runs without gradients and keeps batch norm in eval mode, whatever `train()` says, and on the
processor with its batch norms folded; weights are loaded from a file by
`model.weights`, never by timm at construction.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

import cardiomegaly.model.inceptionv3
import cardiomegaly.model.resnet152v2  # noqa: F401  (both register their network with timm)
from cardiomegaly import UserError
from cardiomegaly.config import BackboneConfig
from cardiomegaly.model.folding import fold_batch_norms

WHITE = 255.0


class Backbone(nn.Module):
    """Feature maps of a timm network, from images with their own normalisation.

    Args:
        config: which network, and which part of it is trained.

    Raises:
        UserError: timm does not know the network or an option, or `last_stage` names no module.
    """

    model: Any  # a timm network
    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.trainable = config.trainable
        self.model = _create(config)
        cfg = self.model.pretrained_cfg
        std = torch.tensor(cfg["std"])
        self.register_buffer("scale", (1 / (WHITE * std)).view(1, -1, 1, 1), persistent=False)
        shift = -torch.tensor(cfg["mean"]) / std
        self.register_buffer("shift", shift.view(1, -1, 1, 1), persistent=False)
        self.num_features: int = self.model.num_features
        self.trained: list[nn.Module] = []
        self._folded: tuple[object, Any] = (None, self.model)  # no submodule: not in the state
        self.image_size = config.image_size
        self.feature_size = self._measure()
        self.trained = self._choose_trained(config.last_stage)
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        for module in self.trained:
            module.requires_grad_(True)
        self.train()  # Lightning trains every module in the mode in which it finds it

    def normalise(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 1 or 3, H, W), `uint8` or float in [0, 1] -> (B, 3, H, W) as the network was trained.

        Raises:
            UserError: another shape.
        """
        if image.ndim != 4 or image.shape[1] not in (1, 3):
            raise UserError(
                f"image: must be (batch, 1 or 3, height, width), got {tuple(image.shape)}"
            )
        pixels = image.float() if image.dtype == torch.uint8 else image * WHITE
        normalised = torch.addcmul(self.shift, pixels, self.scale)
        return normalised.contiguous(memory_format=torch.channels_last)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 1 or 3, H, W) -> features (B, C, h, w)."""
        if self.trained:
            return self.model.forward_features(self.normalise(image))
        with torch.no_grad():
            as_it_is = image.device.type != "cpu" or torch.compiler.is_compiling()
            network = self.model if as_it_is else self._folded_network()
            return network.forward_features(self.normalise(image))

    def train(self, mode: bool = True) -> Backbone:
        """Switch the trained part; what is frozen stays in eval mode."""
        super().train(mode)
        self.model.eval()
        for module in self.trained:
            module.train(mode)
        return self

    def frozen_modules(self) -> set[nn.Module]:
        """The modules that stay in eval mode."""
        trained = {part for module in self.trained for part in module.modules()}
        return set(self.model.modules()) - trained

    def _folded_network(self) -> Any:
        """The frozen network without the batch norms that its convolutions can hold.

        Made when first asked for and again when the weights have changed or moved.
        """
        tensors = (*self.model.parameters(), *self.model.buffers())
        state = [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]
        if self._folded[0] != state:
            with torch.inference_mode(False):
                folded = fold_batch_norms(self.model, self.normalise(self._probe()))
            self._folded = (state, folded)
        return self._folded[1]

    def _choose_trained(self, last_stage: list[str]) -> list[nn.Module]:
        if self.trainable == "none":
            return []
        if self.trainable == "all":
            return [self.model]
        modules = dict(self.model.named_modules())
        unknown = [name for name in last_stage if name not in modules]
        if unknown or not last_stage:
            raise UserError(
                f"backbone.last_stage: names modules of the network, such as "
                f"{', '.join(name for name, _ in self.model.named_children())}; got {last_stage}"
            )
        return [modules[name] for name in last_stage]

    @torch.no_grad()
    def _measure(self) -> tuple[int, int]:
        """Height and width of the feature maps."""
        self.model.eval()
        features = self.model.forward_features(self.normalise(self._probe()))
        return features.shape[2], features.shape[3]

    def _probe(self) -> torch.Tensor:
        """An image of noise (1, 1, H, W), always the same."""
        size = (1, 1, self.image_size, self.image_size)
        return torch.rand(size, generator=torch.Generator().manual_seed(0))


def _create(config: BackboneConfig) -> nn.Module:
    try:
        return timm.create_model(
            config.model, pretrained=False, num_classes=0, global_pool="", **(config.options or {})
        )
    except RuntimeError as error:  # timm's "Unknown model" and "Invalid pretrained tag"
        raise UserError(
            f"backbone.model: timm does not know {config.model!r} ({error}); "
            "timm.list_models() names what it knows"
        ) from error
    except TypeError as error:
        raise UserError(
            f"backbone.options: {config.model} does not take {config.options} ({error})"
        ) from error
