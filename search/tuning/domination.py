"""Which trials ASHA may stop where a search has several objectives: those that are dominated.

Halving by one number cannot weigh accuracy against cost, and a sum of the two would need an
exchange rate that nobody gave. So halving goes by the metric, as always, and a trial that it would
stop is spared unless one of its family was better at the same part of its epochs and costs no
more. So nothing is stopped that could be on the Pareto front; the price is that a net which is
cheaper than all others runs all its epochs however weak it is.

Source of judging rungs by domination: Schmucker et al., Multi-objective Asynchronous Successive
Halving (2021), https://arxiv.org/abs/2106.12639, which ranks a rung by fronts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pawtune.search.objective import Objective, dominates


@dataclass
class Course:
    """A trial so far.

    Attributes:
        family: Name of its architecture family.
        values: The running best by the part of its epochs that was done, 0 to 1.
        costs: Costs of its complete model, by name.
    """

    family: str
    values: dict[float, float] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)

    def until(self, part: float) -> float | None:
        """The running best at a part of its epochs; None before its first."""
        known = [done for done in self.values if done <= part]
        return self.values[max(known)] if known else None


class Domination:
    """Follows all trials of a search.

    Args:
        objective: Objective of the search, with its costs.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._courses: dict[str, Course] = {}

    def note(self, trial_id: str, family: str, epochs: int, result: Mapping[str, Any]) -> None:
        """Takes a trial's result: `epoch`, `objective` and its costs."""
        course = self._courses.setdefault(trial_id, Course(family))
        course.values[result["epoch"] / epochs] = float(result["objective"])
        course.costs = {name: result[name] for name in self._objective.costs if name in result}

    def is_dominated(self, trial_id: str) -> bool:
        """Whether another trial of its family did better by now, and costs no more."""
        course = self._courses[trial_id]
        part = max(course.values)
        point = self._point(course, part)
        others = (other for name, other in self._courses.items() if name != trial_id)
        return point is None or any(
            dominates(rival, point)
            for other in others
            if other.family == course.family and (rival := self._point(other, part)) is not None
        )

    def _point(self, course: Course, part: float) -> tuple[float, ...] | None:
        value = course.until(part)
        values = self._objective.values(value, course.costs) if value is not None else None
        return self._objective.point(values) if values is not None else None
