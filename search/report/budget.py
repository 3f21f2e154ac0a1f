"""Where a search's seconds went, and which work was not done at all."""

from dataclasses import dataclass

from pawtune.models.words import count
from pawtune.search.report.data import ReportData, TrialView
from pawtune.search.report.words import duration
from pawtune.search.results.model_choice import ensemble_record
from pawtune.search.storage.records import EnsembleRecord
from pawtune.search.storage.run_folder import read_json

STAGES = ("solved", "trained", "fine-tuned")  # ways to train, the cheapest first


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
                planned=sum(trial.spec.train.epochs for trial in trials),
                training_s=training,
                other_s=max(0.0, whole - training),
            )
        )
    return Budget(tuple(rows), tuple(_budget_lines(data)))


def _budget_lines(data: ReportData) -> list[str]:
    lines = []
    if data.run.folder.scout_file.exists():
        ranking = str(read_json(data.run.folder.scout_file)["ranking"])
        lines.append(f"{ranking[0].upper()}{ranking[1:]}.")
    starts = [trial.started for trial in data.trials if trial.started]
    ends = [trial.finished for trial in data.trials if trial.finished]
    whole = data.summary.seconds if data.summary else None
    if starts and ends:
        trials_s = max(0.0, max(ends) - min(starts))
        line = f"From the first trial's start to the last one's end: {duration(trials_s)}"
        stages = read_stages(data)
        text = "".join(f"; {name}: {duration(seconds)}" for name, seconds in stages.items())
        if whole and whole < trials_s:  # resumed: nobody worked between its sessions
            line += f", of which the search was at work for {duration(whole)}{text}"
        elif whole:
            rest = max(0.0, whole - trials_s - sum(stages.values()))
            what = "starting Ray and TensorFlow" if stages else "reading, decoding, feature bank"
            line += f"{text}; the rest ({what}, ranking): {duration(rest)}"
        lines.append(f"{line}.")
    lines += _stage_lines(data)
    saved = saved_epochs(data)
    if saved:
        planned = sum(trial.spec.train.epochs for trial in data.trials)
        share = f"{saved / planned:.0%}"
        lines.append(f"Early stopping left out {count(saved, 'epoch')} of {planned:,} ({share}).")
    passes = saved_passes(data)
    if passes:
        made = count_bank_passes(data)
        lines.append(
            f"The feature bank stood in for {passes:,} passes of an image through a backbone; "
            f"making it takes {made:,}, once for all searches on these images."
        )
    return lines


def _stage_lines(data: ReportData) -> list[str]:
    """What each way of training, and a kept ensemble, brought against the best of those before."""
    stages: list[str] = []
    best = 0.0
    for stage in STAGES:
        trials = [trial for trial in data.usable if _stage_of(trial) == stage]
        if not trials:
            continue
        reached = max(trial.row.best_val_accuracy or 0.0 for trial in trials)
        seconds = sum(trial.row.seconds or 0.0 for trial in trials)
        gain = f", {100 * (reached - best):+.1f} points" if stages else ""
        stages.append(
            f"{stage} {reached:.3f}{gain} ({count(len(trials), 'trial')}, {duration(seconds)})"
        )
        best = max(best, reached)
    made = ensemble_record(data.run.folder)
    if stages and made.exists():
        record = EnsembleRecord.read(made)
        kind = "weight average" if record.method == "soup" else "vote"
        took = f" ({duration(record.seconds)})" if record.seconds is not None else ""
        gain = f"{100 * (record.accuracy - best):+.1f} points"
        stages.append(f"{kind} of {len(record.members)} {record.accuracy:.3f}, {gain}{took}")
    return [f"Best validation accuracy by stage: {'; '.join(stages)}."] if len(stages) > 1 else []


def _stage_of(trial: TrialView) -> str:
    if trial.facts.training == "solved":
        return "solved"
    return "fine-tuned" if trial.row.family == "finetune" else "trained"


def read_stages(data: ReportData) -> dict[str, float]:
    """What each stage before the trials took, in seconds, the longest first."""
    recorded = data.summary.stages if data.summary else {}
    taken = {name: value for name, value in recorded.items() if value}
    return dict(sorted(taken.items(), key=lambda item: -item[1]))


def saved_epochs(data: ReportData) -> int:
    """Epochs not run because the scheduler stopped a trial."""
    return sum(
        trial.spec.train.epochs - len(trial.epochs)
        for trial in data.trials
        if trial.row.state == "stopped early"
    )


def saved_passes(data: ReportData) -> int:
    """Passes of an image through a backbone that the feature bank saved.

    Live, that is every training image in every epoch, and every validation image once a trial.
    """
    if data.manifest is None:
        return 0
    train, validation = (len(data.manifest.split(name)) for name in ("train", "validation"))
    epochs = [len(trial.epochs) for trial in _on_bank(data)]
    return train * sum(epochs) + validation * len(epochs)


def count_bank_passes(data: ReportData) -> int:
    """Passes of an image through a backbone that making the feature banks takes."""
    if data.manifest is None:
        return 0
    train, validation = (len(data.manifest.split(name)) for name in ("train", "validation"))
    params = [trial.row.params for trial in _on_bank(data)]
    banks = {(str(known.get("backbone")), str(known.get("image_size"))) for known in params}
    return len(banks) * (train * data.config.speed.views + validation)


def _on_bank(data: ReportData) -> list[TrialView]:
    return [t for t in data.trials if t.epochs and t.facts.training == "bank"]
