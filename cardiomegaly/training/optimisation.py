"""How weights are moved: the optimiser with its rates, their schedule, the average of the weights.

Torch's and Lightning's own classes do it, as `conf/optimizer`, `conf/schedule` and
`conf/averaging` name them; here is what hands them their arguments, and what they lack.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.callbacks import WeightAveraging
from timm.optim import param_groups_layer_decay
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cardiomegaly.config import mode_of
from cardiomegaly.model.building import build
from cardiomegaly.model.classifier import CardiomegalyClassifier


class WarmupCosine(SequentialLR):
    """Rates that rise linearly at first, and then fall to 0 on a cosine.

    Args:
        optimizer: whose rates they are.
        total_steps: of the whole training.
        warmup: share of them in which rates rise.

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017; Goyal et al., "Accurate, Large Minibatch SGD",
    2017, for the warm-up.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float) -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup must be at least 0 and under 1, got {warmup}")
        rising = max(1, round(warmup * total_steps))
        schedulers = [
            LinearLR(optimizer, start_factor=1 / (rising + 1), total_iters=rising),
            CosineAnnealingLR(optimizer, T_max=max(1, total_steps - rising)),
        ]
        super().__init__(optimizer, schedulers, milestones=[rising])


class EMA(WeightAveraging):
    """The exponential moving average of the weights: it is validated, kept and tested.

    Lightning's own EMA adds up two products, which changes in its last digits what does not move: a
    frozen backbone would drift. This one goes a share of the difference.

    Args:
        decay: share of the average that stays in each step.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))


def build_optimizer(settings: Mapping[str, Any], classifier: CardiomegalyClassifier) -> Optimizer:
    """The configured optimiser, with the backbone's trained part at rates of its own.

    Args:
        settings: of `CardiomegalyModule`: `optimizer`, `learning_rate`, `layer_decay`, and the
            `learning_rate` of its `backbone`.
        classifier: what is trained.

    Raises:
        UserError: as `building.build`.
    """
    optimizer, rate = settings["optimizer"], float(settings["backbone"]["learning_rate"])
    groups: list[dict[str, Any]] = [
        {"params": list(classifier.head.parameters()), "lr": settings["learning_rate"]}
    ]
    trained = [p for p in classifier.backbone.parameters() if p.requires_grad]
    if trained and settings["layer_decay"] == 1:
        groups.append({"params": trained, "lr": rate})
    elif trained:
        network = classifier.backbone.model
        layers = param_groups_layer_decay(
            network,
            weight_decay=optimizer.get("weight_decay", 0.0),
            no_weight_decay_list=getattr(network, "no_weight_decay", set)(),
            layer_decay=settings["layer_decay"],
        )
        groups += [layer | {"lr": rate * layer.pop("lr_scale")} for layer in layers]
    return build(optimizer, "optimizer", Optimizer, {"params": groups})


def build_schedule(
    settings: Mapping[str, Any], optimizer: Optimizer, steps: int, epochs: int
) -> LRScheduler:
    """The configured schedule; it gets what it names of the length and the rates of the training.

    Args:
        settings: of `CardiomegalyModule`: `schedule`, whose `interval` says what it counts, and the
            metric to `monitor`.
        optimizer: whose rates it sets.
        steps: of the whole training.
        epochs: at most.

    Raises:
        UserError: as `building.build`.
    """
    options = dict(settings["schedule"])
    length = steps if options.pop("interval") == "step" else epochs
    offered = {
        "total_steps": length, "T_max": length, "mode": mode_of(settings["monitor"]),
        "max_lr": [group["lr"] for group in optimizer.param_groups],
    }  # fmt: skip
    return build(options, "schedule", LRScheduler, {"optimizer": optimizer}, offered)
