"""What a search optimises: a trial's best epoch, by a validation metric, ties by `val_loss`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Metric = Literal["val_accuracy", "val_balanced_accuracy", "val_loss"]
EpochRow = Mapping[str, float]


@dataclass(frozen=True)
class Objective:
    """Ranks epochs, and trials by their best epoch.

    Attributes:
        metric: The validation metric to optimise.
    """

    metric: Metric = "val_accuracy"

    @property
    def mode(self) -> Literal["max", "min"]:
        """Direction, in the words of Tune's schedulers."""
        return "min" if self.metric == "val_loss" else "max"

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Direction, in the words of Optuna."""
        return "minimize" if self.mode == "min" else "maximize"

    def key(self, row: EpochRow) -> tuple[float, float]:
        """Sort key of an epoch: the better one is the greater."""
        value = row[self.metric]
        return (-value if self.mode == "min" else value, -row["val_loss"])

    def best(self, rows: Sequence[EpochRow]) -> EpochRow:
        """The best epoch; the earliest of equals. `rows` must not be empty."""
        return max(rows, key=self.key)
