"""Weights are found, fetched and loaded whole, or refused in one clear line."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn

from cardiomegaly import UserError
from cardiomegaly import weights as command
from cardiomegaly.config import CONF_DIR
from cardiomegaly.model import download, keras_weights, pretrained
from cardiomegaly.model.keras_weights import KerasFile
from cardiomegaly.model.pretrained import cache_folder, pretrained_source
from cardiomegaly.model.state import convert_keras, read_state
from cardiomegaly.model.weights import load_weights, obtain
from tests.file_server import FileServer, closed_url, serving
from tests.keras_files import resnet152v2_shapes, write_keras_file

MOBILENET = "mobilenetv1_100.ra4_e3600_r224_in1k"
BACKBONES = sorted(path.stem for path in (CONF_DIR / "backbone").glob("[!_]*.yaml"))


@pytest.fixture(autouse=True)
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, and servers that refuse every connection."""
    nobody = closed_url().removesuffix("/weights.h5")
    monkeypatch.setenv("CARDIOMEGALY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    use_hub(monkeypatch, nobody)
    moved = KerasFile(f"{nobody}/{keras_weights.RESNET152V2.name}", keras_weights.RESNET152V2.md5)
    monkeypatch.setattr(pretrained, "RESNET152V2", moved)
    return tmp_path


def use_hub(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    constants = huggingface_hub.constants
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def mobilenet(seed: int, num_classes: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(
        MOBILENET, num_classes=num_classes, global_pool="" if not num_classes else "avg"
    )


def equal(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A file as timm keeps it on the hub: with the classifier of ImageNet."""
    path = tmp_path / "model.safetensors"
    save_file(mobilenet(1, num_classes=1000).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the right layers and shapes, all zeros, small on the disk."""
    path = tmp_path_factory.mktemp("official") / keras_weights.RESNET152V2.name
    write_keras_file(path, resnet152v2_shapes())
    return path


@pytest.fixture
def keras_server(official: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    content = official.read_bytes()
    with serving(FileServer(content)) as server:
        url = server.url.replace("weights.h5", official.name)
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        monkeypatch.setattr(pretrained, "RESNET152V2", KerasFile(url, md5))
        yield server


# Which file


def test_none_is_no_file() -> None:
    obtained = obtain("resnet152v2", "none")
    assert (obtained.path, obtained.source, obtained.sha256) == (None, "random", None)


def test_a_path_is_that_file_with_its_checksum(published: Path) -> None:
    obtained = obtain(MOBILENET, str(published))
    assert obtained.path == published
    assert obtained.name == "model.safetensors"
    assert obtained.sha256 == hashlib.sha256(published.read_bytes()).hexdigest()


def test_an_absent_path_is_named() -> None:
    with pytest.raises(
        UserError,
        match=r"backbone\.weights=gone\.pt: must be pretrained, none or a file; there is no such",
    ):
        obtain(MOBILENET, "gone.pt")


def test_a_network_without_pretrained_weights_is_refused() -> None:
    with pytest.raises(UserError, match=r"backbone\.model=resnetv2_152: timm has no pretrained"):
        obtain("resnetv2_152", "pretrained")
    with pytest.raises(UserError, match=r"it has .*resnet50\.tv_in1k.*backbone\.weights=none"):
        obtain("resnet50.nonsense", "pretrained")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_backbone_of_the_study_has_pretrained_weights(backbone: str) -> None:
    config = OmegaConf.load(CONF_DIR / "backbone" / f"{backbone}.yaml")
    assert config.name == backbone
    assert config.model in timm.list_models(pretrained=True)
    assert pretrained_source(config.model).name == config.model


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_last_stage_is_what_comes_last(backbone: str) -> None:
    """All the parameters from the first of the last stage on, and not all of the network's."""
    config = OmegaConf.load(CONF_DIR / "backbone" / f"{backbone}.yaml")
    with torch.device("meta"):
        model = timm.create_model(config.model, num_classes=0)
    in_stage = [
        any(name.startswith(f"{module}.") for module in config.last_stage)
        for name, _ in model.named_parameters()
    ]
    assert in_stage == sorted(in_stage)
    assert 0 < sum(in_stage) < len(in_stage) / 2
    for module in config.last_stage:
        model.get_submodule(module)


# Without a network


@pytest.mark.parametrize("name", [MOBILENET, "resnet152v2"])
def test_without_a_network_one_line_says_what_to_do(name: str) -> None:
    source = pretrained_source(name)
    expected = source.placed if source.repository else cache_folder() / source.file
    with pytest.raises(UserError) as caught:
        obtain(name, "pretrained")
    told = str(caught.value)
    assert "\n" not in told
    assert re.search(r"\((<urlopen error )?\[Errno \d+\] Connection refused", told)
    for part in (
        f"the weights of {source.name} are not on this machine",
        source.url,
        f"Put that file at {expected}, or",
        "backbone.weights=PATH",
        "python -m cardiomegaly.weights fetch",
        "backbone.weights=none trains from scratch",
    ):
        assert part in told


@pytest.mark.parametrize("name", [MOBILENET, "resnet152v2"])
def test_a_silent_server_is_not_waited_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PATIENCE", 0.2)
    with serving(FileServer(b"", silent=True)) as server:
        use_hub(monkeypatch, server.url.removesuffix("/weights.h5"))
        monkeypatch.setattr(pretrained, "RESNET152V2", KerasFile(server.url, "0"))
        with pytest.raises(UserError, match="timed out|no answer in 0.2 seconds"):
            obtain(name, "pretrained")


# timm's backbones


def test_a_file_in_our_cache_folder_comes_first(published: Path) -> None:
    placed = cache_folder() / f"{MOBILENET}.safetensors"
    placed.parent.mkdir(parents=True)
    published.rename(placed)
    obtained = obtain("mobilenetv1_100", "pretrained")  # timm's default tag
    assert (obtained.path, obtained.name) == (placed, MOBILENET)


def test_the_hub_is_asked_once_and_its_cache_afterwards(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pretrained_source(MOBILENET).find() is None
    with serving(FileServer(published.read_bytes())) as server:
        use_hub(monkeypatch, server.url.removesuffix("/weights.h5"))
        obtained = obtain(MOBILENET, "pretrained")
    assert obtained.path is not None
    assert obtained.path.read_bytes() == published.read_bytes()
    assert obtained.source.endswith(f"/timm/{MOBILENET}/resolve/main/model.safetensors")
    assert obtain(MOBILENET, "pretrained") == obtained  # the server is gone


def test_loading_equals_timm_itself(published: Path) -> None:
    overlay = {"file": str(published)}
    expected = timm.create_model(
        MOBILENET, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay
    )
    model = mobilenet(2)
    assert not equal(model, expected)
    load_weights(model, published)
    assert equal(model, expected)


def test_a_torch_state_dict_is_loaded_too(tmp_path: Path) -> None:
    torch.save(mobilenet(1).state_dict(), tmp_path / "state.pt")
    model = mobilenet(2)
    load_weights(model, tmp_path / "state.pt")
    assert equal(model, mobilenet(1))


def test_a_file_without_counters_of_batch_norm_is_whole(tmp_path: Path) -> None:
    state = mobilenet(1).state_dict()
    save_file(
        {k: v for k, v in state.items() if "num_batches" not in k}, tmp_path / "a.safetensors"
    )
    model = mobilenet(2)
    load_weights(model, tmp_path / "a.safetensors")
    assert equal(model, mobilenet(1))


def test_weights_that_do_not_fit_are_refused_whole(tmp_path: Path) -> None:
    state = mobilenet(1).state_dict()
    del state["conv_stem.weight"]
    state["bn1.weight"] = torch.ones(3)
    state |= {f"other.{i}": torch.zeros(1) for i in range(5)}
    save_file(state, tmp_path / "a.safetensors")
    model = mobilenet(2)
    with pytest.raises(
        UserError,
        match=r"a\.safetensors: these weights are of another network: "
        r"1 missing \(conv_stem\.weight\), "
        r"5 unexpected \(other\.0; other\.1; other\.2; \.\.\.\), "
        r"1 of another shape \(bn1\.weight is \(3,\), must be \(32,\)\)$",
    ):
        load_weights(model, tmp_path / "a.safetensors")
    assert equal(model, mobilenet(2))


def test_only_the_classifier_may_be_dropped(published: Path) -> None:
    model = mobilenet(2, num_classes=2)
    with pytest.raises(UserError, match=r"2 of another shape \(classifier\.weight is \(1000,"):
        load_weights(model, published)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.h5"])
def test_a_broken_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"<html>log in</html>")
    with pytest.raises(UserError, match=rf"{name}: not a (readable|whole)"):
        read_state(tmp_path / name)


def test_a_checkpoint_is_not_a_state_dict(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt: holds dict, must be a plain state dict"):
        read_state(tmp_path / "last.ckpt")


def test_the_shared_mobilenet_fits(imagenet_weights: Path) -> None:
    model = timm.create_model(MOBILENET, num_classes=0, global_pool="", pad_type="same")
    load_weights(model, imagenet_weights)


# Keras' file


def test_keras_file_is_fetched_checked_converted_and_kept(keras_server: FileServer) -> None:
    obtained = obtain("resnet152v2", "pretrained")
    kept = cache_folder() / "resnet152v2.keras_in1k.safetensors"
    assert obtained.path == kept
    assert obtained.name == "resnet152v2.keras_in1k"
    assert [path for path in cache_folder().iterdir() if path.suffix != ".lock"] == [kept]
    assert obtain("resnet152v2", "pretrained") == obtained
    assert keras_server.asked == [""]
    kept.unlink()  # 233 MB


def test_keras_file_put_by_hand_is_converted(official: Path, keras_server: FileServer) -> None:
    by_hand = cache_folder() / official.name
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes(official.read_bytes())
    assert pretrained_source("resnet152v2").find() == by_hand
    path = pretrained_source("resnet152v2").fetch()
    assert path.suffix == ".safetensors"
    assert by_hand.exists()
    assert keras_server.asked == []
    path.unlink()


def test_keras_file_with_a_wrong_checksum_is_refused(
    official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand = cache_folder() / official.name
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes(official.read_bytes())
    with pytest.raises(UserError, match=r"notop\.h5: has the md5 checksum \w+, published is ed17"):
        obtain("resnet152v2", "pretrained")
    with serving(FileServer(b"something else")) as server:
        by_hand.unlink()
        monkeypatch.setattr(pretrained, "RESNET152V2", KerasFile(server.url, "0" * 32))
        with pytest.raises(UserError, match="has the md5 checksum .* it was deleted"):
            obtain("resnet152v2", "pretrained")


def test_a_keras_file_of_another_network_is_refused(tmp_path: Path) -> None:
    layers = [
        (name, tensors)
        for name, tensors in resnet152v2_shapes()
        if not re.match(r"conv4_block(2\d|3\d)_", name)
    ]
    write_keras_file(tmp_path / "resnet101v2.h5", layers)
    with pytest.raises(
        UserError,
        match=r"another network: \d+ missing \(stages\.2\.19\.norm1\.weight; .*\.\.\.\)$",
    ):
        convert_keras(tmp_path / "resnet101v2.h5", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_the_file_with_the_classifier_is_refused(tmp_path: Path) -> None:
    layers = [*resnet152v2_shapes(), ("predictions", {"kernel": (2048, 1000), "bias": (1000,)})]
    write_keras_file(tmp_path / "top.h5", layers)
    with pytest.raises(UserError, match=r"2 unexpected \(predictions/predictions/bias:0; pred"):
        convert_keras(tmp_path / "top.h5", tmp_path / "out.safetensors")


def test_a_misshapen_keras_file_is_refused(tmp_path: Path) -> None:
    layers = dict(resnet152v2_shapes())
    layers["conv1_conv"]["kernel"] = (3, 3, 3, 64)
    write_keras_file(tmp_path / "odd.h5", layers.items())
    with pytest.raises(
        UserError, match=r"stem\.conv\.weight is \(64, 3, 3, 3\), must be \(64, 3, 7, 7\)"
    ):
        convert_keras(tmp_path / "odd.h5", tmp_path / "out.safetensors")


def test_a_truncated_keras_file_is_refused(official: Path, tmp_path: Path) -> None:
    (tmp_path / "short.h5").write_bytes(official.read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"short\.h5: not a whole HDF5 file"):
        convert_keras(tmp_path / "short.h5", tmp_path / "out.safetensors")


# The command


def test_list_says_what_is_needed_and_what_is_here(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    placed = cache_folder() / f"{MOBILENET}.safetensors"
    placed.parent.mkdir(parents=True)
    published.rename(placed)
    assert command.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == BACKBONES
    by_name = dict(zip(BACKBONES, lines, strict=False))
    assert re.search(rf"{MOBILENET} +17 MB  {placed}", by_name["mobilenetv1"])
    assert re.search(r"resnet152v2\.keras_in1k +233 MB  missing; http", by_name["resnet152v2"])
    assert str(cache_folder()) in lines[-1]


def test_fetch_goes_on_where_one_cannot_be_had(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    placed = cache_folder() / f"{MOBILENET}.safetensors"
    placed.parent.mkdir(parents=True)
    published.rename(placed)
    assert command.main(["fetch", "backbone=mobilenetv1"]) == 0
    assert command.main(["fetch"]) == 2
    told = capsys.readouterr()
    assert told.out.count(str(placed)) == 2
    assert told.err.count("error: ") == len(BACKBONES) - 1
    assert "Traceback" not in told.err


def test_convert_writes_the_file(tmp_path: Path, official: Path) -> None:
    target = tmp_path / "new" / "out.safetensors"
    assert command.main(["convert", f"source={official}", f"target={target}"]) == 0
    assert target.stat().st_size > 4 * 58_331_648
    target.unlink()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["lst"], "error: 'lst': the first word must be list, fetch or convert"),
        (["fetch", "backbone=vgg16"], "backbone: must be all or one of .*, got 'vgg16'"),
        (["fetch", "backbon=all"], "did you mean 'backbone'"),
        (["convert", "target=a"], "source: required but not given"),
        (["convert", "source=gone.h5", "target=a"], "source=gone.h5: there is no such file"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(words) == 2
    assert re.search(told, capsys.readouterr().err)


def test_help_names_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["fetch", "--help"]):
        assert command.main(words) == 0
        assert "fetch [backbone=all|NAME]" in capsys.readouterr().out
