"""Which trials' weights a run keeps: the best, each family's best, the front, the reference.

Ten thousand trials of 10 MB are 100 GB that nobody asks for. Predictions, metrics and the
specification of every trial stay: the leaderboard and the corrected accuracy are the same, and a
trial can be trained again.
"""

from collections.abc import Iterable, Sequence

from pawtune.search.objective import Objective
from pawtune.search.results.leaderboard import Row, rank_trials
from pawtune.search.results.reference import baselines_among, reference_of
from pawtune.search.storage.run_folder import RunFolder

LEAST = 20  # trials that end between two times of dropping, and a tenth of all


class WeightDropper:
    """Drops weights of trials that are ranked out, as trials end; a callback of a search.

    Args:
        run: The run.
        objective: Rule that ranks trials.
        keep: Number of trials whose weights are kept, beside each family's best and the reference.
    """

    def __init__(self, run: RunFolder, objective: Objective, keep: int) -> None:
        self._run = run
        self._objective = objective
        self._keep = keep
        self._ended = 0
        self._next = max(keep, LEAST)

    def on_trial_end(self, event: object) -> None:
        """Ranks the trials from time to time, which also notes them for whoever reads the run."""
        self._ended += 1
        if self._ended >= self._next:
            self._next = self._ended + max(LEAST, self._ended // 10)
            self.drop(rank_trials(self._run, self._objective, note=True))

    def drop(self, rows: Sequence[Row]) -> None:
        """Drops the weights of those that are over and ranked out.

        Args:
            rows: The leaderboard, best first.
        """
        names = [f"trials/{row.trial_id}/best/core.weights.h5" for row in self._ranked_out(rows)]
        if self._run.mirror is not None:
            self._run.mirror.drop(names)
        for name in names:
            (self._run.root / name).unlink(missing_ok=True)

    def _ranked_out(self, rows: Sequence[Row]) -> Iterable[Row]:
        families = set()
        reference, _ = reference_of(rows, baselines_among(self._run, rows))
        for place, row in enumerate(row for row in rows if row.best_epoch is not None):
            is_best_of_family = row.family not in families
            families.add(row.family)
            if place < self._keep or is_best_of_family or row == reference or row.on_front:
                continue
            if row.is_over and row.status != "failed":  # else it continues from them
                yield row
