"""All that a report shows of a run, read from its folder: plain records, no pixels, no test split.

What is not there (yet) is None or empty; the report says so instead of failing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.models.spec import TrialSpec
from pawtune.search.config.search_config import SearchConfig
from pawtune.search.objective import Objective
from pawtune.search.results.evaluation_record import EvaluationRecord
from pawtune.search.results.leaderboard import Row
from pawtune.search.results.look_ledger import read_ledger
from pawtune.search.results.reference import reference_of
from pawtune.search.run import Run
from pawtune.search.storage.records import RunSummary, TrialFacts
from pawtune.search.storage.run_folder import TrialFolder

if TYPE_CHECKING:
    from pawtune.search.results.selection_bias import ValidationEstimate

Epoch = dict[str, float]


@dataclass(frozen=True)
class TrialView:
    """One trial with its history.

    Attributes:
        row: Its line of the leaderboard.
        baseline: Whether it is one of the tutorial models.
        epochs: All finished epochs, in order.
        spec: Its specification.
        started: Unix time in seconds; None where it has not begun.
        finished: Unix time in seconds; None while it runs.
        facts: Record of the trial's worker.
    """

    row: Row
    baseline: bool
    epochs: Sequence[Epoch]
    spec: TrialSpec
    started: float | None
    finished: float | None
    facts: TrialFacts

    @property
    def trial_id(self) -> str:
        return self.row.trial_id

    @property
    def kind(self) -> str:
        """`baseline`, or the family."""
        return "baseline" if self.baseline else self.row.family

    @property
    def place(self) -> float:
        """Its rank, for sorting; those without one come last."""
        return self.row.rank or math.inf

    @property
    def usable(self) -> bool:
        """Whether it has an epoch that counts."""
        return self.row.best_epoch is not None

    @property
    def training_s(self) -> float:
        """Seconds inside epochs, validation included."""
        return sum(epoch["seconds"] for epoch in self.epochs)

    def values(self, metric: str) -> list[float]:
        """A metric epoch by epoch."""
        return [epoch[metric] for epoch in self.epochs]


@dataclass(frozen=True)
class ReportData:
    """A run as a report sees it.

    Attributes:
        trials: All trials in the order of proposal.
        manifest: None where it cannot be read; `manifest_problem` says why.
        summary: How the search ended; None while it runs, or where it was killed.
        looks: The ledger of looks at the test split, oldest first.
    """

    run: Run
    config: SearchConfig
    trials: Sequence[TrialView]
    manifest: Manifest | None
    manifest_problem: str | None
    summary: RunSummary | None
    looks: Sequence[EvaluationRecord]

    @cached_property
    def objective(self) -> Objective:
        return self.config.objective

    @cached_property
    def ranked(self) -> list[TrialView]:
        """Best first, failed trials last."""
        return sorted(self.trials, key=lambda trial: trial.place)

    @cached_property
    def usable(self) -> list[TrialView]:
        """Those with an epoch that counts, in the order of proposal."""
        return [trial for trial in self.trials if trial.usable]

    @property
    def best(self) -> TrialView | None:
        return next((trial for trial in self.ranked if trial.usable), None)

    @property
    def reference(self) -> tuple[TrialView | None, str]:
        """What the best trial is compared with, and what that is in words."""
        views = {trial.trial_id: trial for trial in self.ranked if trial.usable}
        baselines = {trial_id for trial_id, trial in views.items() if trial.baseline}
        row, kind = reference_of([trial.row for trial in views.values()], baselines)
        return (views[row.trial_id] if row is not None else None), kind

    @property
    def families(self) -> list[str]:
        """Those that have trials."""
        return sorted({trial.row.family for trial in self.trials})

    def of_family(self, family: str) -> list[TrialView]:
        return [trial for trial in self.trials if trial.row.family == family]

    @cached_property
    def estimate(self) -> "ValidationEstimate | None":
        """The best trial's corrected validation accuracy; None where it cannot be computed."""
        return self.run.validation([trial.row for trial in self.ranked])

    @cached_property
    def num_validation(self) -> int | None:
        return len(self.manifest.split("validation")) if self.manifest else None

    @cached_property
    def majority_share(self) -> float | None:
        """Validation accuracy of always naming the most frequent class."""
        if self.manifest is None:
            return None
        counts = self.manifest.counts()["validation"]
        return max(counts.values()) / max(1, sum(counts.values()))

    def score(self, trial: TrialView) -> float:
        """What the search optimises, at the trial's best epoch."""
        return float(self.objective.best(trial.epochs)[self.objective.metric])


def read_report_data(run: Run) -> ReportData:
    """Reads everything but pixels.

    Raises:
        UserError: A file of the run is damaged.
    """
    manifest, problem = None, None
    try:
        manifest = run.manifest()
    except DataError as error:
        problem = str(error)
    rows = {row.trial_id: row for row in run.rows()}
    folders = [folder for folder in run.folder.trials() if folder.trial_id in rows]
    return ReportData(
        run=run,
        config=run.config(),
        # A search may be running: what it proposed since the rows were read waits for next time.
        trials=[_view(folder, rows[folder.trial_id]) for folder in folders],
        manifest=manifest,
        manifest_problem=problem,
        summary=run.folder.read_summary(),
        looks=read_ledger(run.folder),
    )


def _view(folder: TrialFolder, row: Row) -> TrialView:
    proposal, status = folder.read_proposal(), folder.read_status()
    epochs = folder.read_metrics()
    return TrialView(
        row=replace(row, params={str(k): _plain(v) for k, v in row.params.items()}),
        baseline=proposal.baseline,
        epochs=epochs,
        spec=proposal.spec,
        started=status.started,
        finished=status.finished,
        facts=folder.read_facts(),
    )


def _plain(value: Any) -> Any:
    """A parameter as figures and tables take it: a number, a word, or None."""
    return value if value is None or isinstance(value, str | int | float) else str(value)
