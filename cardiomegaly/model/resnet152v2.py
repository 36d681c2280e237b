"""Keras' ResNet152V2 as a torch module, registered with timm as `resnet152v2`.

Paper: Identity Mappings in Deep Residual Networks, https://arxiv.org/abs/1603.05027

It is not timm's `resnetv2_152`: a stage (3, 8, 36, 3 blocks) strides in its last block, not in its
first, and the last stage does not stride; that block's shortcut is a max pooling of size 1; the
stem, each block's last convolution and each projection have biases; the stem's pooling pads with
zeros, which count because nothing before it is rectified. Same outputs as Keras for the same
weights, whatever the image size. The published weights have no classifier, so `num_classes` is 0
unless asked for.

Keras' file of weights (HDF5) holds a group a layer,
`conv2_block1_1_conv/conv2_block1_1_conv/kernel:0`; kernels lie as (height, width, in, out) where
torch wants (out, in, height, width).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from timm.layers import BatchNormAct2d, ClassifierHead
from timm.models import build_model_with_cfg, checkpoint_seq, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from cardiomegaly import UserError

DEPTHS = (3, 8, 36, 3)
WIDTHS = (64, 128, 256, 512)
STRIDES = (2, 2, 2, 1)  # of the last block of each stage
EXPANSION = 4

# Keras' public storage, and its checksum: WEIGHTS_HASHES in keras/src/applications/resnet.py.
URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
    "resnet152v2_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
MD5 = "ed17cf2e0169df9d443503ef94b23b33"

_BLOCK = re.compile(r"conv([2-5])_block(\d+)_(\w+)")
_IN_BLOCK = {
    "preact_bn": "norm1",
    "0_conv": "downsample",
    "1_conv": "conv1",
    "1_bn": "norm2",
    "2_conv": "conv2",
    "2_bn": "norm3",
    "3_conv": "conv3",
}
_OUTSIDE = {"conv1_conv": "stem.conv", "post_bn": "norm"}
_TENSOR = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def _norm(channels: int) -> BatchNormAct2d:
    """Batch norm and ReLU with Keras' epsilon and Keras' momentum of 0.99 (torch counts from 1)."""
    return BatchNormAct2d(channels, eps=1.001e-5, momentum=0.01)


class ZeroPaddedMaxPool(nn.Module):
    """Max pooling of 3 with stride 2 of an image framed with zeros (torch's own frame is -inf)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, (1, 1, 1, 1)), kernel_size=3, stride=2)


class Bottleneck(nn.Module):
    """Pre-activation bottleneck: 1x1, 3x3 (strided), 1x1, added to the unnormalised input."""

    def __init__(self, in_chs: int, width: int, stride: int, project: bool) -> None:
        super().__init__()
        out_chs = EXPANSION * width
        self.stride = stride
        self.norm1 = _norm(in_chs)
        self.downsample = nn.Conv2d(in_chs, out_chs, 1) if project else None
        self.conv1 = nn.Conv2d(in_chs, width, 1, bias=False)
        self.norm2 = _norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.norm3 = _norm(width)
        self.conv3 = nn.Conv2d(width, out_chs, 1)

    def forward(self, x: Tensor) -> Tensor:
        preact = self.norm1(x)
        if self.downsample is not None:
            shortcut = self.downsample(preact)
        elif self.stride > 1:
            shortcut = x[:, :, :: self.stride, :: self.stride]  # max pooling of size 1, no copy
        else:
            shortcut = x
        x = self.norm2(self.conv1(preact))
        x = self.norm3(self.conv2(x))
        return self.conv3(x).add_(shortcut)  # in place: nobody else needs the convolution's output


def _stage(in_chs: int, width: int, depth: int, stride: int) -> nn.Sequential:
    """Blocks of one width: the first projects, the last strides."""
    wide = EXPANSION * width
    first = Bottleneck(in_chs, width, stride=1, project=True)
    middle = [Bottleneck(wide, width, stride=1, project=False) for _ in range(depth - 2)]
    return nn.Sequential(first, *middle, Bottleneck(wide, width, stride, project=False))


class ResNet152V2(nn.Module):
    """ResNet152V2: image (B,3,H,W) to features (B,2048,H/32,W/32), then timm's classifier head."""

    def __init__(
        self,
        num_classes: int = 0,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.grad_checkpointing = False
        conv = nn.Conv2d(in_chans, 64, 7, stride=2, padding=3)
        self.stem = nn.Sequential(OrderedDict(conv=conv, pool=ZeroPaddedMaxPool()))
        self.stages = nn.Sequential()
        # What is offered as features at each resolution: the last before the next strided block.
        self.feature_info = [{"num_chs": 64, "reduction": 2, "module": "stem.conv"}]
        in_chs, reduction = 64, 4
        for stage, (depth, width, stride) in enumerate(zip(DEPTHS, WIDTHS, STRIDES, strict=True)):
            self.stages.append(_stage(in_chs, width, depth, stride))
            in_chs = EXPANSION * width
            tap = f"stages.{stage}.{depth - 2}" if stride > 1 else "norm"
            self.feature_info.append({"num_chs": in_chs, "reduction": reduction, "module": tap})
            reduction *= stride
        self.num_features = self.head_hidden_size = in_chs
        self.norm = _norm(in_chs)
        self.head = ClassifierHead(in_chs, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.apply(_init_weights)

    def get_classifier(self) -> nn.Module:
        """The last linear layer (an identity with `num_classes=0`)."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier, and the pooling if given."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable

    def load_pretrained(self, checkpoint_path: str) -> None:
        """Load Keras' HDF5 file; timm calls this for `pretrained=True`."""
        state = self.state_dict()
        kept = {key: state[key] for key in state if key.startswith("head.")}
        counters = {key: state[key] for key in state if key.endswith("num_batches_tracked")}
        self.load_state_dict(kept | counters | read_keras_weights(Path(checkpoint_path)))

    def forward_features(self, x: Tensor) -> Tensor:
        """Rectified features (B,2048,h,w) of an image (B,C,H,W)."""
        x = self.stem(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            for stage in self.stages:
                x = checkpoint_seq(stage, x)
        else:
            x = self.stages(x)
        return self.norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (or pooled features) of what `forward_features` returned."""
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _init_weights(module: nn.Module) -> None:
    """Keras' own start, for training from scratch: Glorot uniform, zero biases."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def read_keras_weights(path: Path) -> dict[str, Tensor]:
    """Every tensor of a Keras weights file, by the name it has in our ResNet152V2.

    What has no place there keeps Keras' name, so that whoever loads the result can name it.

    Raises:
        UserError: not an HDF5 file, or a broken one.
    """
    state: dict[str, Tensor] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            values = np.asarray(item[()])
            if values.ndim == 4:
                values = values.transpose(3, 2, 0, 1)
            state[_translate(name)] = torch.from_numpy(np.ascontiguousarray(values))

    try:
        with h5py.File(path, "r") as file:
            file.visititems(collect)
    except (OSError, RuntimeError, TypeError) as error:
        raise UserError(
            f"{path}: not a whole HDF5 file of Keras weights ({error}); download it again"
        ) from error
    return state


def _translate(name: str) -> str:
    """`conv2_block1_1_conv/conv2_block1_1_conv/kernel:0` -> `stages.0.0.conv1.weight`."""
    layer, tensor = name.split("/")[0], name.rpartition("/")[2].removesuffix(":0")
    module = _OUTSIDE.get(layer)
    if block := _BLOCK.fullmatch(layer):
        stage, number, part = block.groups()
        if part in _IN_BLOCK:
            module = f"stages.{int(stage) - 2}.{int(number) - 1}.{_IN_BLOCK[part]}"
    if module is None or tensor not in _TENSOR:
        return name
    return f"{module}.{_TENSOR[tensor]}"


default_cfgs = generate_default_cfgs(
    {
        "resnet152v2.keras_in1k": {
            "url": URL,
            "custom_load": True,  # timm then calls `load_pretrained`
            "num_classes": 0,
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "interpolation": "bilinear",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "first_conv": "stem.conv",
            "classifier": "head.fc",
            "license": "apache-2.0",
            "origin_url": "https://keras.io/api/applications/resnet/",
        }
    }
)


@register_model
def resnet152v2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Keras' ResNet152V2; timm passes its own arguments through."""
    return build_model_with_cfg(
        ResNet152V2,
        "resnet152v2",
        pretrained,
        feature_cfg={"feature_cls": "hook"},
        **kwargs,
    )
