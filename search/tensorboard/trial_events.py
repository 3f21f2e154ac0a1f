"""A trial's curves for TensorBoard: one point per epoch, also after interruptions.

The file is derived from the trial's own rows: epochs are added as they end, and whenever that
would leave a point twice or out of order the file is written again.
"""

import re
import time
from collections.abc import Mapping

from pawtune.search.objective import Metric, Objective
from pawtune.search.storage.run_folder import RunFolder, TrialFolder
from pawtune.search.tensorboard.event_files import EventFile, remove_event_files
from pawtune.search.tensorboard.event_pictures import Samples
from pawtune.search.trial_report import METRICS as REPORTED

Epoch = Mapping[str, float]
SCALARS = tuple(name for name in REPORTED if name != "seconds")
# HParams shows the last value of a curve: what belongs to the best epoch needs curves of its own.
METRICS = {
    "best_val_accuracy": "best_val_accuracy",
    "trial/val_loss_at_best": "val_loss (at best)",
    "trial/best_epoch": "best_epoch",
    "trial/weights": "weights",
    "trial/seconds": "seconds",
    "trial/stopped_early": "stopped early",
    "trial/failed": "failed",
}
IN_METRICS = ("val_accuracy", "val_loss")  # others have a curve at best only if optimised
NAME_CHARACTERS = 40


def metric_columns(metric: Metric) -> dict[str, str]:
    """Tags of the metrics in the HParams table, with their headings; what is optimised first."""
    optimised = {f"trial/{metric}_at_best": f"{metric} (at best)"}
    return METRICS if metric in IN_METRICS else {**optimised, **METRICS}


def run_label(trial_id: str, name: str) -> str:
    """A trial's run in TensorBoard: sorts by id, says the name, fits a legend.

    >>> run_label("0007", "conv-0007"), run_label("0001", "tutorial_1")
    ('0007-conv', '0001-tutorial_1')
    """
    plain = re.sub(r"[^\w.-]+", "_", name.removesuffix(f"-{trial_id}"))
    return f"{trial_id}-{plain[:NAME_CHARACTERS]}"


class TrialEvents:
    """One trial's event file.

    Args:
        run: The run.
        trial: The trial; its specification must be written.
        objective: Rule by which one epoch is better than another.
        samples: Pictures to show.
    """

    def __init__(
        self, run: RunFolder, trial: TrialFolder, objective: Objective, samples: Samples
    ) -> None:
        self._trial = trial
        self._objective = objective
        self._samples = samples
        self._proposal = trial.read_proposal()
        label = run_label(trial.trial_id, self._proposal.spec.name)
        self._folder = run.tensorboard_dir / label
        self._rows: list[Epoch] = list(trial.read_metrics())
        self._started = trial.read_status().started or time.time()
        self._file = self._write_again()

    def add(self, row: Epoch, num_weights: float | None = None) -> None:
        """Adds an epoch; one that was there before, and all after it, are replaced."""
        kept = [known for known in self._rows if known["epoch"] < row["epoch"]]
        if len(kept) < len(self._rows):
            self._file.close()
            self._rows = kept
            self._file = self._write_again()
        for each in (*self._not_reported(row), row):
            self._rows.append(each)
            self._write_epoch(len(self._rows), time.time(), num_weights)
        self._file.flush()

    def _not_reported(self, row: Epoch) -> list[Epoch]:
        """Epochs before this one that a worker had kept when it died, but not reported."""
        last = self._rows[-1]["epoch"] if self._rows else 0
        if row["epoch"] <= last + 1:
            return []
        return [kept for kept in self._trial.read_metrics() if last < kept["epoch"] < row["epoch"]]

    def end(self) -> None:
        """Says how the trial ended, by its own status, and closes the file."""
        status = self._trial.read_status()
        if status.status in ("completed", "stopped", "failed"):
            wall_time = status.finished or time.time()
            # HParams has a filter for failed trials, but does not show which ones failed.
            ended = {
                "trial/stopped_early": float(status.stopped_early),
                "trial/failed": float(status.status == "failed"),
            }
            step = int(self._rows[-1]["epoch"]) if self._rows else 0
            self._file.add_scalars(ended, step, wall_time)
            self._file.end_session(status.status != "failed", wall_time)
        self._file.close()

    def _write_again(self) -> EventFile:
        had_files = remove_event_files(self._folder)
        file = EventFile(self._folder)
        try:
            self._write_all(file, had_files)
        except BaseException:  # the trial's records are damaged
            file.close()
            raise
        return file

    def _write_all(self, file: EventFile, had_files: bool) -> None:
        if had_files:
            file.restart(0)
        file.start_session(self._proposal.params, self._started)
        views = self._samples.views(self._proposal.spec.model)
        if views is not None:
            file.add_image("trial/augmentation", views)  # after `best`, of which there is one
        self._file = file
        facts = self._trial.read_facts()
        wall_time = self._started
        for number, row in enumerate(self._rows, start=1):
            wall_time += row.get("seconds", 0.0)
            self._write_epoch(number, wall_time, facts.num_weights)
        file.flush()

    def _write_epoch(self, number: int, wall_time: float, num_weights: float | None) -> None:
        """Writes the `number`-th of the rows."""
        rows = self._rows[:number]
        row, best = rows[-1], self._objective.best(rows)
        metric = self._objective.metric
        tags = dict.fromkeys((*SCALARS, metric))
        values = {tag: row[tag] for tag in tags if tag in row}
        values |= {
            "best_val_accuracy": best["val_accuracy"],
            "trial/val_loss_at_best": best["val_loss"],
            "trial/best_epoch": best["epoch"],
            "trial/seconds": sum(known.get("seconds", 0.0) for known in rows),
        }
        if metric not in IN_METRICS:
            values[f"trial/{metric}_at_best"] = best[metric]
        if num_weights is not None:
            values["trial/weights"] = num_weights
        self._file.add_scalars(values, int(row["epoch"]), wall_time)
