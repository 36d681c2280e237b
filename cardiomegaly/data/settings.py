"""Types and checks of the configuration's sections on data: `data`, `cohort` and `split`."""

from __future__ import annotations

from dataclasses import dataclass

from cardiomegaly.data.split import VIEWS


@dataclass
class PhantomConfig:
    """What the generated cohort is made of; see `data.phantom`."""

    images: int
    size: int
    seed: int
    label_noise: float


@dataclass
class DataConfig:
    """Where images and labels lie, and how they are loaded.

    Attributes:
        name: of the choice in `conf/data`.
        root: folder with the label file and the images, wherever below it they lie.
        labels: name of the label file; null finds `Data_Entry_2017*.csv`.
        cache: folder for decoded images.
        workers: loader processes; null chooses for the machine.
        prefetch: batches that each worker prepares in advance.
        phantom: generate the cohort in `root` first; null for real data.
    """

    name: str
    root: str
    labels: str | None
    cache: str
    workers: int | None
    prefetch: int
    phantom: PhantomConfig | None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"data.workers: must be null or at least 0, got {self.workers}")
        if self.prefetch < 1:
            raise ValueError(f"data.prefetch: must be at least 1, got {self.prefetch}")


@dataclass
class CohortConfig:
    """Which images take part; see `data.split.draw_cohort`."""

    name: str
    views: list[str]
    negatives_per_positive: int

    def __post_init__(self) -> None:
        if not self.views or set(self.views) - set(VIEWS):
            raise ValueError(f"cohort.views: must name some of PA, AP, got {self.views}")
        if self.negatives_per_positive < 1:
            raise ValueError(
                f"cohort.negatives_per_positive: must be at least 1, "
                f"got {self.negatives_per_positive}"
            )


@dataclass
class SplitConfig:
    """How the cohort is split; see `data.split.split_cohort`."""

    name: str
    fractions: list[float]
    file: str | None
