"""Whether a trial without rivals can still come near the best of the other families.

Successive halving compares a trial with others of its family at the same epoch; the first ones have
nobody to be compared with, and in a small search a family's only net would run all its epochs,
however far behind it is. Such a trial is judged by the best of the other families, with the benefit
of the doubt: learning curves flatten, so a straight line through its recent progress is the most
that it may reach. Where even that stays behind, and the epochs to come cost more than the other
trial did as a whole, they are spared.
"""

from dataclasses import dataclass, field

from pawtune.search.objective import Objective


@dataclass
class Course:
    """A trial so far: the running best by epoch, and its seconds, where they are known."""

    family: str
    values: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0


class Outlook:
    """Follows all trials of a search.

    Args:
        objective: Gives the direction.
        grace_period: Epochs that every trial may run.
        reduction_factor: So many trials in a rung are rivals: then halving decides.
    """

    def __init__(self, objective: Objective, *, grace_period: int, reduction_factor: int) -> None:
        self._sign = 1.0 if objective.mode == "max" else -1.0
        self._grace, self._factor = grace_period, reduction_factor
        self._courses: dict[str, Course] = {}
        self._reached: dict[tuple[str, int], set[str]] = {}  # who was in a rung, by family

    def note(
        self, trial_id: str, family: str, epoch: int, value: float, seconds: float = 0.0
    ) -> None:
        """Takes the running best after an epoch, and the trial's seconds so far."""
        course = self._courses.setdefault(trial_id, Course(family))
        course.values[epoch] = self._sign * value
        course.seconds = max(seconds, course.seconds)
        self._reached.setdefault((family, epoch), set()).add(trial_id)

    def is_hopeless(self, trial_id: str, epochs: int) -> bool:
        """Whether a trial that has just reached a rung without rivals had better end.

        Args:
            trial_id: Id of a trial whose epoch was noted.
            epochs: Number of epochs that the trial has if it is not stopped.
        """
        course = self._courses[trial_id]
        epoch = max(course.values)
        if not self._is_rung(epoch) or epoch >= epochs:
            return False
        if len(self._reached[course.family, epoch]) >= self._factor:
            return False
        best = self._best_of_others(course.family)
        if best is None:
            return False
        to_come = course.seconds / epoch * (epochs - epoch)
        return self._at_most(course, epochs) < max(best.values.values()) and to_come > best.seconds

    def _is_rung(self, epoch: int) -> bool:
        rung = self._grace
        while rung < epoch:
            rung *= self._factor
        return rung == epoch

    def _at_most(self, course: Course, epochs: int) -> float:
        """The value at the last epoch, if it continued rising as in the later half so far."""
        epoch = max(course.values)
        before = max((known for known in course.values if known <= epoch // 2), default=None)
        if before is None:  # one epoch says nothing of its progress
            return float("inf")
        value = course.values[epoch]
        rise = (value - course.values[before]) / (epoch - before)
        return value + rise * (epochs - epoch)

    def _best_of_others(self, family: str) -> Course | None:
        others = [course for course in self._courses.values() if course.family != family]
        return max(others, key=lambda course: max(course.values.values()), default=None)
