"""What can be chosen about an evaluation; each default stands here only."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Settings:
    """Options of every evaluation, of a command or of the report of a sweep."""

    sensitivity: float = field(default=0.90, metadata={"help": "wanted, for one of the thresholds"})
    specificity: float = field(default=0.90, metadata={"help": "wanted, for one of the thresholds"})
    minimum: int = field(
        default=10, metadata={"help": "positive and negative images that a subgroup needs"}
    )
    fraction: float = field(
        default=0.5, metadata={"help": "of a map's range, above which its box lies"}
    )
    seed: int = field(default=0, metadata={"help": "of the folds and of the metadata models"})
