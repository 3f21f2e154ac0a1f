"""The leaderboard: every trial with its best epoch, ranked; `trials/` is the truth."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any, get_args

from pydantic import TypeAdapter, ValidationError

from pawtune.data_pipeline.safe_files import shown
from pawtune.models.words import did_you_mean
from pawtune.search.errors import UserError
from pawtune.search.objective import COSTS, Objective, undominated
from pawtune.search.storage.records import EARLY_STOP, Status, TrialStatus
from pawtune.search.storage.run_folder import RunFolder, TrialFolder, write_text
from pawtune.search.storage.run_lock import is_running
from pawtune.search.storage.trial_index import Noted, read_index, stamp_of, write_index

if TYPE_CHECKING:
    import pandas as pd

NOT_NOTED = ("rank", "trial_id", "on_front", "own_metric")  # of a row in the index


@dataclass(frozen=True)
class Row:
    """One trial. Accuracies are those of its best epoch; epochs count from 1.

    Attributes:
        rank: Rank from 1; None without a finished epoch, or where the trial failed.
        epochs: Epochs finished.
        seconds: Wall time from the start of the trial to its end.
        num_weights: Weights of the whole model, a frozen backbone included.
        reason: Why it ended, where it did not end by itself: `asha` for early stopping.
        latency_ms: Milliseconds for one image, where the search measured it.
        size_mb: Size of the complete model's weights, where the search measured it.
        score: Value of the search's metric at the best epoch.
        on_front: Whether it is on the Pareto front; None where the search had one objective.
        own_metric: Name of the search's metric where it is the user's own.
    """

    rank: int | None
    trial_id: str
    name: str
    family: str
    status: Status
    best_val_accuracy: float | None
    best_val_loss: float | None
    train_accuracy: float | None
    best_epoch: int | None
    epochs: int
    seconds: float | None
    num_weights: int | None
    params: dict[str, Any]
    reason: str | None = None
    latency_ms: float | None = None
    size_mb: float | None = None
    on_front: bool | None = None
    score: float | None = None
    own_metric: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether the trial has ended for good; else it can be continued."""
        return TrialStatus(status=self.status, reason=self.reason).is_over

    @property
    def state(self) -> str:
        """The status in words: early stopping and an interruption are two things."""
        return outcome(self.status, self.reason)


def outcome(status: Status, reason: str | None) -> str:
    """What became of a trial, in words.

    >>> outcome("stopped", "asha"), outcome("stopped", "time budget"), outcome("failed", "NaN")
    ('stopped early', 'interrupted', 'failed')
    """
    if status != "stopped":
        return status
    return "stopped early" if reason == EARLY_STOP else "interrupted"


def rank_trials(
    run: RunFolder, objective: Objective, *, note: bool = False, over: bool | None = None
) -> list[Row]:
    """All trials, best first; without a finished epoch next; failed ones last.

    Args:
        run: The run.
        objective: Rule that ranks trials.
        note: Whether to note what the files of ended trials say, for the next who ranks them: for
            the driver, which alone writes the run.
        over: Whether the search is: a trial that has not ended is then interrupted. By default
            where no driver holds the run.
    """
    index = read_index(run)
    rows, ended = [], {}
    for trial in run.trials():
        stamp, noted = stamp_of(trial), index.get(trial.trial_id)
        row = None
        if noted is not None and noted.stamp == stamp:
            row = _from_index(trial.trial_id, noted.row, objective)
        row = row or _from_files(trial, objective)
        rows.append(row)
        if note and row.is_over:
            ended[trial.trial_id] = Noted(stamp, _for_index(row))
    if note:
        write_index(run, ended)
    over = not is_running(run) if over is None else over
    ranked = rank_together([_left(row) if over else row for row in rows], objective)
    return _with_front(ranked, objective) if objective.costs else ranked


def _left(row: Row) -> Row:
    """A trial whose search is over: what waits or runs by its files does neither."""
    waits = row.status in ("pending", "running")
    return replace(row, status="stopped", reason="interrupted") if waits else row


def _with_front(rows: Sequence[Row], objective: Objective) -> list[Row]:
    """Says of each trial whether none is better at no higher cost."""
    points = {}
    for row in rows:
        values = objective.values(row.score or 0.0, _costs(row)) if row.rank else None
        if values is not None:
            points[row.trial_id] = objective.point(values)
    ids = list(points)
    front = {ids[place] for place in undominated([points[trial_id] for trial_id in ids])}
    return [replace(row, on_front=row.trial_id in front) for row in rows]


def _costs(row: Row) -> dict[str, float]:
    return {name: value for name in COSTS if (value := getattr(row, name)) is not None}


def rank_together(rows: Sequence[Row], objective: Objective) -> list[Row]:
    """Rows of several runs of one objective, ranked by their best epochs."""

    def key(row: Row) -> tuple[int, tuple[float, ...]]:
        if row.rank is None or row.score is None or row.best_val_loss is None:
            return (2 if row.status == "failed" else 1), ()
        best = objective.key({"val_loss": row.best_val_loss, objective.metric: row.score})
        return 0, tuple(-part for part in best)

    ordered = sorted(rows, key=key)
    return [
        replace(row, rank=place if row.rank is not None else None)
        for place, row in enumerate(ordered, start=1)
    ]


def _from_files(trial: TrialFolder, objective: Objective) -> Row:
    """A trial, not ranked yet: its rank only says whether it will have one."""
    proposal = trial.read_proposal()
    status = trial.read_status()
    epochs = trial.read_metrics()
    counted = epochs if status.status != "failed" else []
    best = objective.best(counted) if counted else None
    facts = trial.read_facts()
    seconds = status.seconds
    return Row(
        rank=0 if best else None,
        trial_id=trial.trial_id,
        name=proposal.spec.name,
        family=proposal.spec.model.family,
        status=status.status,
        best_val_accuracy=best["val_accuracy"] if best else None,
        best_val_loss=best["val_loss"] if best else None,
        train_accuracy=best["accuracy"] if best else None,
        best_epoch=int(best["epoch"]) if best else None,
        epochs=len(epochs),
        seconds=seconds if seconds is not None else sum(e["seconds"] for e in epochs) or None,
        num_weights=facts.num_weights,
        params=dict(proposal.params),
        reason=status.reason,
        latency_ms=facts.latency_ms,
        size_mb=facts.size_mb,
        score=best[objective.metric] if best else None,
        own_metric=objective.own_metric,
    )


def _for_index(row: Row) -> dict[str, Any]:
    return {name: value for name, value in vars(row).items() if name not in NOT_NOTED}


def _from_index(trial_id: str, noted: dict[str, Any], objective: Objective) -> Row | None:
    """The same of what was noted; None where that is not as `_for_index` has it."""
    rank = None if noted.get("best_epoch") is None else 0
    given = {**noted, "rank": rank, "trial_id": trial_id, "own_metric": objective.own_metric}
    try:
        row: Row = _checked_row().validate_python(given)
    except ValidationError:
        return None
    if not all(isfinite(value) for value in vars(row).values() if isinstance(value, float)):
        return None
    ratios = (row.best_val_accuracy, row.train_accuracy)
    has_all = None not in (*ratios, row.best_val_loss, row.score)
    if rank is not None and not (has_all and all(0 <= (x or 0) <= 1 for x in ratios)):
        return None
    reason = None if row.reason is None else shown(row.reason)
    return replace(row, name=shown(row.name), family=shown(row.family), reason=reason)


@cache
def _checked_row() -> TypeAdapter[Row]:
    return TypeAdapter(Row)


def as_dicts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For `--json`: one dictionary a trial, keys in the order of `Row`; `state` for the reason.

    Costs, and who is on the front, where the search asked for them; its metric where it is one's
    own.
    """
    several = any(row.on_front is not None for row in rows)
    costs = () if several else ("latency_ms", "size_mb", "on_front")
    left_out = {"reason", "score", "own_metric", *costs}
    return [
        {name: v for name, v in asdict(row).items() if name not in left_out}
        | {"state": row.state}
        | ({f"best_{row.own_metric}": row.score} if row.own_metric else {})
        for row in rows
    ]


def as_frame(rows: Sequence[Row]) -> "pd.DataFrame":
    """For Python: one line a trial, parameters as columns `params.<name>`."""
    import pandas as pd

    return pd.DataFrame([_flat(row) for row in rows])


def sort_rows(rows: Sequence[Row], column: str) -> list[Row]:
    """Rows by a column, the largest first; those that have no value last.

    Args:
        rows: Best first.
        column: A column of the CSV; with a - before it, the smallest first. `rank` keeps the order.

    Raises:
        UserError: There is no such column.
    """
    if column == "rank":
        return list(rows)
    name = column.removeprefix("-")
    flat = {row.trial_id: _flat(row) for row in rows}
    columns = list(dict.fromkeys(known for values in flat.values() for known in values))
    if name not in columns and rows:
        raise UserError(
            f"a leaderboard is sorted by one of its columns, received {column!r}"
            f"{did_you_mean(name, tuple(columns))}; it has {', '.join(columns)}"
        )
    with_value = [row for row in rows if flat[row.trial_id].get(name) is not None]
    numeric = all(isinstance(flat[row.trial_id][name], int | float) for row in with_value)

    def key(row: Row) -> Any:
        value = flat[row.trial_id][name]
        return value if numeric else str(value)

    ordered = sorted(with_value, key=key, reverse=not column.startswith("-"))
    return [*ordered, *(row for row in rows if flat[row.trial_id].get(name) is None)]


def write_leaderboard(run: RunFolder, rows: Sequence[Row]) -> None:
    """Writes `leaderboard.csv`."""
    write_text(run.leaderboard_file, as_csv(rows))


def read_outcomes(run: RunFolder) -> dict[str, tuple[str, float | None]] | None:
    """What the leaderboard file of an ended run says, without a look into each trial.

    Returns:
        By trial, best first, its state in words and its validation accuracy; None where the file
        is missing, damaged, or not of the trials that are there.
    """
    try:
        with run.leaderboard_file.open(encoding="utf-8", newline="") as file:
            rows = [*csv.DictReader(file)]
        found = {
            row["trial_id"]: (row["state"], float(row["best_val_accuracy"] or "nan"))
            for row in rows
        }
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return None
    known = {*get_args(Status), "stopped early", "interrupted"}
    fits = {state for state, _ in found.values()} <= known and all(
        isnan(value) or 0 <= value <= 1 for _, value in found.values()
    )
    if not fits or found.keys() != {trial.trial_id for trial in run.trials()}:
        return None
    return {key: (state, None if isnan(x) else x) for key, (state, x) in found.items()}


def as_csv(rows: Sequence[Row]) -> str:
    """The leaderboard as CSV, with the union of all parameters as columns."""
    flat = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns)
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(row: Row) -> dict[str, Any]:
    (flat,) = as_dicts([row])
    params = flat.pop("params")
    return flat | {f"params.{name}": value for name, value in params.items()}
