"""A timm network as feature extractor: grey images in, feature maps out.

Any network serves that gives maps: as (B, C, h, w), as (B, h, w, C) where timm says so
(`output_fmt`), or as tokens that its `forward_intermediates` makes a map of.

Design choices: normalisation belongs to the network, so nobody can forget it; a frozen network
runs without gradients and keeps batch norm in eval mode, whatever `train()` says, and on the
processor with its batch norms folded; weights are loaded from a file by
`model.weights`, never by timm at construction.
"""

from __future__ import annotations

import inspect
from typing import Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn
from torch.nn import functional

import cardiomegaly.model.inceptionv3
import cardiomegaly.model.resnet152v2  # noqa: F401  (both register their network with timm)
from cardiomegaly import UserError
from cardiomegaly.config import BackboneConfig
from cardiomegaly.model.building import TARGET, build
from cardiomegaly.model.folding import fold_batch_norms
from cardiomegaly.model.weights import near_models

WHITE = 255.0
TOKENS = "tokens"


class Backbone(nn.Module):
    """Feature maps of a timm network, from images with their own normalisation.

    Args:
        config: which network, and which part of it is trained.

    Raises:
        UserError: timm does not know the network or an option, it gives no feature maps of this
            image size, or `last_stage` names no module.
    """

    model: Any  # a timm network, or the user's own
    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.trainable = config.trainable
        self.model = _create(config)
        cfg = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}
        cfg |= getattr(self.model, "pretrained_cfg", {})
        std = torch.tensor(cfg["std"])
        self.register_buffer("scale", (1 / (WHITE * std)).view(1, -1, 1, 1), persistent=False)
        shift = -torch.tensor(cfg["mean"]) / std
        self.register_buffer("shift", shift.view(1, -1, 1, 1), persistent=False)
        self.trained: list[nn.Module] = []
        self.resting = False
        self._folded: tuple[object, Any] = (None, self.model)  # no submodule: not in the state
        self.image_size = config.image_size
        self.region = config.region
        self.window = _window(config)
        self._layout = "NCHW"  # of what the network's forward_features gives, or TOKENS
        self.num_features, height, width = self._measure(config.model)
        self.feature_size = height, width
        self._margins = self._measure_margins()
        self.trained = self._choose_trained(config.last_stage)
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        for module in self.trained:
            module.requires_grad_(True)
        self.train()  # Lightning trains every module in the mode in which it finds it

    def crop(self, image: torch.Tensor) -> torch.Tensor:
        """The region of images (B, C, H, W) that the network looks at: all of them without one."""
        top, left, bottom, right = self.window
        return image if self.region is None else image[:, :, top:bottom, left:right]

    def whole(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (..., h, w) of the region as maps of the whole image, 0 outside of the region."""
        return functional.pad(maps, self._margins) if any(self._margins) else maps

    def normalise(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 1 or 3, H, W), `uint8` or float in [0, 1] -> (B, 3, h, w), the region as it is taken.

        Raises:
            UserError: another shape.
        """
        if image.ndim != 4 or image.shape[1] not in (1, 3):
            raise UserError(
                f"image: must be (batch, 1 or 3, height, width), got {tuple(image.shape)}"
            )
        image = self.crop(image)
        pixels = image.float() if image.dtype == torch.uint8 else image * WHITE
        normalised = torch.addcmul(self.shift, pixels, self.scale)
        return normalised.contiguous(memory_format=torch.channels_last)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 1 or 3, H, W) -> features (B, C, h, w)."""
        if self.trained and not self.resting:
            return self.feature_maps(self.model, image)
        with torch.no_grad():
            as_it_is = image.device.type != "cpu" or torch.compiler.is_compiling()
            unfolded = as_it_is or self._layout == TOKENS
            return self.feature_maps(self.model if unfolded else self._folded_network(), image)

    def feature_maps(self, network: Any, image: torch.Tensor) -> torch.Tensor:
        """(B, 1 or 3, H, W) -> features (B, C, h, w) of the network, or of one like it."""
        normalised = self.normalise(image)
        if self._layout == TOKENS:
            return network.forward_intermediates(
                normalised, indices=1, norm=self._norm, intermediates_only=True
            )[0]
        features = network.forward_features(normalised)
        return features.permute(0, 3, 1, 2) if self._layout == "NHWC" else features

    def train(self, mode: bool = True) -> Backbone:
        """Switch the trained part; what is frozen stays in eval mode."""
        super().train(mode)
        self.model.eval()
        for module in self.trained if not self.resting else ():
            module.train(mode)
        return self

    def rest(self, resting: bool) -> None:
        """Hold the trained part as if it were frozen, or let it learn."""
        self.resting = resting
        for module in self.trained:
            module.requires_grad_(not resting)
        self.train(self.training)

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
        stages: Any = getattr(self.model, "feature_info", None) or []
        named = last_stage or [stages[-1]["module"] for _ in stages[:1]]
        unknown = [name for name in named if name not in modules]
        if unknown or not named:
            raise UserError(
                f"backbone.last_stage: names modules of the network, such as "
                f"{', '.join(name for name, _ in self.model.named_children())}; got {last_stage}"
            )
        return [modules[name] for name in named]

    @torch.no_grad()
    def _measure(self, name: str) -> tuple[int, int, int]:
        """Channels, height and width of the feature maps; finds out how the network gives them."""
        self.model.eval()
        try:
            features = self.model.forward_features(self.normalise(self._probe()))
            if isinstance(features, torch.Tensor) and features.ndim == 4:
                self._layout = getattr(self.model, "output_fmt", "NCHW")
                if self._layout == "NHWC":
                    features = features.permute(0, 3, 1, 2)
            else:
                self._layout = TOKENS
                taken = inspect.signature(self.model.forward_intermediates).parameters
                self._norm = "norm" in taken and hasattr(self.model, "norm")
                features = self.feature_maps(self.model, self._probe())
            _, channels, height, width = features.shape
        except Exception as error:  # whatever networks say of a size that does not suit them
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(
                f"backbone.model: {name} gives no feature maps of an image of {self.image_size} "
                f"pixels ({reason}); use another backbone.image_size, or another network"
            ) from error
        return channels, height, width

    def _measure_margins(self) -> list[int]:
        """Positions of the maps that are missing left, right, above and below of the region.

        Exact where the region's edges are multiples of the pixels that a position stands for.
        """
        top, left, bottom, right = self.window
        margins = []
        for start, end, positions in (
            (left, right, self.feature_size[1]), (top, bottom, self.feature_size[0]),
        ):  # fmt: skip
            pixels = (end - start) / positions
            margins += [round(start / pixels), round((self.image_size - end) / pixels)]
        return margins

    def _probe(self) -> torch.Tensor:
        """An image of noise (1, 1, H, W), always the same."""
        size = (1, 1, self.image_size, self.image_size)
        return torch.rand(size, generator=torch.Generator().manual_seed(0))


def _window(config: BackboneConfig) -> list[int]:
    """Upper, left, lower and right edge of what the network sees, in pixels of the image."""
    return [round(edge * config.image_size) for edge in config.region or (0.0, 0.0, 1.0, 1.0)]


def _create(config: BackboneConfig) -> nn.Module:
    """The network, with random weights; one of a fixed input size is made for this one."""
    options = dict(config.options or {})
    if config._target_ is not None:
        return build({TARGET: config._target_, **options}, "backbone", nn.Module, {})
    if not timm.is_model(config.model):  # nor "hf_hub:...", which timm would look up in the network
        raise UserError(
            f"backbone.model: timm does not know {config.model!r}; "
            f"{near_models(config.model.partition('.')[0])}timm.list_models() names what it knows"
        )
    try:
        cfg = timm.get_pretrained_cfg(config.model)
        if cfg is not None and cfg.fixed_input_size:
            top, left, bottom, right = _window(config)
            options = {"img_size": (bottom - top, right - left)} | options
        return timm.create_model(config.model, pretrained=False, num_classes=0, **options)
    except RuntimeError as error:  # timm's "Invalid pretrained tag"
        raise UserError(
            f"backbone.model: timm does not know {config.model!r} ({error}); "
            "timm.list_models() names what it knows"
        ) from error
    except TypeError as error:
        raise UserError(
            f"backbone.options: {config.model} does not take {config.options} ({error})"
        ) from error
