"""What a run computes on, and in which precision."""

from __future__ import annotations

import torch
from pytorch_lightning import Trainer

from cardiomegaly import UserError
from cardiomegaly.config import TrainerConfig


def check_device(trainer: TrainerConfig) -> None:
    """Refuse what this machine has not.

    Raises:
        UserError: a GPU is asked for and there is none, or the accelerator is unknown.
    """
    cuda = torch.cuda.is_available()
    if trainer.accelerator in ("cuda", "gpu") and not cuda:
        raise UserError(
            f"trainer.accelerator: {trainer.accelerator} is asked for but torch finds no CUDA "
            "device; use trainer=auto or trainer=cpu"
        )
    if trainer.accelerator not in ("auto", "cpu", "cuda", "gpu"):
        raise UserError(
            f"trainer.accelerator: must be auto, cpu, cuda or gpu, got {trainer.accelerator!r}"
        )
    if trainer.batch_size == "auto" and (trainer.accelerator == "cpu" or not cuda):
        raise UserError(
            "trainer.batch_size: auto fits batches to a GPU's memory, and none is used; "
            "give a number of images, such as trainer.batch_size=24"
        )


def uses_gpu(trainer: TrainerConfig) -> bool:
    """Whether the run computes on a CUDA device."""
    return trainer.accelerator != "cpu" and torch.cuda.is_available()


def choose_precision(trainer: TrainerConfig) -> str:
    """The configured precision, or else what is fastest on this device.

    Processors multiply faster in bfloat16 by their matrix units (AMX) alone: with nothing but its
    vector instructions (AVX-512 BF16), float32 is faster (docs/speed.md).
    """
    if trainer.precision is not None:
        return trainer.precision
    if uses_gpu(trainer):
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    return "bf16-mixed" if torch.cpu._is_amx_tile_supported() else "32-true"


def device_name(trainer: Trainer) -> str:
    """The GPU's name, or how many threads the processor gives."""
    if trainer.strategy.root_device.type == "cuda":
        name = torch.cuda.get_device_name(trainer.strategy.root_device)
        return f"{trainer.num_devices} x {name}"
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'s' * (threads > 1)}"
