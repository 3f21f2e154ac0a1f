"""The leaderboard: every trial with its best epoch, ranked; read from `trials/` alone."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pawtune.search.objective import Objective
from pawtune.search.storage.run_folder import RunFolder, Status, TrialFolder, read_json, write_text

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Row:
    """One trial. Accuracies are those of its best epoch; epochs count from 1.

    Attributes:
        epochs: Epochs finished.
        seconds: Wall time from the start of the trial to its end.
        num_weights: Weights of the whole model, a frozen backbone included.
    """

    rank: int
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


def rank_trials(run: RunFolder, objective: Objective) -> list[Row]:
    """All trials, best first; without a finished epoch next; failed ones last."""
    rows = [(_sort_key(trial, objective), trial) for trial in run.trials()]
    rows.sort(key=lambda item: item[0])
    return [_row(rank, trial, objective) for rank, (_, trial) in enumerate(rows, start=1)]


def _sort_key(trial: TrialFolder, objective: Objective) -> tuple[int, tuple[float, ...], str]:
    epochs = trial.read_metrics()
    if trial.read_status()["status"] == "failed":
        return (2, (), trial.trial_id)
    if not epochs:
        return (1, (), trial.trial_id)
    best = objective.key(objective.best(epochs))
    return (0, tuple(-part for part in best), trial.trial_id)


def _row(rank: int, trial: TrialFolder, objective: Objective) -> Row:
    spec = read_json(trial.spec_file)
    status = trial.read_status()
    epochs = trial.read_metrics()
    counted = epochs if status["status"] != "failed" else []
    best = objective.best(counted) if counted else None
    facts = read_json(trial.facts_file) if trial.facts_file.exists() else {}
    seconds = status.get("seconds")
    return Row(
        rank=rank,
        trial_id=trial.trial_id,
        name=spec["name"],
        family=spec["model"]["family"],
        status=status["status"],
        best_val_accuracy=best["val_accuracy"] if best else None,
        best_val_loss=best["val_loss"] if best else None,
        train_accuracy=best["accuracy"] if best else None,
        best_epoch=int(best["epoch"]) if best else None,
        epochs=len(epochs),
        seconds=seconds if seconds is not None else sum(e["seconds"] for e in epochs) or None,
        num_weights=facts.get("num_weights"),
        params=spec["params"],
    )


def as_dicts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For `--json`: one dictionary a trial, keys in the order of `Row`."""
    return [asdict(row) for row in rows]


def as_frame(rows: Sequence[Row]) -> "pd.DataFrame":
    """For Python: one line a trial, parameters as columns `params.<name>`."""
    import pandas as pd

    return pd.DataFrame([_flat(row) for row in rows])


def write_leaderboard(run: RunFolder, rows: Sequence[Row]) -> None:
    """Writes `leaderboard.csv`, with the union of all parameters as columns."""
    flat = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns)
    writer.writeheader()
    writer.writerows(flat)
    write_text(run.leaderboard_file, text.getvalue())


def _flat(row: Row) -> dict[str, Any]:
    flat = asdict(row)
    params = flat.pop("params")
    return flat | {f"params.{name}": value for name, value in params.items()}
