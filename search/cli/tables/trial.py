"""One trial in full: what it was, how each epoch went, what became of it."""

from typing import Any

from rich.table import Table
from rich.text import Text

from pawtune.data_pipeline.safe_files import shown
from pawtune.search.results.leaderboard import as_dicts
from pawtune.search.run import Run
from pawtune.search.storage.untrusted_files import read_text

EPOCH_COLUMNS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds")


def describe_trial(run: Run, trial: str) -> dict[str, Any]:
    """Everything known of a trial: its leaderboard row, `reason`, `facts`, `history`, `error`.

    Raises:
        UserError: The run has no such trial.
    """
    row = next((row for row in run.rows() if trial in (row.trial_id, row.name)), None)
    folder = run.folder.trial(row.trial_id if row is not None else trial)
    assert row is not None  # else the line above raised
    return {
        **as_dicts([row])[0],
        "reason": row.reason,
        "state": row.state,
        "facts": folder.read_facts().as_dict(),
        "history": folder.read_metrics(),
        "error": read_text(folder.error_file) if folder.error_file.exists() else None,
    }


def trial_tables(details: dict[str, Any]) -> list[Table]:
    """The trial for a terminal: one table of settings, one of epochs."""
    # As text, not as markup: names and facts may be untrusted.
    title = Text(f"trial {details['trial_id']}: {details['name']}")
    settings = Table(title=title, show_header=False)
    reason = details["reason"] if details["status"] == "failed" else None
    status = details["state"] + (f" ({reason})" if reason else "")
    about = {"status": status, "best epoch": details["best_epoch"], "seconds": details["seconds"]}
    for name, value in {**about, **details["facts"], **details["params"]}.items():
        text = f"{value:,}" if isinstance(value, int) else str(value)
        settings.add_row(Text(shown(name)), Text(shown(text)))
    epochs = Table(title="epochs")
    for column in EPOCH_COLUMNS:
        epochs.add_column(column, justify="right")
    for row in details["history"]:
        mark = " *" if row["epoch"] == details["best_epoch"] else ""
        cells = [f"{row[column]:.4f}" for column in EPOCH_COLUMNS[1:]]
        epochs.add_row(f"{row['epoch']}{mark}", *cells)
    return [settings, epochs]
