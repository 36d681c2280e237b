"""The room stands alone: whoever only uses a model imports no trainer and no data."""

from __future__ import annotations

import subprocess
import sys

IMPORT_ALL = """
import importlib, pkgutil, sys
import cardiomegaly.model
for module in pkgutil.walk_packages(cardiomegaly.model.__path__, "cardiomegaly.model."):
    importlib.import_module(module.name)
print(*sorted({name.split(".")[0] for name in sys.modules}))
print(*sorted(name for name in sys.modules if name.startswith("cardiomegaly.")))
"""
OTHERS = {"pytorch_lightning", "lightning", "torchmetrics", "hydra", "pandas", "sklearn"}
OTHERS |= {"matplotlib", "albumentations", "optuna"}


def test_every_module_is_imported_without_trainer_or_data() -> None:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=True
    )
    libraries, own = (line.split() for line in done.stdout.splitlines())
    assert OTHERS & set(libraries) == set()
    rooms = {".".join(name.split(".")[:2]) for name in own}
    assert rooms == {"cardiomegaly.config", "cardiomegaly.model"}
