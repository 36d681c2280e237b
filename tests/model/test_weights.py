"""Weights are found or fetched, as they were published, or refused in one clear line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from omegaconf import OmegaConf

from cardiomegaly import UserError
from cardiomegaly.config import CONF_DIR, backbones
from cardiomegaly.data import transfer
from cardiomegaly.data.download import download
from cardiomegaly.model import resnet152v2
from cardiomegaly.model.weights import cache_folder, load_weights, obtain, pretrained_weights
from tests.file_server import FileServer, closed_url, serving, weights_from
from tests.keras_files import resnet152v2_shapes, write_keras_file

MOBILENET = "mobilenetv1_100.ra4_e3600_r224_in1k"
BACKBONES = list(backbones())


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty caches, and servers that refuse every connection."""
    weights_from(closed_url().rpartition("/")[0], tmp_path / "cache", monkeypatch)
    monkeypatch.setattr(transfer, "PATIENCE", 1)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A file as the hub has it; nothing here looks into it."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights" * 1000)
    return path


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the right layers and shapes, all zeros, small on the disk."""
    path = tmp_path_factory.mktemp("official") / resnet152v2.URL.rpartition("/")[2]
    write_keras_file(path, resnet152v2_shapes())
    return path


@pytest.fixture
def keras_server(
    official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FileServer]:
    content = official.read_bytes()
    with serving(FileServer(content)) as server:
        weights_from(server.url.rpartition("/")[0], tmp_path / "cache", monkeypatch)
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        monkeypatch.setattr(resnet152v2, "MD5", md5)
        yield server


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Which file


def test_none_is_no_file() -> None:
    obtained = obtain("resnet152v2", "none", download)
    assert (obtained.path, obtained.source, obtained.sha256) == (None, "random", None)


def test_a_path_is_that_file_with_its_checksum(published: Path) -> None:
    obtained = obtain(MOBILENET, str(published), download)
    assert obtained.path == published
    assert obtained.name == "model.safetensors"
    assert obtained.sha256 == sha256(published)


def test_an_absent_path_is_named() -> None:
    with pytest.raises(
        UserError,
        match=r"backbone\.weights=gone\.pt: must be pretrained, none or a file; there is no such",
    ):
        obtain(MOBILENET, "gone.pt", download)


def test_a_network_without_pretrained_weights_is_refused() -> None:
    with pytest.raises(UserError, match=r"backbone\.model=resnetv2_152: timm has no pretrained"):
        obtain("resnetv2_152", "pretrained", download)
    with pytest.raises(UserError, match=r"it has .*resnet50\.tv_in1k.*backbone\.weights=none"):
        obtain("resnet50.nonsense", "pretrained", download)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_backbone_of_the_study_has_pretrained_weights(backbone: str) -> None:
    config = OmegaConf.load(CONF_DIR / "backbone" / f"{backbone}.yaml")
    assert config.name == backbone
    assert config.model in timm.list_models(pretrained=True)
    assert pretrained_weights(config.model).name == config.model


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
    weights = pretrained_weights(name)
    with pytest.raises(UserError) as caught:
        obtain(name, "pretrained", download)
    told = str(caught.value)
    assert "\n" not in told
    for part in (
        f"the weights of {weights.name} are not on this machine",
        weights.url,
        "Could not connect to server",
        f"Put that file at {weights.placed}, or",
        "backbone.weights=PATH",
        "python -m cardiomegaly.weights fetch",
        "backbone.weights=none trains from scratch",
    ):
        assert part in told


@pytest.mark.parametrize("name", [MOBILENET, "resnet152v2"])
@pytest.mark.parametrize("faults", [{"silent": True}, {"trickle": 0.2}])
def test_a_server_that_stalls_or_trickles_is_not_waited_for(
    name: str, faults: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def once(url: str, target: Path, checksum: str) -> None:
        download(url, target, checksum, pauses=())

    with serving(FileServer(b"something", **faults)) as server:  # type: ignore[arg-type]
        weights_from(server.url.rpartition("/")[0], tmp_path, monkeypatch)
        with pytest.raises(UserError, match="Operation too slow. Less than 1000 bytes/sec"):
            obtain(name, "pretrained", once)


def test_the_hub_is_left_alone_where_it_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"\(HF_HUB_OFFLINE is set\)"):
        obtain(MOBILENET, "pretrained", download)


# timm's backbones


def test_a_file_in_our_cache_folder_comes_first(published: Path) -> None:
    placed = cache_folder() / f"{MOBILENET}.safetensors"
    placed.parent.mkdir(parents=True)
    published.rename(placed)
    obtained = obtain("mobilenetv1_100", "pretrained", download)  # timm's default tag
    assert (obtained.path, obtained.name) == (placed, MOBILENET)


def test_the_hub_is_asked_once_and_its_checksum_counts(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pretrained_weights(MOBILENET).find() is None
    server = FileServer(published.read_bytes(), redirects=True)
    server.headers = {"X-Linked-Etag": f'"{"0" * 64}"'}
    with serving(server):
        weights_from(server.url.rpartition("/")[0], tmp_path / "cache", monkeypatch)
        with pytest.raises(UserError, match=f"sha256 checksum {sha256(published)}, published is 0"):
            obtain(MOBILENET, "pretrained", download)
        assert [path.suffix for path in cache_folder().iterdir()] == [".lock"]
        server.headers = {"X-Linked-Etag": f'"{sha256(published)}"'}
        obtained = obtain(MOBILENET, "pretrained", download)
    assert obtained.path == cache_folder() / f"{MOBILENET}.safetensors"
    assert obtained.sha256 == sha256(published) == sha256(obtained.path)
    assert obtained.source.endswith(f"/timm/{MOBILENET}/resolve/main/model.safetensors")
    assert obtain(MOBILENET, "pretrained", download) == obtained  # the server is gone


def test_the_cache_of_the_hubs_own_client_is_used_and_checked(published: Path) -> None:
    hub = Path(constants.HF_HUB_CACHE) / f"models--timm--{MOBILENET}"
    blob = hub / "blobs" / sha256(published)
    snapshot = hub / "snapshots" / ("1" * 40) / "model.safetensors"
    for path in (blob, snapshot, hub / "refs" / "main"):
        path.parent.mkdir(parents=True, exist_ok=True)
    (hub / "refs" / "main").write_text("1" * 40)
    published.rename(blob)
    snapshot.symlink_to(blob)
    assert obtain(MOBILENET, "pretrained", download).path == snapshot
    blob.write_bytes(b"<html>")
    with pytest.raises(UserError, match=rf"{blob.name}: has the sha256 checksum .*; delete it"):
        obtain(MOBILENET, "pretrained", download)


# Keras' file


def test_keras_file_is_fetched_checked_and_kept(keras_server: FileServer, official: Path) -> None:
    obtained = obtain("resnet152v2", "pretrained", download)
    assert obtained.path == cache_folder() / official.name
    assert obtained.path.read_bytes() == official.read_bytes()
    assert obtained.name == "resnet152v2.keras_in1k"
    assert obtain("resnet152v2", "pretrained", download) == obtained
    assert keras_server.ranges_asked == [""]
    load_weights(timm.create_model("resnet152v2", num_classes=0), obtained.path)


def test_keras_file_put_by_hand_is_used_and_converted_before(
    official: Path, keras_server: FileServer
) -> None:
    weights = pretrained_weights("resnet152v2")
    weights.placed.parent.mkdir(parents=True)
    weights.placed.write_bytes(official.read_bytes())
    assert weights.find() == weights.fetch(download) == weights.placed
    converted = cache_folder() / f"{weights.name}.safetensors"
    converted.touch()
    assert weights.find() == converted
    assert keras_server.asked == []


def test_keras_file_with_a_wrong_checksum_is_refused(official: Path) -> None:
    by_hand = pretrained_weights("resnet152v2").placed
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes(official.read_bytes())
    with pytest.raises(UserError, match=r"notop\.h5: has the md5 checksum \w+, published is ed17"):
        obtain("resnet152v2", "pretrained", download)
    assert by_hand.exists()


def test_a_wrong_file_from_kerass_server_is_not_kept(
    keras_server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resnet152v2, "MD5", "0" * 32)
    with pytest.raises(UserError, match="has the md5 checksum .* it was deleted"):
        obtain("resnet152v2", "pretrained", download)
    assert [path.suffix for path in cache_folder().iterdir()] == [".lock"]
