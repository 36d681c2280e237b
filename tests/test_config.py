"""The schema of conf/: what is out of range is named, with what is allowed and what came."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from cardiomegaly import UserError, config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.patience=0", r"trainer\.patience: must be at least 1, got 0"),
        ("trainer.batch_size=0", r"trainer\.batch_size: must be a whole number of at least 1"),
        ("trainer.batch_size=true", r"trainer\.batch_size: must be a whole number .* got True"),
        ("trainer.monitor=val/acc", r"trainer\.monitor: must be one of val/auroc.* got 'val/acc'"),
        ("trainer.learning_rate=-1", r"trainer\.learning_rate: must be over 0 and finite, got -1"),
        ("trainer.learning_rate=nan", r"trainer\.learning_rate: must be over 0 and finite, got na"),
        ("trainer.learning_rate=inf", r"trainer\.learning_rate: must be over 0 and finite, got in"),
        ("backbone.learning_rate=nan", r"backbone\.learning_rate: must be over 0"),
        ("backbone.image_size=16", r"backbone\.image_size: must be at least 32, got 16"),
        ("backbone.trainable=some", r"backbone\.trainable: must be one of none, .* got 'some'"),
        ("seed=-1", r"seed: must lie between 0"),
        ("threshold=1.5", r"threshold: must lie between 0 and 1, got 1\.5"),
        ("threshold=nan", r"threshold: must lie between 0 and 1, got nan"),
        ("cohort.views=[LL]", r"cohort\.views: must name some of PA, AP"),
        ("cohort.negatives_per_positive=0", r"cohort\.negatives_per_positive: must be at least 1"),
        ("data.workers=-1", r"data\.workers: must be null or at least 0"),
        ("data.prefetch=0", r"data\.prefetch: must be at least 1"),
        ("split.fractions=[0.8,0.2]", r"split\.fractions: must be three shares .* got \[0\.8, 0"),
        ("split.fractions=[0.8,0.3,-0.1]", r"split\.fractions: must be three shares"),
        ("split.fractions=[0.8,0.1,0.2]", r"split\.fractions: .* that sum to 1"),
        ("split.fractions=[nan,0.5,0.5]", r"split\.fractions: must be three shares"),
        ("augment.rotation=nan", r"augment\.rotation: must lie between 0 and 180, got nan"),
        ("augment.brightness=[1.5,0.5]", r"augment\.brightness: must be null or \[smallest, larg"),
        ("trainer.max_epochs=many", r"trainer\.max_epochs: Value 'many'"),
        ("balance=perhaps", r"balance: Value 'perhaps' is not a valid bool"),
        ("+new_key=1", r"new_key"),
        ("features.views=0", r"features\.views: must be at least 1"),
        ("~head", r"head"),
    ],
)  # fmt: skip
def test_values_out_of_range(
    composed: Callable[..., DictConfig], override: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        config.check(composed(override))


def test_features_are_reused_of_a_frozen_backbone_only(
    composed: Callable[..., DictConfig],
) -> None:
    with pytest.raises(UserError, match=r"features=reuse: needs a frozen backbone"):
        config.check(composed("features=reuse", "backbone.trainable=all"))


def test_every_choice_of_conf_is_of_the_schema(
    composed: Callable[..., DictConfig], tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text("transform: {__class_fullname__: HorizontalFlip, p: 0.5}")
    needed = {"timm": "backbone.model=resnet18", "own": "{}._target_=mine.Own"}
    needed["pipeline"] = f"augment.file={tmp_path / 'a.yaml'}"
    needed["freeze_then_tune"] = "trainer.max_epochs=9"
    for group in (
        "backbone", "head", "loss", "optimizer", "schedule", "averaging", "data", "cohort",
        "split", "augment", "features", "logger",
    ):  # fmt: skip
        for path in (config.CONF_DIR / group).glob("[!_]*.yaml"):
            more = [needed[path.stem].format(group)] if path.stem in needed else []
            config.check(composed(f"{group}={path.stem}", *more))


def test_modules_of_ones_own_are_named_by_trust(composed: Callable[..., DictConfig]) -> None:
    assert config.check(composed()).trust == []
    assert config.check(composed("trust=mine")).trust == ["mine"]
    assert config.check(composed("trust=[a,b.c]")).trust == ["a", "b.c"]
    assert config.is_trusted("cardiomegaly.model.heads.GAPHead", "head")
    assert not config.is_trusted("torch.nn.Linear", "head")
    assert config.is_trusted("b.c.Head", "head", ["a", "b.c"])
    for target in ("os.system", "b.c.d.Head", "cardiomegaly.model.heads.torch.load", "Head"):
        assert not config.is_trusted(target, "head", ["a", "b.c"])


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ((), "mobilenetv1"),
        (("backbone=resnet152v2",), "resnet152v2"),
        (("backbone.model=resnet18.a1_in1k",), "resnet18.a1_in1k"),
        (("backbone.model=hf_hub:timm/resnet18",), "hf_hub-timm-resnet18"),
    ],
)
def test_a_network_is_called_what_it_is(
    composed: Callable[..., DictConfig], words: tuple[str, ...], name: str
) -> None:
    assert config.check(composed(*words)).backbone.name == name


def test_what_must_be_given_is_named(composed: Callable[..., DictConfig]) -> None:
    with pytest.raises(
        UserError, match=r"^backbone\.model: required but not given; say backbone\.m"
    ):
        config.check(composed("backbone=timm"))
