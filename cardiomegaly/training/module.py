"""The classifier as a LightningModule: loss, optimiser, and metrics over all predictions."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from scipy.special import expit
from torch import nn

from cardiomegaly import RunError
from cardiomegaly.config import MONITORED, BackboneConfig
from cardiomegaly.evaluation.metrics import binary_metrics
from cardiomegaly.model.building import build
from cardiomegaly.model.classifier import CardiomegalyClassifier
from cardiomegaly.training.losses import attention_loss
from cardiomegaly.training.optimisation import build_optimizer, build_schedule

MOST_NAMED = 32  # images in a message
STOPPED = (
    "the training is stopped, checkpoints of former epochs are kept; a smaller "
    "trainer.learning_rate (or trainer.precision=32-true) may help"
)


class CardiomegalyModule(LightningModule):
    """Trains a `CardiomegalyClassifier`.

    A batch is a dict with `target` (B,), `index` (B,) and either `image` (B, 1, H, W) or
    `features` (B, C, h, w), the frozen backbone's output computed beforehand; and with an
    `attention_weight`, `heart` (B, 1, H, W), as `losses.attention_loss` takes it.

    Args:
        backbone: fields of `BackboneConfig`, as plain containers, so that a checkpoint can be
            loaded without this project's configuration. Weights are loaded by the caller.
        head, loss, optimizer, schedule: `_target_` and options of each; no schedule if empty.
        learning_rate: of the head.
        layer_decay: rate of each layer of the backbone by that of the next one.
        attention_weight: of the term that draws the attention map to hearts; 0 for none.
        monitor: the metric that a schedule may watch.
        threshold: on the probability, for the validation metrics that need one.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        head: dict[str, Any],
        loss: dict[str, Any],
        optimizer: dict[str, Any],
        schedule: dict[str, Any],
        learning_rate: float,
        layer_decay: float,
        attention_weight: float,
        monitor: str,
        threshold: float,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.threshold = threshold
        self.attention_weight = attention_weight
        self.classifier = CardiomegalyClassifier(BackboneConfig(**backbone), head)
        self.loss: nn.Module = build(loss, "loss", nn.Module, {})
        self.losses: list[torch.Tensor] = []  # of the epoch's batches, whose images are `_indices`
        self._indices: list[torch.Tensor] = []
        self._validated: list[dict[str, torch.Tensor]] = []

    def on_train_epoch_start(self) -> None:
        """Forget losses of a search for the batch size."""
        self.losses, self._indices = [], []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """The loss of a batch; the epoch's is logged with the last batch.

        Lightning's own sum over an epoch takes 1 ms a step, where a step from features takes 14.
        """
        output = self.classifier.head(self.classifier.features(batch))
        loss = self.loss(output.logits.float(), batch["target"])
        if self.attention_weight:
            heart = self.classifier.backbone.crop(batch["heart"])
            loss = loss + self.attention_weight * attention_loss(output.attention, heart)
        self.losses.append(loss.detach())
        self._indices.append(batch["index"])
        # One step late, since a GPU would have to be waited for: no weights are kept before.
        self._check_loss(batch_idx - 1)
        if self.trainer.is_last_batch:
            self._check_loss(batch_idx)
            images = torch.tensor([len(index) for index in self._indices], dtype=loss.dtype)
            share = (images / images.sum()).to(loss.device)
            mean = torch.dot(torch.stack(self.losses), share)
            self.log("train/loss", mean, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        return loss

    def _check_loss(self, step: int) -> None:
        if step >= 0 and not torch.isfinite(self.losses[step]):
            raise RunError(
                f"epoch {self.current_epoch}, step {step}: the loss is "
                f"{float(self.losses[step])} on {self._images('train', self._indices[step])}; "
                f"{STOPPED}"
            )

    def _images(self, part: str, index: torch.Tensor) -> str:
        """The names of the first images at these positions of a part."""
        table = self.trainer.datamodule.parts[part]  # type: ignore[attr-defined]
        names = table["image"].iloc[index[:MOST_NAMED].tolist()]
        more = f" and {len(index) - MOST_NAMED} more" if len(index) > MOST_NAMED else ""
        return f"the images {', '.join(names)}{more}"

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        """Keep logits: metrics need all of them at once."""
        logits = self.classifier.logits(batch)
        self._validated.append(
            {"logits": logits, "target": batch["target"], "index": batch["index"]}
        )

    def on_validation_epoch_end(self) -> None:
        """Metrics over every validation image, each counted once whatever the number of ranks."""
        batches, self._validated = self._validated, []
        logits, target, index = (
            torch.cat([batch[key] for batch in batches]) for key in ("logits", "target", "index")
        )
        if self.trainer.world_size > 1:
            gathered = self.all_gather((logits, target, index))
            logits, target, index = (part.flatten() for part in gathered)
            first = {int(position): place for place, position in reversed(list(enumerate(index)))}
            once = torch.tensor(list(first.values()), device=index.device)
            logits, target, index = logits[once], target[once], index[once]
        wrong = ~torch.isfinite(logits)
        if wrong.any():
            raise RunError(
                f"epoch {self.current_epoch}, validation: the logits are not finite on "
                f"{self._images('val', index[wrong])}; {STOPPED}"
            )
        metrics = validation_metrics(logits, target, self.threshold, self.loss)
        # Lightning's sum over an epoch has one term here: with a weight of 1 it changes no digit.
        self.log_dict(metrics, rank_zero_only=False, batch_size=1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser, and the schedule if there is one."""
        optimizer = build_optimizer(self.hparams, self.classifier)
        schedule = self.hparams["schedule"]
        if not schedule:
            return optimizer
        steps, epochs = int(self.trainer.estimated_stepping_batches), self.trainer.max_epochs or 1
        scheduler: Any = {
            "scheduler": build_schedule(self.hparams, optimizer, steps, epochs),
            "interval": schedule["interval"], "monitor": self.hparams["monitor"],
        }  # fmt: skip
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def on_train_epoch_end(self) -> None:
        """Go on with a schedule of epochs: before the checkpoint is written, which Lightning does
        first, so that a training that is resumed would lack that step."""
        for each in self.trainer.lr_scheduler_configs:
            if each.interval == "epoch":
                watched = self.trainer.callback_metrics[self.hparams["monitor"]]
                super().lr_scheduler_step(
                    each.scheduler, watched if each.reduce_on_plateau else None
                )

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Leave a schedule of epochs to `on_train_epoch_end`."""
        if self.hparams["schedule"]["interval"] == "step":
            super().lr_scheduler_step(scheduler, metric)


def validation_metrics(
    logits: torch.Tensor, target: torch.Tensor, threshold: float, loss: nn.Module
) -> dict[str, torch.Tensor]:
    """What can be monitored, of logits (N,) and targets (N,), by its name with `val/`.

    In float64 and by the function that gives the run's final figures, so that an epoch's figure
    is the one that its checkpoint has in the end.
    """
    exact, label = logits.cpu().double(), target.cpu()
    metrics = binary_metrics(label.numpy(), expit(exact.numpy()), threshold, exact.numpy())
    dtype = torch.float32 if logits.device.type == "mps" else torch.float64  # MPS has none
    metrics["loss"] = float(loss(logits.to(dtype), target.to(dtype)))
    return {
        f"val/{name}": torch.tensor(metrics[name], dtype=dtype, device=logits.device)
        for name in MONITORED
    }
