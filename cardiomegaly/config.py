"""The schema of `conf/`: types and checks live here, values in YAML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cardiomegaly.data.settings import CohortConfig, DataConfig, SplitConfig
from cardiomegaly.data.transforms import AugmentConfig
from cardiomegaly.model.backbone import BackboneConfig

PACKAGED_CONF = Path(__file__).parent / "conf"  # in an installed package
CONF_DIR = PACKAGED_CONF if PACKAGED_CONF.is_dir() else Path(__file__).parents[1] / "conf"

MONITORED = ("auroc", "average_precision", "f1", "loss", "sensitivity", "specificity")


@dataclass
class TrainerConfig:
    """What Lightning's Trainer and the loop around it take.

    Attributes:
        name: of the choice in `conf/trainer`.
        accelerator, devices, strategy, max_epochs, accumulate_grad_batches, log_every_n_steps,
            deterministic, limit_train_batches: as Lightning's.
        precision: as Lightning's; null is bfloat16 where it is faster.
        compile: compile the backbone with torch.compile.
        learning_rate: of the head.
        batch_size: images a batch on each device, or `auto` on a GPU: the largest that fits.
        monitor: the metric that early stopping and the best checkpoint watch.
        patience: epochs without a better value before the training stops.
        progress_bar: show one.
    """

    name: str
    accelerator: str
    devices: Any
    strategy: str
    precision: str | None
    compile: bool
    max_epochs: int
    learning_rate: float
    batch_size: Any
    accumulate_grad_batches: int
    limit_train_batches: Any
    monitor: str
    patience: int
    deterministic: Any
    log_every_n_steps: int
    progress_bar: bool

    def __post_init__(self) -> None:
        for field in ("max_epochs", "accumulate_grad_batches", "patience", "log_every_n_steps"):
            if getattr(self, field) < 1:
                raise ValueError(f"trainer.{field}: must be at least 1, got {getattr(self, field)}")
        if self.learning_rate <= 0:
            raise ValueError(f"trainer.learning_rate: must be over 0, got {self.learning_rate}")
        if self.batch_size != "auto" and not (
            isinstance(self.batch_size, int) and self.batch_size >= 1
        ):
            raise ValueError(
                f"trainer.batch_size: must be a whole number of at least 1, or auto, "
                f"got {self.batch_size!r}"
            )
        allowed = [f"val/{name}" for name in MONITORED]
        if self.monitor not in allowed:
            raise ValueError(
                f"trainer.monitor: must be one of {', '.join(allowed)}, got {self.monitor!r}"
            )

    @property
    def mode(self) -> str:
        """Whether a smaller or a larger value of the monitored metric is better."""
        return "min" if self.monitor == "val/loss" else "max"


@dataclass
class FeaturesConfig:
    """Whether a frozen backbone is computed in every epoch or once.

    Attributes:
        name: `live`, or `reuse`: feature maps are computed once and kept.
        views: augmented views kept of each training image under `reuse`.
    """

    name: str
    views: int

    def __post_init__(self) -> None:
        if self.name not in ("live", "reuse"):
            raise ValueError(f"features: must be live or reuse, got {self.name!r}")
        if self.views < 1:
            raise ValueError(f"features.views: must be at least 1, got {self.views}")


@dataclass
class SweepConfig:
    """What belongs to a sweep as a whole.

    Attributes:
        name: of its folder below `outputs/sweeps`; null is the time at which it starts.
        resume: folder of a sweep to go on with.
    """

    name: str | None
    resume: str | None


@dataclass
class Config:
    """One run, whole."""

    seed: int
    balance: bool
    threshold: float
    resume: str | None
    sweep: SweepConfig
    backbone: BackboneConfig
    head: dict[str, Any]
    data: DataConfig
    cohort: CohortConfig
    split: SplitConfig
    augment: AugmentConfig
    features: FeaturesConfig
    trainer: TrainerConfig
    logger: dict[str, Any]

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed: must lie between 0 and 2**32 - 1, got {self.seed}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold: must lie between 0 and 1, got {self.threshold}")
        if "_target_" not in self.head:
            raise ValueError(
                "head._target_: names the class of the head, such as "
                "cardiomegaly.model.head.GWAPHead; it is missing"
            )
        if self.features.name == "reuse" and self.backbone.trainable != "none":
            raise ValueError(
                "features=reuse: needs a frozen backbone (backbone.trainable=none), got "
                f"backbone.trainable={self.backbone.trainable}; use features=live"
            )

    @property
    def head_name(self) -> str:
        """`gwap` for cardiomegaly.model.head.GWAPHead."""
        return str(self.head["_target_"]).rpartition(".")[2].removesuffix("Head").lower()


def check(cfg: DictConfig) -> Config:
    """Turn a composed configuration into dataclasses.

    Raises:
        ValueError: a key is unknown or missing, has the wrong type or is out of range.
    """
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), own)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        where = error.full_key or "configuration"
        raise ValueError(f"{where}: {str(error).splitlines()[0]}") from error
    assert isinstance(config, Config)  # noqa: S101  (for the type checker)
    return config


def load(path: Path) -> Config:
    """Read the configuration that a run left behind (`.hydra/config.yaml`).

    Raises:
        FileNotFoundError: no such file.
        ValueError: as in `check`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; {path.parents[1]} is not a run folder")
    return check(OmegaConf.create(path.read_text()))  # type: ignore[arg-type]
