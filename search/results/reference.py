"""What a run's models are compared with, in `test` and in the report."""

from collections.abc import Collection, Sequence
from typing import Literal

from pawtune.search.results.leaderboard import Row
from pawtune.search.storage.run_folder import RunFolder

ReferenceKind = Literal["best baseline", "first trial"]


def baselines_among(run: RunFolder, rows: Sequence[Row]) -> set[str]:
    """Ids of the trials that are baselines."""
    return {row.trial_id for row in rows if run.trial(row.trial_id).read_proposal().baseline}


def reference_of(
    rows: Sequence[Row], baselines: Collection[str]
) -> tuple[Row | None, ReferenceKind]:
    """What a run's models are compared with.

    Args:
        rows: The leaderboard, best first.
        baselines: Ids of the trials among them that are baselines.

    Returns:
        The best baseline; where none has finished an epoch, the first trial that has; or None.
    """
    usable = [row for row in rows if row.best_epoch is not None]
    best = next((row for row in usable if row.trial_id in baselines), None)
    if best is not None:
        return best, "best baseline"
    return min(usable, key=lambda row: row.trial_id, default=None), "first trial"
