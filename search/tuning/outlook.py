"""Whether a trial without rivals can still come near the best of the other families.

Successive halving compares a trial with others of its family at the same epoch; the first ones have
nobody to be compared with, and in a small search a family's only net would run all its epochs,
however far behind it is. Such a trial is judged by the best of the other families, with the benefit
of the doubt: learning curves flatten, so a straight line through its recent progress is the most
that it may reach, in the epochs for which there is time; a rate that falls to 0 may add a few
points to that at the end. Where even the line stays behind, and the epochs to come cost more than
the other trial did as a whole, they are spared.
"""

import math
from dataclasses import dataclass, field

from pawtune.search.objective import Objective


@dataclass
class Course:
    """A trial so far: the running best by epoch, its seconds, and those of its last epoch."""

    family: str
    values: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    pace: float = 0.0


class Outlook:
    """Follows all trials of a search.

    Args:
        objective: Gives the direction.
        grace_period: Epochs that every trial may run.
        reduction_factor: So many trials at an epoch are rivals: then halving decides.
    """

    def __init__(self, objective: Objective, *, grace_period: int, reduction_factor: int) -> None:
        self._sign = 1.0 if objective.mode == "max" else -1.0
        self._grace, self._factor = grace_period, reduction_factor
        self._courses: dict[str, Course] = {}
        self._reached: dict[tuple[str, int], set[str]] = {}  # by family and epoch

    def note(
        self, trial_id: str, family: str, epoch: int, value: float, seconds: float = 0.0
    ) -> None:
        """Takes the running best after an epoch, and the trial's seconds so far.

        Epochs count from the first that is judged: of those before, 0 and less, only the time.
        """
        course = self._courses.setdefault(trial_id, Course(family))
        if seconds > course.seconds:
            course.seconds, course.pace = seconds, seconds - course.seconds
        if epoch < 1:
            return
        course.values[epoch] = self._sign * value
        self._reached.setdefault((family, epoch), set()).add(trial_id)

    def is_hopeless(self, trial_id: str, epochs: int, seconds_left: float = math.inf) -> bool:
        """Whether a trial without rivals had better end.

        Args:
            trial_id: Id of a trial whose epoch was noted.
            epochs: Number of epochs that the trial has if it is not stopped.
            seconds_left: Until the whole search ends.
        """
        course = self._courses[trial_id]
        epoch = max(course.values)
        if not self._grace <= epoch < epochs:
            return False
        if len(self._reached[course.family, epoch]) >= self._factor:
            return False
        best = self._best_of_others(course.family)
        if best is None:
            return False
        to_come: float = epochs - epoch
        if course.pace * to_come <= best.seconds:
            return False
        to_come = min(to_come, max(0.0, seconds_left / course.pace))
        return self._at_most(course, to_come) < max(best.values.values())

    def _at_most(self, course: Course, to_come: float) -> float:
        """The value after more epochs, if it continued rising as in the later half so far."""
        epoch = max(course.values)
        before = max((known for known in course.values if known <= epoch // 2), default=None)
        if before is None:  # one epoch says nothing of its progress
            return math.inf
        value = course.values[epoch]
        rise = (value - course.values[before]) / (epoch - before)
        return value + rise * to_come

    def _best_of_others(self, family: str) -> Course | None:
        judged = (course for course in self._courses.values() if course.values)
        others = [course for course in judged if course.family != family]
        return max(others, key=lambda course: max(course.values.values()), default=None)
