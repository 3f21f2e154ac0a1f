"""Where a search's seconds went, and which work was not done at all."""

from dataclasses import dataclass

from search.figure_parts import count
from search.report_data import ReportData
from search.report_words import duration


@dataclass(frozen=True)
class BudgetRow:
    """Trials of one kind: what they ran and took."""

    kind: str
    trials: int
    epochs: int
    planned: int
    training_s: float
    other_s: float


@dataclass(frozen=True)
class Budget:
    """Where the seconds went, in rows by kind and in sentences."""

    rows: tuple[BudgetRow, ...]
    lines: tuple[str, ...]


def budget(data: ReportData) -> Budget:
    """Where the seconds went, and which work was not done at all."""
    rows = []
    for kind in sorted({trial.kind for trial in data.trials}):
        trials = [trial for trial in data.trials if trial.kind == kind and trial.started]
        if not trials:
            continue
        training = sum(trial.training_s for trial in trials)
        whole = sum(trial.row.seconds or 0.0 for trial in trials)
        rows.append(
            BudgetRow(
                kind=kind,
                trials=len(trials),
                epochs=sum(len(trial.epochs) for trial in trials),
                planned=sum(trial.planned_epochs for trial in trials),
                training_s=training,
                other_s=max(0.0, whole - training),
            )
        )
    return Budget(tuple(rows), tuple(_budget_lines(data)))


def _budget_lines(data: ReportData) -> list[str]:
    lines = []
    starts = [trial.started for trial in data.trials if trial.started]
    ends = [trial.finished for trial in data.trials if trial.finished]
    whole = (data.summary or {}).get("seconds")
    if starts and ends:
        trials_s = max(0.0, max(ends) - min(starts))
        line = f"From the first trial's start to the last one's end: {duration(trials_s)}"
        if whole:
            rest = max(0.0, whole - trials_s)
            line += f"; before and after (reading, decoding, ranking): {duration(rest)}"
        lines.append(f"{line}.")
    saved = saved_epochs(data)
    if saved:
        planned = sum(trial.planned_epochs for trial in data.trials)
        share = f"{saved / planned:.0%}"
        lines.append(f"Early stopping left out {count(saved, 'epoch')} of {planned:,} ({share}).")
    passes = saved_passes(data)
    if passes:
        lines.append(
            f"The feature bank stood in for {passes:,} passes of an image through a backbone."
        )
    return lines


def saved_epochs(data: ReportData) -> int:
    """Epochs not run because the scheduler stopped a trial."""
    return sum(
        trial.planned_epochs - len(trial.epochs)
        for trial in data.trials
        if trial.row.status == "stopped" and trial.reason == "asha"
    )


def saved_passes(data: ReportData) -> int:
    """Images that trials on the feature bank did not push through their backbone."""
    if data.manifest is None:
        return 0
    images = sum(data.manifest.counts()["train"].values())
    epochs = sum(len(t.epochs) for t in data.trials if t.facts.get("training") == "bank")
    return images * epochs
