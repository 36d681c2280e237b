"""From a folder to batches: what is found, kept, left out, and drawn in which epoch."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from cardiomegaly import UserError, config
from cardiomegaly.data import dataset as datasets
from cardiomegaly.data.datamodule import CardiomegalyDataModule, choose_workers
from cardiomegaly.training.run import build_datamodule
from cardiomegaly.training.trainer import quiet_lightning

Compose = Callable[..., DictConfig]


@pytest.fixture
def root(phantom_root: Path, tmp_path: Path) -> Path:
    """A copy of the small cohort that a test may change."""
    return Path(shutil.copytree(phantom_root, tmp_path / "cohort"))


@pytest.fixture
def build(composed: Compose, root: Path, tmp_path: Path) -> Callable[..., CardiomegalyDataModule]:
    def make(*overrides: str) -> CardiomegalyDataModule:
        words = (f"data.root={root}", f"data.cache={tmp_path / 'cache'}", "cohort=all")
        return build_datamodule(config.check(composed(*words, *overrides)))

    return make


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded for the store."""
    names: list[str] = []
    real = datasets.decode_images

    def counting(paths: list[str], size: int, fit: str, workers: int | None) -> object:
        names.extend(Path(path).name for path in paths)
        return real(paths, size, fit, workers)

    monkeypatch.setattr(datasets, "decode_images", counting)
    return names


def prepared(datamodule: CardiomegalyDataModule) -> CardiomegalyDataModule:
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def add_image(root: Path, name: str = "00009999_000.png") -> None:
    """Put one more image and its row into a cohort."""
    Image.fromarray(np.full((64, 64), 99, np.uint8)).save(root / "images" / name)
    with (root / "Data_Entry_2017.csv").open("a") as file:
        file.write(f"{name},No Finding,0,9999,50,M,PA,2048,2500,0.1,0.1\n")


def test_an_image_added_during_a_run_harms_nothing(
    build: Callable[..., CardiomegalyDataModule], root: Path, decoded: list[str]
) -> None:
    datamodule = prepared(build())
    before = {part: table.copy() for part, table in datamodule.parts.items()}
    n = len(decoded)
    add_image(root)
    prepared(datamodule)  # as Lightning does in `fit`
    assert len(decoded) == n
    for part, table in datamodule.parts.items():
        pd.testing.assert_frame_equal(table, before[part])
    assert len(next(iter(datamodule.train_dataloader()))["image"]) == 16
    other = prepared(build())  # another run, which sees it
    assert decoded[n:] == ["00009999_000.png"]
    assert len(other.split_table) == len(datamodule.split_table) + 1
    batch = next(iter(datamodule.val_dataloader()))
    np.testing.assert_array_equal(
        batch["image"][:, 0],
        [datasets.decode_image(path, 64, "stretch") for path in before["val"]["path"][:16]],
    )


def test_runs_on_two_label_files_share_the_store(
    build: Callable[..., CardiomegalyDataModule], root: Path, decoded: list[str]
) -> None:
    lines = (root / "Data_Entry_2017.csv").read_text().splitlines(keepends=True)
    (root / "fewer.csv").write_text("".join(lines[:-10]))
    fewer = prepared(build("data.labels=fewer.csv"))
    n = len(decoded)
    assert n == len(lines) - 11
    whole = prepared(build("data.labels=Data_Entry_2017.csv"))
    assert len(decoded) == len(lines) - 1
    assert whole.store.folder == fewer.store.folder
    prepared(build("data.labels=fewer.csv"))
    assert len(decoded) == len(lines) - 1
    next(iter(fewer.train_dataloader()))  # what the first run uses is there


def test_unreadable_images_are_counted_and_named(
    build: Callable[..., CardiomegalyDataModule], root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = sorted(path.name for path in (root / "images").glob("*.png"))
    (root / "images" / names[0]).write_bytes(b"x")
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(root / "images" / names[1])
    (root / "images" / names[2]).unlink()
    datamodule = prepared(build())
    assert datamodule.unreadable == names[:2]
    assert datamodule.labelled.n_missing == 1
    assert f"2 of {len(names) - 1} images cannot be read and are left out" in caplog.text
    assert f"{names[0]} is not a PNG, JPEG or DICOM file" in caplog.text
    assert f"{names[1]} is 1 x 1 pixels" in caplog.text
    for name in names[3:]:
        (root / "images" / name).write_bytes(b"x")
    with pytest.raises(
        UserError, match=r"data\.root: none of the \d+ images can be read: .* is no"
    ):
        prepared(build())


def test_a_read_only_cache_will_do(
    build: Callable[..., CardiomegalyDataModule],
    root: Path,
    tmp_path: Path,
    read_only: Callable[[Path], None],
) -> None:
    prepared(build())
    read_only(tmp_path / "cache")
    datamodule = prepared(build())
    assert sum(len(batch["image"]) for batch in datamodule.train_dataloader()) > 0
    add_image(root)
    with pytest.raises(UserError, match=r"data\.cache: .* cannot be written .*Read-only"):
        prepared(build())


def test_old_caches_are_spoken_of_once(
    build: Callable[..., CardiomegalyDataModule], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    former = tmp_path / "cache" / "features-old"
    former.mkdir(parents=True)
    (former / "rows.float16").write_bytes(bytes(10**6))
    os.utime(former / "rows.float16", (1, 1))
    datamodule = prepared(build())
    datamodule.prepare_data()
    assert caplog.text.count("1 caches in") == 1
    assert "python -m cardiomegaly" in caplog.text


@pytest.mark.filterwarnings("ignore:This DataLoader will create 8 worker processes")
@pytest.mark.parametrize("on_gpu", [True, False])
def test_loaders_follow_the_device_of_the_run(
    build: Callable[..., CardiomegalyDataModule], on_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 12)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    datamodule = build("data.workers=null")
    assert not datamodule.on_gpu  # trainer=cpu on a machine with a GPU
    datamodule.on_gpu = on_gpu
    prepared(datamodule)
    loaders = datamodule.train_dataloader(), datamodule.val_dataloader()
    assert [loader.num_workers for loader in loaders] == ([8, 8] if on_gpu else [1, 0])
    assert {loader.pin_memory for loader in loaders} == {on_gpu}
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert choose_workers(on_gpu, training=True) == on_gpu


class Recorder(LightningModule):
    """Learns nothing and writes down the batches of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: dict[int, list[tuple[list[int], int]]] = {}

    def training_step(self, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
        key = (batch["index"].tolist(), int(batch["image"].long().sum()))
        self.seen.setdefault(self.current_epoch, []).append(key)
        return self.weight.sum()

    def validation_step(self, batch: dict[str, torch.Tensor], number: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(
    datamodule: CardiomegalyDataModule, folder: Path, epochs: int, resume: Path | None = None,
    **options: Any,
) -> Recorder:  # fmt: skip
    module = Recorder()
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
        callbacks=[ModelCheckpoint(folder, "{epoch}-{step}", save_top_k=-1, **options)],
    )  # fmt: skip
    with quiet_lightning():
        trainer.fit(module, datamodule=datamodule, ckpt_path=resume, weights_only=True)
    return module


def test_a_broken_pipe_is_the_loader_process_that_was_killed(
    build: Callable[..., CardiomegalyDataModule],
) -> None:
    """The pipe may break before the system says that the process has ended."""
    datamodule = prepared(build("data.workers=1"))
    before = set(multiprocessing.active_children())
    batches = iter(datamodule.train_dataloader())
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - before
    Timer(0.3, worker.kill).start()
    with pytest.raises(RuntimeError, match=rf"DataLoader worker \(pid {worker.pid}\) is killed"):
        datamodule.on_exception(EOFError())
    datamodule.on_exception(ValueError())  # says nothing of processes: passes at once


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize(
    "options",
    [{}, {"save_on_train_epoch_end": True}, {"every_n_train_steps": 2}],
    ids=["after validation", "after the epoch", "within the epoch"],
)
def test_an_epoch_has_its_batches_whatever_loads_them_and_wherever_it_was_resumed(
    build: Callable[..., CardiomegalyDataModule],
    tmp_path: Path,
    workers: int,
    options: dict[str, Any],
) -> None:
    words = (f"data.workers={workers}", "trainer.batch_size=16")
    whole = fit(prepared(build("data.workers=0", words[1])), tmp_path / "whole", 4).seen
    assert len({str(batches) for batches in whole.values()}) == 4
    first = fit(prepared(build(*words)), tmp_path / "parts", 2, **options).seen
    assert first == {epoch: whole[epoch] for epoch in (0, 1)}
    for checkpoint in list((tmp_path / "parts").glob("*.ckpt")):
        step = int(checkpoint.stem.partition("step=")[2])
        later = fit(prepared(build(*words)), tmp_path / "parts", 4, resume=checkpoint, **options)
        assert set(later.seen) == set(range(step // len(whole[0]), 4))
        for epoch, batches in later.seen.items():
            # Lightning ends an epoch that was resumed in its midst where it would have ended.
            assert batches == whole[epoch][: len(batches)]
