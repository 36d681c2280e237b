"""Hydra's sweeper for `+experiment=search`; the search itself is in `cardiomegaly.sweep.search`.

This file stands here only because Hydra looks for sweepers in the namespace `hydra_plugins` and
nowhere else. Hydra imports it at every start, so it imports nothing of the program's.
"""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

# The values stand in conf/experiment/search.yaml.
ConfigStore.instance().store(
    group="hydra/sweeper",
    name="search",
    node={"_target_": "hydra_plugins.cardiomegaly_search.SearchSweeper"},
    provider="cardiomegaly",
)


class SearchSweeper(Sweeper):
    """Lets Optuna choose the jobs of a sweep; see `cardiomegaly.sweep.search.search`.

    Args:
        trials, at_once, seed: as there.
        params: the space, in Hydra's words: `interval(0.1, 0.7)`, `tag(log, interval(1e-4, 1e-2))`,
            `choice(64, 128)`.
    """

    def __init__(self, trials: int, at_once: int, seed: int, params: dict[str, str]) -> None:
        self.options = {"trials": trials, "at_once": at_once, "seed": seed}
        self.params = params

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra hands over."""
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the trials that are missing."""
        from cardiomegaly.sweep.search import search

        words = [f"{key}={value}" for key, value in self.params.items()] + arguments
        return search(self.config, words, self.launcher, **self.options)
