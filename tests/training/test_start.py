"""What a training starts from: the hub's networks, another run, its own checkpoints as weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import timm
import torch
from omegaconf import DictConfig
from safetensors.torch import save

from cardiomegaly import UserError, cli, config
from cardiomegaly import weights as command
from cardiomegaly.data import transfer
from cardiomegaly.model.predictor import load_classifier, read_checkpoint
from cardiomegaly.model.weights import cache_folder
from cardiomegaly.reports.run_description import weights_of
from cardiomegaly.sweep.plan import check_startable
from cardiomegaly.train import spell_out
from cardiomegaly.training.record import CHECKPOINT, read_run
from cardiomegaly.training.run import build_module
from tests.file_server import FileServer, closed_url, serving, weights_from

Compose = Callable[..., DictConfig]
Train = Callable[..., Path]
NAME = "hf_hub:somebody/chest"
HUB = "backbone=timm", f"backbone.model={NAME}", "backbone.weights=pretrained"
DESCRIBED = {
    "architecture": "test_vit",
    "num_classes": 14,
    "model_args": {"embed_dim": 48, "num_heads": 2},
    "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "classifier": "head"},
}


@pytest.fixture
def published() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return timm.create_model(
        "test_vit", num_classes=14, img_size=64, **DESCRIBED["model_args"]
    ).state_dict()


@pytest.fixture
def hub(
    published: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FileServer]:
    content = save(published)
    files = {"config.json": json.dumps(DESCRIBED).encode(), "model.safetensors": content}
    server = FileServer(
        {f"somebody/chest/resolve/main/{name}": data for name, data in files.items()},
        headers={"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"'},
    )
    with serving(server):
        weights_from(server.url.rpartition("/")[0], tmp_path / "cache", monkeypatch)
        yield server


def test_a_network_of_the_hub_is_fetched_once_and_recorded_without_it(
    hub: FileServer,
    published: dict[str, torch.Tensor],
    composed: Compose,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert command.main(["fetch", f"backbone={NAME}"]) == 0
    asked = len(hub.asked)
    settings = config.check(composed(*HUB))
    module, weights = build_module(settings)
    assert len(hub.asked) == asked == 2
    assert (weights.name, settings.backbone.name) == ("somebody--chest", "hf_hub-somebody-chest")
    assert weights.sha256 == hashlib.sha256(save(published)).hexdigest()
    backbone = module.classifier.backbone
    assert backbone.num_features == 48
    for name, tensor in backbone.model.state_dict().items():
        assert torch.equal(tensor, published[name]), name
    white = torch.full((1, 1, 64, 64), 255, dtype=torch.uint8)
    torch.testing.assert_close(backbone.normalise(white)[0, 0, 0, 0].item(), (1 - 0.5) / 0.25)
    recorded = module.hparams["backbone"]
    assert recorded["model"] == "test_vit"  # so that nobody's checkpoint looks in the network
    assert recorded["options"]["embed_dim"] == 48


def test_a_description_that_is_none_of_timms_is_one_line(
    hub: FileServer, composed: Compose
) -> None:
    cache_folder().mkdir(parents=True)
    (cache_folder() / "somebody--chest.json").write_text('{"architectures": ["ViTModel"]}')
    with pytest.raises(UserError, match=r"chest: .*json describes no network of timm's \(KeyErr"):
        build_module(config.check(composed(*HUB)))
    wrong = "backbone=timm", "backbone.model=hf_hub:chest", "backbone.weights=pretrained"
    with pytest.raises(UserError, match=r"backbone.model=hf_hub:chest: must be hf_hub:OWNER/NAME"):
        build_module(config.check(composed(*wrong)))


def test_without_a_network_one_line_says_where_to_put_the_file(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights_from(closed_url().rpartition("/")[0], tmp_path / "cache", monkeypatch)
    monkeypatch.setattr(transfer, "PATIENCE", 1)
    with pytest.raises(UserError, match=r"Put that file at .*somebody--chest\.safetensors"):
        build_module(config.check(composed(*HUB)))


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_parts_of_another_run(composed: Compose, trained_run: Path) -> None:
    theirs = load_classifier(trained_run / CHECKPOINT)
    words = f"init.run={trained_run}", "backbone.trainable=all"
    ours, weights = build_module(config.check(composed(*words)))
    assert same(state(ours.classifier), state(theirs))
    assert (weights.name, weights.path) == ("run", trained_run / CHECKPOINT)
    ours, _ = build_module(config.check(composed(*words, "init.parts=backbone")))
    assert same(state(ours.classifier.backbone), state(theirs.backbone))
    assert not same(state(ours.classifier.head), state(theirs.head))
    ours, weights = build_module(config.check(composed(*words, "init.parts=[head]")))
    assert same(state(ours.classifier.head), state(theirs.head))
    assert not same(state(ours.classifier.backbone), state(theirs.backbone))
    assert weights.name == "none"
    file = f"backbone.weights={trained_run / CHECKPOINT}"
    ours, weights = build_module(config.check(composed(file)))
    assert same(state(ours.classifier.backbone), state(theirs.backbone))
    assert weights.name == "best.ckpt"


def test_a_run_that_starts_from_another_says_so(
    trained: Train, trained_run: Path, tmp_path: Path
) -> None:
    run = read_run(trained(tmp_path / "next", f"init.run={trained_run}", "head.dropout=0"))
    assert run.meta["init"] == {"run": str(trained_run), "parts": ["backbone", "head"]}
    assert run.meta["weights"]["source"] == str(trained_run / CHECKPOINT)
    assert weights_of(run) == "run"
    before, after = read_checkpoint(trained_run / CHECKPOINT), read_checkpoint(run.checkpoint)
    key = "classifier.backbone.model.conv_stem.weight"  # frozen here
    assert torch.equal(before["state_dict"][key], after["state_dict"][key])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("init.run=gone",), r"init\.run=gone: must be the folder of a run or a checkpoint; there"),
        (("backbone=resnet50",), r"another network: .*; say backbone=\.\.\. of that run, or init"),
        (("head=gap",), r"another network: .*; say head=\.\.\. of that run, or init\.parts"),
        (("init.parts=tail",), r"init\.parts: must name some of backbone, head, got \['tail'\]"),
        (("init.parts=[]",), r"init\.parts: must name some of backbone, head, got \[\]"),
    ],
)
def test_a_run_that_does_not_fit_is_one_line(
    composed: Compose, trained_run: Path, words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build_module(config.check(composed(f"init.run={trained_run}", *words)))


def test_the_short_word_and_the_look_before_the_start(composed: Compose) -> None:
    words = spell_out(["init=a run", "init.parts=backbone"])
    assert words == ["init.run=a run", "init.parts=backbone"]
    settings = config.check(cli.compose(config.CONF_DIR, cli.read_words(words)))
    assert (settings.init.run, settings.init.parts) == ("a run", ["backbone"])
    with pytest.raises(UserError, match=r"^init\.run=gone: must be the folder"):
        check_startable([config.check(composed("init.run=gone"))])
