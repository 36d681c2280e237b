"""What a run computes on, and in which precision."""

from __future__ import annotations

import torch
from pytorch_lightning import Trainer
from torch import nn

from cardiomegaly.config import Config, TrainerConfig
from cardiomegaly.model.classifier import CardiomegalyClassifier


def check_device(trainer: TrainerConfig) -> None:
    """Refuse what this machine has not.

    Raises:
        ValueError: a GPU is asked for and there is none, or the accelerator is unknown.
    """
    cuda = torch.cuda.is_available()
    if trainer.accelerator in ("cuda", "gpu") and not cuda:
        raise ValueError(
            f"trainer.accelerator: {trainer.accelerator} is asked for but torch finds no CUDA "
            "device; use trainer=auto or trainer=cpu"
        )
    if trainer.accelerator not in ("auto", "cpu", "cuda", "gpu"):
        raise ValueError(
            f"trainer.accelerator: must be auto, cpu, cuda or gpu, got {trainer.accelerator!r}"
        )
    if trainer.batch_size == "auto" and (trainer.accelerator == "cpu" or not cuda):
        raise ValueError(
            "trainer.batch_size: auto fits batches to a GPU's memory, and none is used; "
            "give a number of images, such as trainer.batch_size=24"
        )


def choose_precision(config: Config, classifier: CardiomegalyClassifier) -> str:
    """That of a training, in which a backbone whose features are reused takes no part."""
    reused = config.features.name == "reuse"
    return device_precision(config.trainer, classifier.head if reused else classifier.backbone)


def device_precision(trainer: TrainerConfig, network: nn.Module) -> str:
    """The configured precision, or else what is fastest on this device for this network.

    Processors with matrix units (AMX) multiply faster in bfloat16. Those that have only its vector
    instructions (AVX-512 BF16) do not, but move half the bytes: that pays for the forward pass of
    networks of depthwise convolutions; all else is slower than in float32 (docs/speed.md).
    """
    if trainer.precision is not None:
        return trainer.precision
    if torch.cuda.is_available() and trainer.accelerator != "cpu":
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    if torch.cpu._is_amx_tile_supported():
        return "bf16-mixed"
    convolutions = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    depthwise = any(1 < one.groups == one.in_channels for one in convolutions)
    frozen = not any(p.requires_grad for p in network.parameters())
    pays = depthwise and frozen and torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if pays else "32-true"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision as Lightning switches it on."""
    dtype = torch.float16 if precision.startswith("16") else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled="mixed" in precision)


def device_name(trainer: Trainer) -> str:
    """The GPU's name, or how many threads the processor gives."""
    if trainer.strategy.root_device.type == "cuda":
        name = torch.cuda.get_device_name(trainer.strategy.root_device)
        return f"{trainer.num_devices} x {name}"
    return f"cpu, {torch.get_num_threads()} threads"
