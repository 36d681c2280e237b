"""The schema of `conf/`: types and checks live here, values in YAML."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cardiomegaly import UserError

PACKAGED_CONF = Path(__file__).parent / "conf"  # in an installed package
CONF_DIR = PACKAGED_CONF if PACKAGED_CONF.is_dir() else Path(__file__).parents[1] / "conf"

MONITORED = ("auroc", "average_precision", "f1", "loss", "sensitivity", "specificity")
FRONTAL = ("PA", "AP")
VIEWS = (*FRONTAL, "lateral", "other")
HEART = "heart"
FITS = ("stretch", "pad", "crop")
OPTIMISATION = "cardiomegaly.training.optimisation"
TRUSTED = {  # modules whose classes anybody's run may name by `_target_`, where a class is named
    "backbone": (),
    "head": ("cardiomegaly.model.heads",),
    "loss": ("cardiomegaly.training.losses", "torch.nn"),
    "optimizer": ("torch.optim",),
    "schedule": (OPTIMISATION, "torch.optim.lr_scheduler"),
    "averaging": (OPTIMISATION, "pytorch_lightning.callbacks"),
}  # fmt: skip
PARTS = ("backbone", "head")
TRAINABLE = ("none", "last_stage", "all")


@dataclass
class BackboneConfig:
    """One of `conf/backbone`.

    Attributes:
        name: the study's name of the network; of another `model`, what timm calls that.
        model: timm's name, with the tag of the pretrained weights.
        image_size: height and width of the input in pixels.
        weights: `pretrained`, `none` (random) or a file (safetensors or a state dict).
        options: timm's own arguments, such as `pad_type: same`.
        trainable: `none`, `last_stage` or `all`.
        learning_rate: of the trainable part of the backbone.
        last_stage: modules, by name, that `trainable=last_stage` trains; none for the last that
            timm's `feature_info` names.
        region: what the network sees of an image: its upper, left, lower and right edge as shares
            of height and width; `heart` for the square around the mean heart of the training
            images (`data.hearts`); null for all.
        _target_: a class of the user's own instead of a network of timm's, which `options` are for.
    """

    name: str
    model: str
    image_size: int
    weights: str
    options: dict[str, Any] | None
    trainable: str
    learning_rate: float
    last_stage: list[str]
    region: Any = None  # none of both in older checkpoints
    _target_: str | None = None

    def __post_init__(self) -> None:
        _require(
            self.trainable in TRAINABLE, "backbone.trainable",
            f"must be one of {', '.join(TRAINABLE)}", self.trainable,
        )  # fmt: skip
        _require(
            self.image_size >= 32, "backbone.image_size", "must be at least 32", self.image_size
        )
        _require_rate("backbone.learning_rate", self.learning_rate)
        if self.region not in (None, HEART):
            edges = list(self.region) if isinstance(self.region, Iterable) else []
            inside = len(edges) == 4 and all(isinstance(edge, int | float) for edge in edges)
            _require(
                inside and 0 <= edges[0] < edges[2] <= 1 and 0 <= edges[1] < edges[3] <= 1,
                "backbone.region", f"must be null, {HEART} or the [upper, left, lower, right] edge "
                "as shares from 0 to 1", self.region,
            )  # fmt: skip
            self.region = [float(edge) for edge in edges]


@dataclass
class PhantomConfig:
    """What the generated cohort is made of, see `data.phantom`, and which weights it may do with.

    Attributes:
        random_weights: train from random weights where the pretrained ones cannot be had.
    """

    images: int
    size: int
    seed: int
    label_noise: float
    random_weights: bool


@dataclass
class JoinConfig:
    """Another table with columns that the label table lacks, and the columns to join on."""

    file: str
    by: list[str]


@dataclass
class DataConfig:
    """Where images and labels lie, what the label table means, and how images are loaded.

    `conf/data/_table.yaml` says what each field is; a table is read by `data.tables`.
    """

    name: str
    root: str
    labels: str
    finding: str
    positive: Any
    uncertain: str
    blank: str
    patient: str
    columns: dict[str, Any]
    optional: list[str]
    patterns: dict[str, str]
    codings: dict[str, Any]
    vocabulary: list[str] | None
    normal: str
    where: dict[str, Any]
    join: JoinConfig | None
    votes: int | None
    official: str | None
    fit: str
    heart_masks: str | None
    cache: str
    workers: int | None
    prefetch: int
    phantom: PhantomConfig | None

    def __post_init__(self) -> None:
        allowed = {
            "uncertain": ("ignore", "positive", "negative"), "blank": ("negative", "ignore"),
            "patient": ("column", "image"), "fit": FITS,
        }  # fmt: skip
        for field, choices in allowed.items():
            value = getattr(self, field)
            _require(
                value in choices, f"data.{field}", f"must be one of {', '.join(choices)}", value
            )
        some = self.workers is None or self.workers >= 0
        _require(some, "data.workers", "must be null or at least 0", self.workers)
        _require(self.prefetch >= 1, "data.prefetch", "must be at least 1", self.prefetch)
        few = self.votes is None or self.votes >= 1
        _require(few, "data.votes", "must be null or at least 1", self.votes)


@dataclass
class CohortConfig:
    """Which images take part; see `data.split.draw_cohort`."""

    name: str
    views: list[str]
    negatives_per_positive: int

    def __post_init__(self) -> None:
        known = bool(self.views) and not set(self.views) - set(VIEWS)
        _require(known, "cohort.views", f"must name some of {', '.join(VIEWS)}", self.views)
        each = self.negatives_per_positive
        _require(each >= 1, "cohort.negatives_per_positive", "must be at least 1", each)


@dataclass
class SplitConfig:
    """How the cohort is split; see `data.split.split_cohort`.

    Attributes:
        name: of the choice in `conf/split`.
        fractions: of train, val and test.
        file: a table of images and parts to use instead.
        files: with split=file, a list of images by part.
        folds: of cross-validation by patient; null for none.
        fold: which of them is the test part, from 0.
    """

    name: str
    fractions: list[float]
    file: str | None
    files: dict[str, str | None]
    folds: int | None
    fold: int

    def __post_init__(self) -> None:
        if self.folds is not None:
            _require(self.folds >= 2, "split.folds", "must be null or at least 2", self.folds)
            _require(self.name == "patient", "split.folds", "needs split=patient", self.name)
            inside = 0 <= self.fold < self.folds
            _require(inside, "split.fold", f"must lie in 0 to {self.folds - 1}", self.fold)
        shares = self.fractions
        _require(
            len(shares) == 3 and min(shares) >= 0 and math.isclose(sum(shares), 1, abs_tol=1e-6),
            "split.fractions", "must be three shares (train, val, test) that sum to 1", shares,
        )  # fmt: skip


@dataclass
class AugmentConfig:
    """Ranges of the random augmentation; 0 (or null) switches a part off.

    Attributes:
        name: of the choice in `conf/augment`.
        horizontal_flip: probability.
        vertical_flip: probability.
        rotation: degrees to either side.
        zoom: share of the size, in and out.
        shift: share of the width and height, to either side.
        brightness: smallest and largest factor on the pixels, or null.
        pipeline: one of albumentations' as `A.to_dict` gives it, instead of all these.
        file: the YAML file that it was read from.
    """

    name: str
    horizontal_flip: float
    vertical_flip: float
    rotation: float
    zoom: float
    shift: float
    brightness: list[float] | None
    pipeline: dict[str, Any] | None = None  # stands in conf/augment/pipeline.yaml alone
    file: str | None = None

    def __post_init__(self) -> None:
        ranges = {"horizontal_flip": 1.0, "vertical_flip": 1.0, "rotation": 180.0}
        ranges |= {"zoom": 0.9, "shift": 0.9}
        for field, most in ranges.items():
            value, allowed = getattr(self, field), f"must lie between 0 and {most:g}"
            _require(0 <= value <= most, f"augment.{field}", allowed, value)
        factors = self.brightness
        _require(
            factors is None or (len(factors) == 2 and 0 <= factors[0] <= factors[1] < math.inf),
            "augment.brightness", "must be null or [smallest, largest] factor", factors,
        )  # fmt: skip


@dataclass
class TrainerConfig:
    """What Lightning's Trainer and the loop around it take.

    Attributes:
        name: of the choice in `conf/trainer`.
        accelerator, devices, strategy, max_epochs, accumulate_grad_batches, log_every_n_steps,
            deterministic, limit_train_batches: as Lightning's.
        precision: as Lightning's; null is bfloat16 where it is faster.
        compile: compile the backbone with torch.compile.
        gradient_clip_val: the largest norm of all gradients together; null for any.
        learning_rate: of the head.
        attention_weight: of the term of the loss that draws the attention map to the hearts of
            which boxes or masks are there; 0 for none. See `losses.attention_loss`.
        layer_decay: what the rate of each layer of a trained backbone is multiplied by to give that
            of the layer before it; 1 for the same rate.
        batch_size: images a batch on each device, or `auto` on a GPU: the largest that fits.
        monitor: the metric that early stopping and the best checkpoint watch.
        patience: epochs without a better value before the training stops.
        freeze_epochs: the first epochs, in which a trained backbone rests and the head learns.
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
    layer_decay: float
    attention_weight: float
    gradient_clip_val: float | None
    batch_size: Any
    accumulate_grad_batches: int
    limit_train_batches: Any
    monitor: str
    patience: int
    freeze_epochs: int
    deterministic: Any
    log_every_n_steps: int
    progress_bar: bool

    def __post_init__(self) -> None:
        for field in ("max_epochs", "accumulate_grad_batches", "patience", "log_every_n_steps"):
            value = getattr(self, field)
            _require(value >= 1, f"trainer.{field}", "must be at least 1", value)
        _require_rate("trainer.learning_rate", self.learning_rate)
        if self.gradient_clip_val is not None:
            _require_rate("trainer.gradient_clip_val", self.gradient_clip_val)
        decay = self.layer_decay
        _require(0 < decay <= 1, "trainer.layer_decay", "must be over 0 and at most 1", decay)
        weight = self.attention_weight
        _require(0 <= weight < math.inf, "trainer.attention_weight", "must be at least 0", weight)
        size = self.batch_size
        _require(
            size == "auto" or (type(size) is int and size >= 1),
            "trainer.batch_size", "must be a whole number of at least 1, or auto", size,
        )  # fmt: skip
        allowed = [f"val/{name}" for name in MONITORED]
        _require(
            self.monitor in allowed, "trainer.monitor", f"must be one of {', '.join(allowed)}",
            self.monitor,
        )  # fmt: skip

    @property
    def mode(self) -> str:
        """Whether a smaller or a larger value of the monitored metric is better."""
        return mode_of(self.monitor)


@dataclass
class FeaturesConfig:
    """Whether a frozen backbone is computed in every epoch or once.

    Attributes:
        name: `live`; `reuse`: feature maps are computed once and kept; or `auto`: reuse where the
            backbone is frozen and the store fits.
        views: augmented views kept of each training image under `reuse`.
        most_gb: of `auto`, the largest store that is made, in GB.
        disk_share: of `auto`, the share of the free disk that may be filled.
    """

    name: str
    views: int
    most_gb: float
    disk_share: float

    def __post_init__(self) -> None:
        known = self.name in ("auto", "live", "reuse")
        _require(known, "features", "must be auto, live or reuse", self.name)
        _require(self.views >= 1, "features.views", "must be at least 1", self.views)
        _require(self.most_gb >= 0, "features.most_gb", "must be at least 0", self.most_gb)
        share = self.disk_share
        _require(0 <= share <= 1, "features.disk_share", "must lie between 0 and 1", share)


@dataclass
class SweepConfig:
    """What belongs to a sweep as a whole.

    Attributes:
        name: of its folder below `outputs/sweeps`; null is the time at which it starts.
        resume: folder of a sweep to go on with.
        fail_fast: whether the first job that fails ends the sweep.
        pruner: of a search: the class of Optuna's that ends hopeless trials, and what that takes.
        trial: of a search: the number of the trial that a job is, as the search says it.
    """

    name: str | None
    resume: str | None
    fail_fast: bool
    pruner: dict[str, Any] | None
    trial: int | None


@dataclass
class InitConfig:
    """Which run a training starts from, and what it takes of it.

    Attributes:
        run: its folder, or a checkpoint; null for none.
        parts: of `PARTS`; without the backbone, that starts from `backbone.weights`.
    """

    run: str | None
    parts: Any

    def __post_init__(self) -> None:
        self.parts = [self.parts] if isinstance(self.parts, str) else list(self.parts or ())
        known = bool(self.parts) and not set(self.parts) - set(PARTS)
        _require(known, "init.parts", f"must name some of {', '.join(PARTS)}", self.parts)

    @property
    def backbone_from(self) -> str | None:
        """The run whose backbone is taken, if there is one."""
        return self.run if "backbone" in self.parts else None


@dataclass
class Config:
    """One run, whole.

    Attributes:
        seed: of cohort, split, batches, augmentation and initial weights.
        balance: weighted oversampling of the training part.
        threshold: on the probability, for the metrics that need one.
        flips: average each image with its mirror image when the run is tested and used.
        resume: folder of a run to go on with.
        trust: modules of the user's own whose classes a recorded run may name.
        head, loss, optimizer, schedule, averaging: the class of each as `_target_`, and what that
            takes; the last two may be empty, and a schedule's `interval` is `step` or `epoch`.
        logger: Lightning's loggers by any name, each its class as `_target_`.
    """

    seed: int
    balance: bool
    threshold: float
    flips: bool
    resume: str | None
    trust: Any
    init: InitConfig
    sweep: SweepConfig
    backbone: BackboneConfig
    head: dict[str, Any]
    loss: dict[str, Any]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    averaging: dict[str, Any]
    data: DataConfig
    cohort: CohortConfig
    split: SplitConfig
    augment: AugmentConfig
    features: FeaturesConfig
    trainer: TrainerConfig
    logger: dict[str, Any]

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**32, "seed", "must lie between 0 and 2**32 - 1", self.seed)
        between = 0 < self.threshold < 1
        _require(between, "threshold", "must lie between 0 and 1", self.threshold)
        self.trust = [self.trust] if isinstance(self.trust, str) else list(self.trust or ())
        examples = {
            "head": "cardiomegaly.model.heads.GWAPHead", "loss": "torch.nn.BCEWithLogitsLoss",
            "optimizer": "torch.optim.Adam",
        }  # fmt: skip
        for field, example in examples.items():
            if "_target_" not in getattr(self, field):
                raise UserError(
                    f"{field}._target_: names the class of the {field}, such as {example}; it is "
                    "missing"
                )
        rests = self.trainer.freeze_epochs
        _require(
            rests == 0 or (0 < rests < self.trainer.max_epochs and self.trainer.devices == 1),
            "trainer.freeze_epochs", "must be 0, or under trainer.max_epochs and with "
            "trainer.devices=1", rests,
        )  # fmt: skip
        if rests and self.backbone.trainable == "none":
            raise UserError(
                f"trainer.freeze_epochs={rests}: then the backbone is to learn, which takes "
                "backbone.trainable=all or last_stage, got none"
            )
        interval = self.schedule.get("interval")
        if self.schedule:
            known = interval in ("step", "epoch")
            _require(known, "schedule.interval", "must be step or epoch", interval)
        if self.features.name == "reuse" and self.backbone.trainable != "none":
            raise UserError(
                "features=reuse: needs a frozen backbone (backbone.trainable=none), got "
                f"backbone.trainable={self.backbone.trainable}; use features=live"
            )
        if self.features.name == "reuse" and self.trainer.attention_weight:
            raise UserError(
                f"features=reuse: trainer.attention_weight={self.trainer.attention_weight} needs "
                "the hearts of the augmented images, which are not kept; use features=live"
            )
        if self.features.name == "reuse" and self.backbone._target_ is not None:
            raise UserError(
                "features=reuse: needs a network of timm's, as nothing tells whether the code of "
                f"{self.backbone._target_} has changed; use features=live"
            )

    @property
    def head_name(self) -> str:
        """`gwap` for cardiomegaly.model.heads.GWAPHead."""
        return str(self.head["_target_"]).rpartition(".")[2].removesuffix("Head").lower()

    @property
    def trusted(self) -> list[str]:
        """Modules whose classes the checkpoints of this very run may name: what it was told."""
        named = (self.head["_target_"], self.backbone._target_)
        return [str(target).rpartition(".")[0] for target in named if target is not None]


def mode_of(monitor: str) -> str:
    """`min` for a metric of which a smaller value is better, else `max`."""
    return "min" if monitor == "val/loss" else "max"


def is_trusted(target: str, field: str, trust: Iterable[str] = ()) -> bool:
    """Whether a class that a recorded run names may be built.

    Args:
        target: its dotted name.
        field: what is built of it, such as `head`.
        trust: the user's own modules, as named on the own command line (`trust=mymodule`).
    """
    return target.rpartition(".")[0] in {*TRUSTED[field], *trust}


def check(cfg: DictConfig) -> Config:
    """Turn a composed configuration into dataclasses.

    Raises:
        UserError: a key is unknown or missing, has the wrong type or is out of range.
    """
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), own)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        where, reason = error.full_key or "configuration", str(error).splitlines()[0]
        _, ours, mistake = reason.partition(f"{UserError.__name__} raised while resolving")
        if ours:  # by a resolver of ours
            raise UserError(mistake.partition(": ")[2]) from error
        _, missing, key = reason.partition("Missing mandatory value: ")
        if missing:
            raise UserError(f"{key}: required but not given; say {key}=...") from error
        raise UserError(f"{where}: {reason}") from error
    assert isinstance(config, Config)  # noqa: S101  (for the type checker)
    return config


def read_data(name: str, values: Mapping[str, Any] | None = None) -> DataConfig:
    """The settings of a file of `conf/data`, outside a training.

    Args:
        name: of the file.
        values: replace those of the file.

    Raises:
        UserError: there is no such file, or as `check`.
    """
    return data_of(OmegaConf.merge(_data_file(name), dict(values or {})))


def data_of(values: Mapping[str, Any] | DictConfig | ListConfig) -> DataConfig:
    """The settings of data from all of their values, as a run recorded them."""
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), values))
    except OmegaConfBaseException as error:
        raise UserError(f"data.{error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(config, DataConfig)  # noqa: S101  (for the type checker)
    return config


def _data_file(name: str) -> DictConfig:
    """A file of `conf/data` over those that its defaults name."""
    path = CONF_DIR / "data" / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"data: there is no {name!r} in {CONF_DIR / 'data'}")
    own = OmegaConf.load(path)
    assert isinstance(own, DictConfig)  # noqa: S101  (for the type checker)
    bases = [base for base in own.pop("defaults", []) if base != "_self_"]
    merged = OmegaConf.merge(*(_data_file(base) for base in bases), own)
    assert isinstance(merged, DictConfig)  # noqa: S101  (for the type checker)
    return merged


def backbones() -> dict[str, str]:
    """The files of `conf/backbone` that mean one network, by name, with timm's name of it."""
    files = sorted((CONF_DIR / "backbone").glob("[!_]*.yaml"))
    models = {file.stem: str(_model_of(file)) for file in files}
    return {name: model for name, model in models.items() if not model.startswith(("?", "$"))}


def _model_of(file: Path) -> Any:
    values: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    return values["model"]


def network_name(name: str, model: str) -> str:
    """What a network is called: by the name of its file in `conf/backbone`, if it is that model.

    Args:
        name: of the file.
        model: timm's name, which `backbone.model=...` may have replaced.
    """
    usual = _model_of(CONF_DIR / "backbone" / f"{name}.yaml")
    return name if model == usual else re.sub(r"[^\w.-]+", "-", model)


def yaml_file(path: str) -> Any:
    """What a YAML file holds, so that a run records that and not the path alone.

    Raises:
        UserError: there is no such file, or it is none of YAML.
    """
    try:
        return yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"augment.file={path}: must be a YAML file ({reason})") from error


OmegaConf.register_new_resolver("network_name", network_name, replace=True)  # for conf/
OmegaConf.register_new_resolver("yaml_file", yaml_file, replace=True)


def _require(holds: bool, field: str, allowed: str, got: Any) -> None:
    if not holds:
        raise UserError(f"{field}: {allowed}, got {got!r}")


def _require_rate(field: str, rate: float) -> None:
    _require(0 < rate < math.inf, field, "must be over 0 and finite", rate)  # nan is neither
