"""Training in this process: every backbone in both balance modes, results, resumption."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from cardiomegaly import RunError, UserError, config
from cardiomegaly.data import transfer
from cardiomegaly.data.split import split_hash
from cardiomegaly.model.predictor import Predictor, load_classifier, read_checkpoint
from cardiomegaly.reports.run_description import smoke_reasons
from cardiomegaly.train import train_and_report
from cardiomegaly.training import device, trainer
from cardiomegaly.training.callbacks import PatientEarlyStopping
from cardiomegaly.training.module import CardiomegalyModule
from cardiomegaly.training.record import read_run
from cardiomegaly.training.run import build_datamodule, build_module
from tests.conftest import write_config
from tests.file_server import closed_url, weights_from

Train = Callable[..., Path]
Compose = Callable[..., DictConfig]
QUICK = ("mobilenetv1", "efficientnetb0")
BACKBONES = list(config.backbones())


@pytest.mark.parametrize("balance", ["true", "false"])
@pytest.mark.parametrize(
    "backbone",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES],
)
def test_every_configuration_trains_a_step(
    trained: Train, tmp_path: Path, backbone: str, balance: str
) -> None:
    run = read_run(
        trained(
            tmp_path / "run",
            f"backbone={backbone}",
            f"balance={balance}",
            "backbone.image_size=80",  # InceptionV3 needs 75
            "trainer.limit_train_batches=1",
            "trainer.batch_size=4",
        )
    )
    assert run.meta["backbone"] == backbone
    assert run.meta["balance"] == (balance == "true")
    assert np.isfinite(run.history["train/loss"]).all()


@pytest.mark.slow
def test_the_phantom_cohort_trains_without_pretrained_weights(
    trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, caplog: Any
) -> None:
    weights_from(closed_url().rpartition("/")[0], tmp_path / "cache", monkeypatch)
    monkeypatch.setattr(transfer, "PATIENCE", 1)
    words = ("backbone=resnet152v2", "backbone.image_size=64", "backbone.weights=pretrained")
    with pytest.raises(UserError, match=r"backbone\.weights=pretrained: .* Put that file at"):
        trained(tmp_path / "real", *words)
    phantom = (
        "data=phantom", f"data.root={tmp_path / 'phantom'}", "data.phantom.images=60",
        "data.phantom.size=64", "trainer.limit_train_batches=1",
    )  # fmt: skip
    with pytest.raises(UserError, match=r"backbone\.weights=pretrained"):
        trained(tmp_path / "refused", *words, *phantom, "data.phantom.random_weights=false")
    run = read_run(trained(tmp_path / "run", *words, *phantom))
    told = "random weights, as the pretrained ones could not be had: its figures show that the"
    assert run.meta["weights"]["source"].startswith(told)
    assert f"weights: {told}" in capsys.readouterr().out
    assert [r.levelname for r in caplog.records if r.message.startswith(told)] == ["WARNING"]
    assert "a frozen backbone of random weights" in smoke_reasons(run)


def test_run_folder(trained_run: Path) -> None:
    run = read_run(trained_run)
    for split in ("val", "test"):
        rows = run.part(split)
        metrics = run.metrics[split]
        called = rows["probability"] >= 0.5
        assert metrics["n"] == len(rows) == run.meta[f"n_{split}"]
        expected = {
            "auroc": roc_auc_score(rows["target"], rows["probability"]),
            "average_precision": average_precision_score(rows["target"], rows["probability"]),
            "f1": f1_score(rows["target"], called),
            "f1_weighted": f1_score(rows["target"], called, average="weighted"),
        }
        for name, value in expected.items():
            assert metrics[name] == pytest.approx(value), name
    assert run.history["epoch"].tolist() == [0, 1]
    best = run.history["val/auroc"].idxmax()
    assert run.meta["best_epoch"] == best
    for name in ("auroc", "average_precision", "f1", "sensitivity", "specificity"):
        assert run.metrics["val"][name] == run.history[f"val/{name}"][best], name
    assert run.meta["best_value"] == run.metrics["val"]["auroc"]
    split = pd.read_csv(trained_run / "split.csv")
    assert run.meta["split_hash"] == split_hash(split)
    assert run.meta["weights"] == {"name": "none", "source": "random", "sha256": None}
    pictures = {path.name for path in (trained_run / "plots").iterdir()}
    assert pictures >= {
        "history.png", "roc.png", "precision_recall.png", "confusion_matrix.png",
        "training_images.png", "attention_right.png",
    }  # fmt: skip


def test_a_checkpoint_that_is_not_believed_in_the_end_is_refused_at_the_start(
    trained: Train, trained_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    path = folder / "checkpoints" / "best.ckpt"
    checkpoint = read_checkpoint(path)
    checkpoint["hyper_parameters"]["head"]["dropout"] = {"_target_": "builtins.open"}
    torch.save(checkpoint, path)
    words = (f"resume={folder}", "trainer.max_epochs=4", "backbone.trainable=all")
    with pytest.raises(UserError, match=r"best\.ckpt: head\.dropout\._target_: is refused"):
        trained(folder, *words)
    assert (folder / "metrics.json").is_file()
    assert len(pd.read_csv(folder / "history.csv")) == 2


def test_probabilities_keep_their_order_and_digits_where_logits_are_low(
    trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_low(settings: config.Config) -> Any:
        module, weights = build_module(settings)
        module.classifier.head.classify[-1].bias.data.fill_(-40)
        return module, weights

    monkeypatch.setattr("cardiomegaly.training.run.build_module", build_low)
    run = read_run(trained(tmp_path / "run", "trainer.learning_rate=1e-9"))
    for split in ("val", "test"):
        rows = run.part(split)
        assert rows["logit"].between(-45, -35).all()
        assert rows["probability"].nunique() == rows["logit"].nunique() > 1
        np.testing.assert_allclose(rows["probability"], np.exp(rows["logit"]), rtol=1e-12)
        assert run.metrics[split]["auroc"] == roc_auc_score(rows["target"], rows["logit"])
    assert run.metrics["val"]["auroc"] == run.history["val/auroc"][0]


def test_the_threshold_selects_by_the_figure_that_is_reported(
    trained: Train, tmp_path: Path
) -> None:
    run = read_run(
        trained(tmp_path / "run", "threshold=0.3", "trainer.monitor=val/f1", "balance=false")
    )
    rows = run.part("val")
    assert run.meta["best_value"] == run.metrics["val"]["f1"] == run.history["val/f1"][0]
    assert run.meta["best_value"] == pytest.approx(
        f1_score(rows["target"], rows["probability"] >= 0.3)
    )
    assert run.meta["threshold"] == 0.3


def test_a_best_value_of_zero_is_zero(composed: Compose, tmp_path: Path) -> None:
    cfg = composed("threshold=0.999", "trainer.monitor=val/f1", "trainer.limit_train_batches=1")
    assert train_and_report(config.check(cfg), tmp_path / "run") == 0.0


def test_the_recorded_calibration_is_fair_on_validation(trained_run: Path) -> None:
    """The mean of what Platt's line gives is that of his smoothed targets."""
    run = read_run(trained_run)
    line, rows = run.meta["calibration"], run.part("val")
    given = 1 / (1 + np.exp(-(line["slope"] * rows["logit"] + line["intercept"])))
    positives, negatives = rows["target"].sum(), (1 - rows["target"]).sum()
    smoothed = positives * (positives + 1) / (positives + 2) + negatives / (negatives + 2)
    assert given.sum() == pytest.approx(smoothed, rel=1e-3)
    assert line["method"] == "platt" and line["fitted_on"] == "val"


def test_the_data_of_a_run_are_found_from_elsewhere(
    composed: Compose, phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data were named from one folder, the run is read from another and was moved."""
    monkeypatch.chdir(phantom_root.parent)
    cfg = composed(f"data.root={phantom_root.name}", "trainer.limit_train_batches=1")
    train_and_report(config.check(cfg), tmp_path / "run")
    write_config(cfg, tmp_path / "run")
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    meta = read_run(moved).meta
    assert Path(meta["data_root"]) == phantom_root
    assert (Path(meta["data_root"]) / meta["label_file"]).is_file()


def test_a_checkpoint_predicts_as_its_run_did(
    trained_run: Path, composed: Callable[..., DictConfig]
) -> None:
    datamodule = build_datamodule(config.check(composed(f"split.file={trained_run / 'split.csv'}")))
    datamodule.prepare_data()
    datamodule.setup()
    predictor = Predictor.from_checkpoint(trained_run / "checkpoints" / "best.ckpt")
    test = predictor.predict_batches(datamodule.predict_dataloader()[1])
    rows = read_run(trained_run).part("test")
    assert test.logits.tolist() == rows["logit"].tolist()
    assert test.probability.tolist() == rows["probability"].tolist()
    assert datamodule.parts["test"]["image"].tolist() == rows["image"].tolist()


def test_same_seed_same_predictions(trained: Train, trained_run: Path, tmp_path: Path) -> None:
    again = trained(tmp_path / "run", "trainer.max_epochs=2", "backbone.trainable=all")
    first = (trained_run / "predictions.csv").read_bytes()
    assert (again / "predictions.csv").read_bytes() == first


@pytest.mark.slow
def test_resumed_run_equals_an_undisturbed_one(
    trained: Train, trained_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    trained(folder, "trainer.max_epochs=1", "backbone.trainable=all")
    for name in ("metrics.json", "predictions.csv"):
        (folder / name).unlink()
    shutil.rmtree(folder / "plots")
    trained(folder, "trainer.max_epochs=2", "backbone.trainable=all", f"resume={folder}")
    assert read_run(folder).history["epoch"].tolist() == [0, 1]
    first = (trained_run / "predictions.csv").read_bytes()
    assert (folder / "predictions.csv").read_bytes() == first


def test_resumption_keeps_the_configured_patience() -> None:
    before = PatientEarlyStopping("val/auroc", patience=1, mode="max", freeze_epochs=0)
    before.wait_count = 1
    after = PatientEarlyStopping("val/auroc", patience=7, mode="max", freeze_epochs=0)
    after.load_state_dict(before.state_dict())
    assert (after.patience, after.wait_count) == (7, 1)


def test_early_stopping_and_best_checkpoint(trained: Train, tmp_path: Path) -> None:
    """Without learning the first epoch stays the best and patience ends the training."""
    run = read_run(
        trained(
            tmp_path / "run",
            "trainer.max_epochs=9",
            "trainer.patience=2",
            "trainer.learning_rate=1e-12",
            "trainer.limit_train_batches=1",
        )
    )
    rises = (run.history["val/auroc"].cummax().diff() > 0).to_numpy().nonzero()[0]
    best = int(rises[-1]) if len(rises) else 0
    assert run.meta["best_epoch"] == best
    assert run.meta["epochs"] == best + 3
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    assert checkpoint["epoch"] == best


def test_checkpoint_holds_plain_containers_and_predicts(trained_run: Path) -> None:
    checkpoint = torch.load(trained_run / "checkpoints" / "best.ckpt", weights_only=True)
    assert type(checkpoint["hyper_parameters"]["backbone"]) is dict
    classifier = load_classifier(trained_run / "checkpoints" / "best.ckpt")
    output = classifier(torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8))
    assert output.logits.shape == (2,)
    assert output.attention.shape[0] == 2
    with pytest.raises(UserError, match="checkpoint .* does not exist"):
        load_classifier(trained_run / "absent.ckpt")


def test_learning_rates_and_frozen_weights(composed: Callable[..., DictConfig]) -> None:
    overrides = ["backbone.trainable=last_stage", "backbone.learning_rate=3e-5"]
    module, _ = build_module(config.check(composed(*overrides)))
    head, backbone = module.configure_optimizers().param_groups
    assert (head["lr"], backbone["lr"]) == (1e-3, 3e-5)
    frozen, _ = build_module(config.check(composed()))
    assert len(frozen.configure_optimizers().param_groups) == 1


def test_frozen_backbone_stays_as_it_was(
    trained: Train, composed: Callable[..., DictConfig], tmp_path: Path
) -> None:
    weights = tmp_path / "backbone.pt"
    torch.manual_seed(3)
    start, _ = build_module(config.check(composed()))
    torch.save(start.classifier.backbone.model.state_dict(), weights)
    folder = trained(tmp_path / "run", f"backbone.weights={weights}", "balance=false")
    after = load_classifier(folder / "checkpoints" / "best.ckpt").backbone.model.state_dict()
    for name, value in start.classifier.backbone.model.state_dict().items():
        assert torch.equal(after[name], value), name
    described = json.loads((folder / "metrics.json").read_text())["meta"]["weights"]
    assert described["name"] == "backbone.pt"
    assert len(described["sha256"]) == 64


def test_split_file_is_used(trained: Train, trained_run: Path, tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", "seed=7", f"split.file={trained_run / 'split.csv'}")
    assert read_run(folder).split_hash == read_run(trained_run).split_hash


def test_image_split_warns_of_its_leak(
    trained: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(tmp_path / "run", "split=image", "trainer.limit_train_batches=1")
    assert "patients stand in more than one part" in caplog.text


def test_unreadable_images_are_left_out_before_the_split(
    trained: Train, phantom_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "cohort"
    shutil.copytree(phantom_root, root)
    broken = sorted((root / "images").iterdir())[4]
    broken.write_bytes(broken.read_bytes()[:100])
    folder = trained(
        tmp_path / "run", f"data.root={root}", "cohort=all", "trainer.limit_train_batches=1"
    )
    run = read_run(folder)
    assert run.meta["n_unreadable"] == 1
    assert run.meta["unreadable"] == [broken.name]
    assert broken.name in caplog.text
    assert broken.name not in pd.read_csv(folder / "split.csv")["image"].tolist()


def test_bfloat16_agrees_with_float32(trained: Train, tmp_path: Path) -> None:
    runs = [
        read_run(trained(tmp_path / precision, f"trainer.precision={precision}"))
        for precision in ("32-true", "bf16-mixed")
    ]
    difference = runs[0].predictions["probability"] - runs[1].predictions["probability"]
    assert difference.abs().max() < 0.05


def test_a_gpu_that_is_not_there(composed: Callable[..., DictConfig]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="torch finds no CUDA device"):
        device.check_device(config.check(composed("trainer=gpu")).trainer)


def test_automatic_batch_size_needs_a_gpu(composed: Callable[..., DictConfig]) -> None:
    with pytest.raises(UserError, match=r"trainer\.batch_size: auto fits batches to a GPU"):
        device.check_device(config.check(composed("trainer.batch_size=auto")).trainer)


@pytest.mark.slow
def test_automatic_batch_size_is_the_largest_that_fits(
    composed: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.check(composed())
    datamodule = build_datamodule(settings)
    datamodule.prepare_data()
    datamodule.setup()
    module, _ = build_module(settings)
    real = module.training_step

    def step(batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        if len(batch["target"]) > 8:
            raise RuntimeError("CUDA out of memory.")
        return real(batch, batch_idx)

    monkeypatch.setattr(module, "training_step", step)
    lightning, _ = trainer.build_trainer(settings, tmp_path, "32-true")
    with trainer.quiet_lightning(module):
        assert trainer.find_batch_size(lightning, module, datamodule) == 8
    assert datamodule.batch_size == 8


def test_the_loss_of_an_epoch_is_the_mean_over_its_images(
    composed: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.check(composed("trainer.max_epochs=2", "trainer.batch_size=7"))
    datamodule = build_datamodule(settings)
    module, _ = build_module(settings)
    real = module.training_step
    steps: list[tuple[int, int, float]] = []

    def step(batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = real(batch, batch_idx)
        steps.append((module.current_epoch, len(batch["target"]), float(loss.detach())))
        return loss

    monkeypatch.setattr(module, "training_step", step)
    lightning, history = trainer.build_trainer(settings, tmp_path, "32-true")
    with trainer.quiet_lightning(module):
        lightning.fit(module, datamodule=datamodule)
    done = pd.DataFrame(steps, columns=["epoch", "images", "loss"])
    assert done["images"].min() < done["images"].max(), "else the weights do not matter"
    for row in history.rows:
        epoch = done[done["epoch"] == row["epoch"]]
        mean = np.average(epoch["loss"], weights=epoch["images"])
        assert row["train/loss"] == pytest.approx(mean, rel=1e-6)


@pytest.fixture
def spoilt(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Makes the head's weights nan at a hook of the module in an epoch."""

    def spoil(hook: str, epoch: int) -> None:
        real = getattr(CardiomegalyModule, hook)

        def spoiling(self: CardiomegalyModule) -> None:
            real(self)
            if self.current_epoch == epoch:
                self.classifier.head.classify[-1].weight.data.fill_(np.nan)

        monkeypatch.setattr(CardiomegalyModule, hook, spoiling)

    return spoil


@pytest.mark.parametrize(
    ("hook", "part", "where"),
    [
        ("on_train_epoch_start", "train", "epoch 1, step 0: the loss is nan on the images"),
        ("on_validation_epoch_start", "val", "epoch 1, validation: the logits are not finite on"),
    ],
)
def test_what_is_not_finite_stops_a_run_and_never_wins(
    trained: Train,
    tmp_path: Path,
    spoilt: Callable[[str, int], None],
    hook: str,
    part: str,
    where: str,
) -> None:
    spoilt(hook, 1)
    folder = tmp_path / "run"
    with pytest.raises(RunError, match=where) as error:
        trained(folder, "trainer.max_epochs=3", "trainer.batch_size=8")
    split = pd.read_csv(folder / "split.csv").set_index("image")["split"]
    images = re.findall(r"\d{8}_\d{3}\.png", str(error.value))
    assert len(images) >= 8 and set(split[images]) == {part}
    assert "\n" not in str(error.value) and "trainer.learning_rate" in str(error.value)
    for name in ("best.ckpt", "last.ckpt"):
        assert read_checkpoint(folder / "checkpoints" / name)["epoch"] == 0
    assert not (folder / "metrics.json").exists() and not (folder / "predictions.csv").exists()
    assert pd.read_csv(folder / "history.csv")["epoch"].tolist() == [0]


def test_a_rate_too_high_is_noticed(trained: Train, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"epoch \d, .* (nan|inf|finite) on the images \d{8}_"):
        trained(tmp_path / "run", "trainer.learning_rate=1e30", "trainer.max_epochs=2")


@pytest.mark.parametrize("trainable", ["none", "last_stage", "all"])
def test_what_is_trained_is_in_training_mode_and_the_rest_never(
    composed: Callable[..., DictConfig], tmp_path: Path, trainable: str
) -> None:
    """In every step, also after a validation epoch; running statistics follow the mode."""
    settings = config.check(composed("trainer.max_epochs=2", f"backbone.trainable={trainable}"))
    datamodule = build_datamodule(settings)
    module, _ = build_module(settings)
    network = module.classifier.backbone.model
    before = {name: value.clone() for name, value in network.state_dict().items()}
    real, modes = module.training_step, []

    def step(batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        modes.append({name: part.training for name, part in module.classifier.named_modules()})
        return real(batch, batch_idx)

    module.training_step = step  # type: ignore[method-assign]
    lightning, _ = trainer.build_trainer(settings, tmp_path, "32-true")
    with trainer.quiet_lightning(module):
        lightning.fit(module, datamodule=datamodule)
    last_stage = tuple(f"{name}." for name in settings.backbone.last_stage)
    norms = {
        name
        for name, part in network.named_modules()
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)
    }
    for name in norms:
        trains = trainable == "all" or (trainable == "last_stage" and name.startswith(last_stage))
        after = network.state_dict()
        assert {mode[f"backbone.model.{name}"] for mode in modes} == {trains}, name
        for buffer in ("running_mean", "running_var", "num_batches_tracked"):
            same = torch.equal(before[f"{name}.{buffer}"], after[f"{name}.{buffer}"])
            assert same != trains, f"{name}.{buffer}"
    assert all(mode["head"] and mode["head.classify.0"] for mode in modes)
    steps = len(modes)
    tracked = {int(network.state_dict()[f"{name}.num_batches_tracked"]) for name in norms}
    assert tracked <= {0, steps} and (steps in tracked) == (trainable != "none")
