"""Objects that Tune may hold but not save."""

from typing import Any, Self


class Unsaved:
    """Pickles to an empty object, and is its own copy.

    Tune pickles all it is given into snapshots of its own. The run folder is our truth and those
    snapshots are never read, so locks, studies and open files need not be picklable.
    """

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        return (object, ())

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self
