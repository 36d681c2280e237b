"""A tiny phantom cohort, the real configuration shrunk to it, the NIH sample if it is at hand."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import absl.logging
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cardiomegaly import config, export
from cardiomegaly.data.phantom.cohort import generate_phantom
from cardiomegaly.train import train_and_report

SHARED = Path(__file__).parents[2] / "shared"
IMAGES = 90


def pytest_configure() -> None:
    """One thread a process, here and in the commands that tests start: they run side by side.

    A shell starts what it runs in the background deaf to Ctrl-C, and so would the tests be.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # absl, which Keras imports, closes its stream where logging is configured anew, as Hydra does,
    # and would take the one that pytest captures into.
    absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True)
def _deaf_pipes() -> Iterator[None]:
    """Undo what `--help` changes in its process, so that a closed pipe does not end the tests."""
    yield
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)


@pytest.fixture(scope="session")
def phantom_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small phantom cohort in NIH's layout."""
    root = tmp_path_factory.mktemp("data") / "phantom"
    generate_phantom(root, images=IMAGES, size=64, seed=0, label_noise=0.0)
    return root


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the decoded images of all tests are kept."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def small(phantom_root: Path, cache_dir: Path) -> list[str]:
    """Overrides that shrink the real configuration to the tiny cohort and one short epoch."""
    return [
        "data=nih",
        f"data.root={phantom_root}",
        f"data.cache={cache_dir}",
        "data.workers=0",
        "split.fractions=[0.5,0.25,0.25]",
        "backbone.weights=none",
        "backbone.image_size=64",
        "trainer=cpu",
        "trainer.max_epochs=1",
        "trainer.batch_size=16",
        "trainer.precision=32-true",
        "trainer.progress_bar=false",
        "logger=none",
    ]


@pytest.fixture(scope="session")
def composed(small: list[str]) -> Callable[..., DictConfig]:
    """Compose the real configuration: small first, then the given overrides."""

    def build(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(config.CONF_DIR.resolve()), version_base="1.3"):
            return compose("config", overrides=[*small, *overrides])

    return build


@pytest.fixture(scope="session")
def trained(composed: Callable[..., DictConfig]) -> Callable[..., Path]:
    """Train in a folder, as the command does, and return it."""

    def build(folder: Path, *overrides: str) -> Path:
        cfg = composed(*overrides)
        train_and_report(config.check(cfg), folder)
        write_config(cfg, folder)
        (folder / ".hydra" / "overrides.yaml").write_text(OmegaConf.to_yaml(list(overrides)))
        return folder

    return build


def write_config(cfg: DictConfig, folder: Path) -> None:
    """Write a configuration into a run folder, as Hydra does."""
    (folder / ".hydra").mkdir(exist_ok=True)
    (folder / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(cfg))


@pytest.fixture(scope="session")
def trained_run(trained: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny run (two epochs, MobileNetV1, everything trained)."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return trained(folder, "trainer.max_epochs=2", "backbone.trainable=all")


@pytest.fixture(scope="session")
def onnx_file(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run as an ONNX file, with what travels beside it."""
    folder = tmp_path_factory.mktemp("exported")
    assert export.main([f"run={trained_run}", "format=onnx", f"output={folder}"]) == 0
    return folder / "model.onnx"


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], None]]:
    """Makes folders read-only, for root too; skips where that is not allowed."""
    mounted: list[Path] = []

    def mount(folder: Path) -> None:
        steps = ["--bind", folder, folder], ["-o", "remount,bind,ro", folder]
        for step in steps if sys.platform == "linux" else ():
            if subprocess.run(["/bin/mount", *step], capture_output=True, check=False).returncode:  # noqa: S603
                pytest.skip("mounting is not allowed here")
            mounted.append(folder)
        if not mounted:
            pytest.skip("mounts as Linux does")

    yield mount
    for folder in set(mounted):
        subprocess.run(["/bin/umount", "-l", folder], check=True)  # noqa: S603


@pytest.fixture
def command_in_process() -> Iterator[None]:
    """Undo what `cardiomegaly.train.main` changes in its process: handlers of logs and signals."""
    root, on_signal = logging.getLogger(), signal.getsignal(signal.SIGTERM)
    before = root.handlers[:]
    yield
    for handler in set(root.handlers) - set(before):
        handler.close()
    root.handlers[:] = before
    signal.signal(signal.SIGTERM, on_signal)
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 1 MiB; skips where mounting is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["/bin/mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:  # noqa: S603
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["/bin/umount", "-l", folder], check=True)  # noqa: S603


@pytest.fixture(scope="session")
def nih_sample() -> Path:
    """The real NIH images, where they are at hand."""
    folder = SHARED / "nih-sample"
    if not folder.is_dir():
        pytest.skip(f"the NIH sample is not at {folder}")
    return folder


@pytest.fixture(scope="session")
def imagenet_weights() -> Path:
    """Real ImageNet weights of MobileNetV1, where they are at hand."""
    path = SHARED / "weights" / "mobilenetv1_imagenet_partial.safetensors"
    if not path.is_file():
        pytest.skip(f"the ImageNet weights are not at {path}")
    return path
