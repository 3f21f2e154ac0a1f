"""What a worker reports of its trial: an epoch, or why there is no further one.

Tune carries reports as flat dictionaries, to which it adds entries of its own, and shows them to
callbacks; `to_result` and `from_result` are the only places that know their keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Self

COSTS = ("latency_ms", "num_weights", "size_mb")  # of a report, as `Objective` names them
OWN = "own_metric"  # key of a metric of the user's own: its value by name
METRICS = (
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "val_balanced_accuracy",
    "learning_rate",
    "seconds",
    "images_per_second",
)


@dataclass(frozen=True)
class BestEpoch:
    """A trial's best epoch so far.

    Attributes:
        epoch: Number of the epoch, from 1.
        objective: Its value of what the search optimises.
        val_accuracy: Validation accuracy, from 0 to 1.
        val_loss: Validation loss; of equal objectives the smaller is the better.
    """

    epoch: int
    objective: float
    val_accuracy: float
    val_loss: float

    @classmethod
    def of_row(cls, row: Mapping[str, float], metric: str) -> Self:
        """From a row of `metrics.csv` and the name of what the search optimises."""
        return cls(int(row["epoch"]), row[metric], row["val_accuracy"], row["val_loss"])


@dataclass(frozen=True)
class TrialReport:
    """What a worker reports, after an epoch or once at the end of a trial that broke.

    Attributes:
        epoch: The epoch that ended, from 1; 0 before the first.
        metrics: The epoch's, by name: of `METRICS`, and a metric of the user's own.
        best: The best epoch so far; None before the first.
        num_weights: Weights of the whole model; None where they are not known.
        latency_ms: Milliseconds for one image; None where it was not measured.
        size_mb: Size of the complete model's weights in 10^6 bytes; None as well.
        done: Whether nothing follows.
        failure: Why the trial failed, in one line; None where it did not.
        storage: Why the run folder cannot be used, in one line: the trial may be continued.

    Raises:
        ValueError: A metric is not a finite number.
    """

    epoch: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    best: BestEpoch | None = None
    num_weights: int | None = None
    latency_ms: float | None = None
    size_mb: float | None = None
    done: bool = False
    failure: str | None = None
    storage: str | None = None

    def __post_init__(self) -> None:
        best = {"objective": self.best.objective} if self.best is not None else {}
        for name, value in {**self.metrics, **best}.items():
            if not isfinite(value):
                raise ValueError(f"{name} of epoch {self.epoch} must be finite, received {value}")

    @property
    def row(self) -> dict[str, float]:
        """The epoch as a row of `metrics.csv`."""
        return {"epoch": self.epoch, **self.metrics}

    @property
    def costs(self) -> dict[str, float]:
        """Of the complete model, as far as they are known."""
        found = {name: getattr(self, name) for name in COSTS}
        return {name: float(value) for name, value in found.items() if value is not None}

    def to_result(self) -> dict[str, Any]:
        """As Tune carries it; keys that have nothing to say are left out."""
        result: dict[str, Any] = {"done": self.done}
        if self.epoch:
            own = {name: value for name, value in self.metrics.items() if name not in METRICS}
            result |= {k: v for k, v in self.row.items() if k not in own}
            result |= {OWN: own} if own else {}  # its name might be one of Tune's
        if self.best is not None:
            result |= {
                "objective": self.best.objective,
                "best_epoch": self.best.epoch,
                "best_val_accuracy": self.best.val_accuracy,
                "best_val_loss": self.best.val_loss,
            }
        rest = {name: getattr(self, name) for name in (*COSTS, "failure", "storage")}
        return result | {name: value for name, value in rest.items() if value is not None}

    @classmethod
    def from_result(cls, result: Mapping[str, Any]) -> Self:
        """Reads what `to_result` gave from a result of Tune's; empty where there is nothing."""
        best = None
        if "objective" in result:
            best = BestEpoch(
                epoch=int(result["best_epoch"]),
                objective=float(result["objective"]),
                val_accuracy=float(result["best_val_accuracy"]),
                val_loss=float(result["best_val_loss"]),
            )
        return cls(
            epoch=int(result.get("epoch", 0)),
            metrics={
                **{name: float(result[name]) for name in METRICS if name in result},
                **result.get(OWN, {}),
            },
            best=best,
            **{name: result.get(name) for name in COSTS},
            done=bool(result.get("done", False)),
            failure=result.get("failure"),
            storage=result.get("storage"),
        )
