"""What a search optimises: a trial's best epoch, by a validation metric, ties by `val_loss`.

Beside it a search may have costs of the complete model to keep low. It is then ranked as before,
by its metric; what counts besides is whether something is better and no dearer: the Pareto front.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pawtune.models.errors import ModelError

Metric = str  # one of METRICS, or the name of one's own, see `config.own_metric`
METRICS = ("val_accuracy", "val_balanced_accuracy", "val_loss")
Cost = Literal["latency_ms", "num_weights", "size_mb"]
COSTS: tuple[Cost, ...] = get_args(Cost)
MEASURED = ("latency_ms", "size_mb")  # on the complete model, which a worker builds for it
EpochRow = Mapping[str, float]


@dataclass(frozen=True)
class Objective:
    """Ranks epochs, and trials by their best epoch.

    Attributes:
        metric: Name of the validation metric to optimise, a column of an epoch's row.
        costs: Names of costs that are to be kept low besides.
    """

    metric: Metric = "val_accuracy"
    costs: tuple[Cost, ...] = ()

    @property
    def mode(self) -> Literal["max", "min"]:
        """Direction of the metric, in the words of Tune's schedulers."""
        return "min" if self.metric == "val_loss" else "max"

    @property
    def directions(self) -> list[Literal["maximize", "minimize"]]:
        """Of the metric, then of each cost, in the words of Optuna."""
        first: Literal["maximize", "minimize"] = "minimize" if self.mode == "min" else "maximize"
        rest: list[Literal["maximize", "minimize"]] = ["minimize"] * len(self.costs)
        return [first, *rest]

    @property
    def own_metric(self) -> str | None:
        """Name of the metric where it is the user's own."""
        return None if self.metric in METRICS else self.metric

    def value(self, row: EpochRow) -> float:
        """The metric of an epoch.

        Raises:
            ModelError: The epoch lacks it.
        """
        if self.metric not in row:
            raise ModelError(
                f"epochs of this search must hold {self.metric}, which it optimises, received "
                f"{', '.join(row):.200}; restore the trial's metrics.csv"
            )
        return row[self.metric]

    def key(self, row: EpochRow) -> tuple[float, float]:
        """Sort key of an epoch: the better one is the greater."""
        value = self.value(row)
        return (-value if self.mode == "min" else value, -row["val_loss"])

    def best(self, rows: Sequence[EpochRow]) -> EpochRow:
        """The best epoch; the earliest of equals. `rows` must not be empty."""
        return max(rows, key=self.key)

    def values(self, value: float, costs: Mapping[str, float]) -> list[float] | None:
        """The metric's value and the costs, as `directions` orders them; None: one is unknown."""
        if not all(name in costs for name in self.costs):
            return None
        return [value, *(costs[name] for name in self.costs)]

    def point(self, values: Sequence[float]) -> tuple[float, ...]:
        """Values as a point that is better where it is larger."""
        first, *costs = values
        return (-first if self.mode == "min" else first, *(-cost for cost in costs))


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether a point is nowhere worse and somewhere better; better is larger.

    >>> dominates((0.9, -10.0), (0.8, -10.0)), dominates((0.9, -10.0), (0.8, -5.0))
    (True, False)
    """
    return tuple(one) != tuple(other) and all(a >= b for a, b in zip(one, other, strict=True))


def undominated(points: Sequence[Sequence[float]]) -> list[int]:
    """Positions of the points on the Pareto front, which no other one dominates, in order.

    >>> undominated([(0.9, -10.0), (0.8, -5.0), (0.7, -7.0)])
    [0, 1]
    """
    front: list[int] = []
    # Nothing dominates a point that comes before it in this order: one pass along the front.
    for place in sorted(range(len(points)), key=lambda n: tuple(points[n]), reverse=True):
        if not any(dominates(points[other], points[place]) for other in front):
            front.append(place)
    return sorted(front)
