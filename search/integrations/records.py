"""What a tracker receives of a run: plain values, read from the run folder."""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pawtune.search.config.search_config import plain_settings
from pawtune.search.errors import UserError
from pawtune.search.results.leaderboard import Row
from pawtune.search.results.look_ledger import read_ledger
from pawtune.search.run import Run

SETTINGS = ("data", "metric", "trials", "epochs", "image_size", "seed", "baselines", "families")


@dataclass(frozen=True)
class TrackedTrial:
    """One trial.

    Attributes:
        params: Its parameters by name.
        epochs: Metrics by epoch, in order: `epoch` and numbers.
        summary: Its best epoch, size and time.
        state: Outcome of the trial, in words.
        over: Whether it has ended.
    """

    trial_id: str
    name: str
    params: Mapping[str, Any]
    epochs: list[dict[str, float]]
    summary: Mapping[str, float]
    state: str
    over: bool
    started: float | None


@dataclass(frozen=True)
class TrackedRun:
    """A whole run.

    Attributes:
        settings: Settings of the search, without credentials in addresses.
        summary: Numbers of its result so far.
        best: Its best trial; None before an epoch has ended.
        over: Whether the search has ended.
    """

    name: str
    settings: Mapping[str, Any]
    summary: Mapping[str, float]
    trials: list[TrackedTrial]
    best: Row | None
    over: bool


def read_run(run: Run) -> TrackedRun:
    """All that a tracker receives.

    Raises:
        UserError: A file of the run is damaged.
    """
    rows = run.rows()
    best = next((row for row in rows if row.best_epoch is not None), None)
    settings = plain_settings(run.config())
    over = run.folder.summary_file.exists()
    return TrackedRun(
        name=run.name,
        settings={name: settings[name] for name in SETTINGS},
        summary=dict(_summary(run, rows)),
        trials=[_trial(run, row) for row in sorted(rows, key=lambda row: row.trial_id)],
        best=best,
        over=over,
    )


def _trial(run: Run, row: Row) -> TrackedTrial:
    folder = run.folder.trial(row.trial_id)
    numbers = {
        "best_val_accuracy": row.best_val_accuracy,
        "best_val_loss": row.best_val_loss,
        "best_epoch": row.best_epoch,
        "num_weights": row.num_weights,
        "seconds": row.seconds,
    }
    return TrackedTrial(
        trial_id=row.trial_id,
        name=row.name,
        params=row.params,
        epochs=folder.read_metrics(),
        summary={name: float(value) for name, value in numbers.items() if value is not None},
        state=row.state,
        over=row.status in ("completed", "stopped", "failed"),
        started=folder.read_status().started,
    )


def _summary(run: Run, rows: list[Row]) -> Iterator[tuple[str, float]]:
    if rows and rows[0].best_val_accuracy is not None:
        yield "best_val_accuracy", rows[0].best_val_accuracy
    estimate = run.validation(rows)
    if estimate is not None:
        yield "corrected_val_accuracy", estimate.corrected_accuracy
        yield "corrected_interval_95_low", estimate.interval_95[0]
        yield "corrected_interval_95_high", estimate.interval_95[1]
    looks = read_ledger(run.folder)
    if looks:
        yield "test_accuracy", looks[-1].accuracy
        yield "looks_at_test", float(len(looks))
    ended = run.folder.read_summary()
    if ended is not None:
        yield "seconds", ended.seconds


def load_extra(module: str, extra: str) -> Any:
    """An optional library, imported by name where it is asked for.

    Raises:
        UserError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"this needs {module}, not installed here ({error}); type "
            f"pip install 'pawtune[{extra}]'"
        ) from None
