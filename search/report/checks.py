"""A run folder may be untrusted: what a report takes from it must be what pawtune wrote."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pawtune.search.errors import UserError
from pawtune.search.results.look_ledger import look_confusion, read_ledger
from pawtune.search.storage.run_folder import RunFolder, TrialFolder
from pawtune.search.storage.untrusted_files import REQUIRED_METRICS


def check_epochs(folder: TrialFolder, epochs: Sequence[Mapping[str, float]]) -> None:
    """Sees to it that a trial's metrics are there, finite, and in their ranges.

    Raises:
        UserError: With the first that is not.
    """
    for epoch in epochs:
        for name in REQUIRED_METRICS:
            value = epoch.get(name, math.nan)
            if not math.isfinite(value) or (name.endswith("accuracy") and not 0 <= value <= 1):
                raise UserError(
                    f"{folder.metrics_file}: {name} must be a number"
                    + (" from 0 to 1" if name.endswith("accuracy") else "")
                    + f", received {value}; restore the file, or delete the trial's folder"
                )


def plain(value: Any) -> Any:
    """A parameter as figures and tables take it: a number, a word, or None."""
    return value if value is None or isinstance(value, str | int | float) else str(value)


def finite(value: Any) -> float | None:
    """A finite number, or None."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def read_looks(folder: RunFolder) -> list[Mapping[str, Any]]:
    """The ledger of looks at the test split, oldest first.

    Raises:
        UserError: A line is not what `pawtune test` writes.
    """
    try:
        return [_checked_look(folder, look) for look in read_ledger(folder)]
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{folder.test_ledger} must hold one JSON object a line: {error}; restore the file, or "
            "move it away"
        ) from error


def _checked_look(folder: RunFolder, look: Any) -> Mapping[str, Any]:
    try:
        numbers = [look["accuracy"], *look["interval_95"], look["correct"], look["n"]]
        if len(numbers) != 5 or any(finite(number) is None for number in numbers):
            raise TypeError(f"received {numbers}")
        look_confusion(look)
        return {**look, "trial_id": str(look["trial_id"])}
    except (TypeError, KeyError, ValueError, IndexError, AttributeError) as error:
        raise UserError(
            f"{folder.test_ledger}: each line must be a look that `pawtune test` recorded: "
            f"{error}; restore the file, or move it away"
        ) from error
