"""Optimisers, rates, their schedules and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from pytorch_lightning import LightningModule
from torch.optim import SGD, Optimizer

from cardiomegaly import UserError, config
from cardiomegaly.model.predictor import read_checkpoint
from cardiomegaly.training.module import CardiomegalyModule
from cardiomegaly.training.optimisation import EMA, WarmupCosine, build_optimizer, build_schedule
from cardiomegaly.training.run import build_module, train
from cardiomegaly.training.trainer import build_trainer

Compose = Callable[..., DictConfig]


def module(composed: Compose, *words: str) -> CardiomegalyModule:
    tiny = "backbone=timm", "backbone.model=test_vit", "backbone.trainable=all"
    return build_module(config.check(composed(*tiny, *words)))[0]


def optimizer_of(built: CardiomegalyModule) -> Optimizer:
    return build_optimizer(built.hparams, built.classifier)


def optimizer(*rates: float) -> Optimizer:
    return SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates])


def rates_of(schedule: Any, optimizer: Optimizer, steps: int) -> np.ndarray:
    """The rates of every group in each step, (steps, groups)."""
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return np.array(seen)


def test_cosine_with_warm_up_by_its_formula() -> None:
    moved = optimizer(1.0, 0.1)
    rates = rates_of(WarmupCosine(moved, total_steps=100, warmup=0.1), moved, 100)
    step = np.arange(100)
    rising = (1 + step * 10 / 10) / 11  # from 1/11 to 1 in 10 steps
    falling = (1 + np.cos(math.pi * (step - 10) / 90)) / 2
    expected = np.where(step < 10, rising, falling)
    np.testing.assert_allclose(rates[:, 0], expected, atol=1e-12)
    np.testing.assert_allclose(rates[:, 1], expected / 10, atol=1e-12)


COSINE = "schedule=own", "schedule._target_=torch.optim.lr_scheduler.CosineAnnealingLR"


@pytest.mark.parametrize(
    ("words", "last"),
    [
        (("schedule=cosine",), (1 + math.cos(math.pi * 47 / 48)) / 2),  # 2 of 50 steps rise
        (("schedule=onecycle",), 4e-6),  # torch's last rate
        (COSINE, (1 + math.cos(math.pi * 49 / 500)) / 2),
        ((*COSINE, "schedule.interval=step"), (1 + math.cos(math.pi * 49 / 50)) / 2),
    ],
)
def test_schedules_get_the_length_and_the_rates(
    composed: Compose, words: tuple[str, ...], last: float
) -> None:
    moved = optimizer(1.0, 0.1)
    settings = config.check(composed(*words)).schedule
    own = {"schedule": settings, "monitor": "val/loss"}
    schedule = build_schedule(own, moved, steps=50, epochs=500)
    rates = rates_of(schedule, moved, 50)
    assert rates.max() == pytest.approx(1.0)
    assert rates[-1, 0] == pytest.approx(last, rel=1e-6)
    np.testing.assert_allclose(rates[:, 1], rates[:, 0] / 10, rtol=1e-6)


@pytest.mark.parametrize(("monitor", "better"), [("val/loss", -1.0), ("val/auroc", 1.0)])
def test_a_plateau_knows_what_is_better(composed: Compose, monitor: str, better: float) -> None:
    settings = config.check(composed("schedule=plateau", "schedule.patience=1")).schedule
    for direction, rate in ((better, 1.0), (-better, 0.3)):
        moved = optimizer(1.0)
        schedule: Any = build_schedule({"schedule": settings, "monitor": monitor}, moved, 9, 9)
        for epoch in range(3):
            schedule.step(direction * epoch)
        assert moved.param_groups[0]["lr"] == pytest.approx(rate)


def test_layers_have_rates_of_their_own(composed: Compose) -> None:
    words = "trainer.layer_decay=0.5", "optimizer=adamw", "backbone.learning_rate=1e-4"
    built = module(composed, *words)
    groups = optimizer_of(built).param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    named = dict(built.classifier.backbone.model.named_parameters())
    of = {name: rates[id(parameter)] for name, parameter in named.items()}
    assert len(rates) == len(list(built.classifier.parameters()))  # every one, and once
    blocks = [of[f"blocks.{number}.attn.qkv.weight"] for number in range(6)]
    np.testing.assert_allclose(np.divide(blocks[:-1], blocks[1:]), 0.5)
    assert of["norm.weight"] == 1e-4
    assert of["patch_embed.proj.weight"] == pytest.approx(blocks[0] / 2)
    assert decays[id(named["blocks.0.attn.qkv.weight"])] == 0.01
    assert decays[id(named["blocks.0.norm1.weight"])] == decays[id(named["pos_embed"])] == 0
    assert groups[0]["lr"] == 1e-3
    plain = optimizer_of(module(composed)).param_groups
    assert [group["lr"] for group in plain] == [1e-3, 1e-4]


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_the_optimiser_is_torchs(composed: Compose, name: str) -> None:
    built = optimizer_of(module(composed, f"optimizer={name.lower()}"))
    assert type(built) is getattr(torch.optim, name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("optimizer.weight_decay=-1",), "optimizer: torch.optim.Adam: Invalid weight_decay"),
        (("+optimizer.momentum=1",), "optimizer: torch.optim.Adam takes .*got .*momentum"),
        (("optimizer._target_=torch.nn.Linear",), "must be a class of torch.optim.*Optimizer"),
        (("schedule=cosine", "schedule.warmup=2"), "schedule: .*warmup must be at least 0"),
        (("schedule=cosine", "schedule.interval=day"), "schedule.interval: must be step or epoch"),
        (("trainer.layer_decay=0",), "trainer.layer_decay: must be over 0 and at most 1, got 0"),
        (("trainer.gradient_clip_val=0",), "trainer.gradient_clip_val: must be over 0"),
        (("loss=own", "loss._target_=torch.optim.Adam"), "must be a class of torch.nn.Module"),
        (("~loss._target_",), r"loss\._target_: names the class of the loss, such as torch"),
    ],
)
def test_mistakes_are_one_line_before_the_training(
    composed: Compose, words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        module(composed, *words)


class OneStep(LightningModule):
    """Two weights, of which the second is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = torch.nn.Parameter(torch.tensor([1.0]))
        self.frozen = torch.nn.Parameter(torch.rand(1000), requires_grad=False)


def test_the_average_by_hand_and_what_is_frozen_stays() -> None:
    built, average = OneStep(), EMA(decay=0.9)
    frozen = built.frozen.clone()
    average.setup(None, built, "fit")  # type: ignore[arg-type]
    assert average._average_model is not None
    expected = None
    for value in (2.0, 5.0, 3.0):
        built.moved.data.fill_(value)
        average._average_model.update_parameters(built)
        expected = value if expected is None else 0.9 * expected + 0.1 * value
    averaged: Any = average._average_model.module
    assert averaged.moved.item() == pytest.approx(expected)
    for _ in range(200):
        average._average_model.update_parameters(built)
    assert torch.equal(averaged.frozen, frozen)


def test_clipping_and_averaging_reach_lightning(composed: Compose, tmp_path: Path) -> None:
    words = "averaging=ema", "averaging.decay=0.5", "trainer.gradient_clip_val=1.5"
    trainer, _ = build_trainer(config.check(composed(*words)), tmp_path, "32-true")
    assert trainer.gradient_clip_val == 1.5
    assert [type(each) for each in trainer.callbacks if isinstance(each, EMA)] == [EMA]
    trainer, _ = build_trainer(config.check(composed()), tmp_path, "32-true")
    assert trainer.gradient_clip_val is None
    assert not [each for each in trainer.callbacks if isinstance(each, EMA)]


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], part: str) -> bool:
    names = [name for name in before if name.startswith(f"classifier.{part}.")]
    return any(not torch.equal(before[name], after[name]) for name in names)


@pytest.mark.parametrize(
    ("words", "tuned_from"),
    [
        (("trainer.freeze_epochs=2",), 2),
        (("trainer.freeze_epochs=3", "trainer.patience=1", "trainer.learning_rate=1e-12"), 2),
        (("trainer.freeze_epochs=2", "averaging=ema", "averaging.decay=0.5"), 2),
    ],
)
def test_the_head_learns_first_and_then_all(
    composed: Compose, tmp_path: Path, caplog: Any, words: tuple[str, ...], tuned_from: int
) -> None:
    """What rests stays to the last bit, statistics of batch norms too; then it moves."""
    tiny = "backbone=timm", "backbone.model=test_resnet", "schedule=freeze_then_tune"
    more = "trainer.max_epochs=4", "trainer.patience=2", "features=auto"
    settings = config.check(composed(*tiny, *more, *words))
    states: list[dict[str, torch.Tensor]] = []

    def keep(module: CardiomegalyModule) -> None:
        states.append({name: tensor.clone() for name, tensor in module.state_dict().items()})

    with pytest.MonkeyPatch.context() as patch, caplog.at_level("INFO"):
        for hook in ("on_train_epoch_start", "on_train_end"):
            patch.setattr(CardiomegalyModule, hook, keep)
        assert train(settings, tmp_path / "run") is not None
    learned = [changed(*pair, "backbone") for pair in pairwise(states)]
    assert learned == [epoch >= tuned_from for epoch in range(len(learned))]
    assert True in learned
    assert all(changed(*pair, "head") for pair in pairwise(states))
    assert f"from epoch {tuned_from} on the backbone learns too" in caplog.text
    best = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert changed(states[0], best["state_dict"], "backbone")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("backbone.trainable=none",), "trainer.freeze_epochs=5: then the backbone is to learn"),
        (
            ("trainer.max_epochs=5",),
            "freeze_epochs: must be 0, or under trainer.max_epochs",
        ),
        (("trainer.devices=2",), "and with trainer.devices=1, got 5"),
    ],
)
def test_two_phases_that_cannot_be_are_one_line(
    composed: Compose, words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        config.check(composed("schedule=freeze_then_tune", "trainer.max_epochs=9", *words))
