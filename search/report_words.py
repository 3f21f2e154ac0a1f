"""Words and numbers of the report: headline, budget, what was recorded."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from search.redaction import without_secrets
from search.report_data import ReportData
from search.yaml_text import YamlError, read_yaml

Card = dict[str, Any]


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


def duration(seconds: float | None) -> str:
    """Seconds as people say them.

    >>> duration(4.04), duration(516), duration(7261)
    ('4.0 s', '8 min 36 s', '2 h 1 min')
    """
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s"


def count(number: int, noun: str) -> str:
    """A number and its noun: `1 trial`, `2 trials`."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def subtitle(data: ReportData) -> str:
    """One line about data, date and size."""
    parts = []
    if data.manifest is not None:
        names = data.manifest.class_names
        listed = " and ".join(names) if len(names) == 2 else f"{len(names)} classes"
        counts = data.manifest.counts()
        parts.append(f"{listed}, {count(sum(counts['train'].values()), 'training image')}")
    parts.append(count(len(data.trials), "trial"))
    starts = [trial.started for trial in data.trials if trial.started is not None]
    if starts:
        parts.append(f"{datetime.fromtimestamp(min(starts), UTC):%d %B %Y}")
    if data.summary is not None:
        parts.append(duration(data.summary.get("seconds")))
    return " · ".join(parts)


def notices(data: ReportData) -> list[str]:
    """What a reader must know before the numbers."""
    found = []
    if data.summary is None:
        found.append(
            "This search has not ended (or was killed): the numbers are those of this moment."
        )
    elif data.summary.get("reason"):
        found.append(f"The search ended early: {data.summary['reason']}.")
    if data.trials and data.best is None:
        found.append("No trial has finished an epoch: there is nothing to rank yet.")
    if data.manifest_problem:
        found.append(f"The manifest cannot be read: {data.manifest_problem}")
    return found


def headline(data: ReportData) -> list[Card]:
    """The cards at the top."""
    return [
        _best_card(data),
        *_corrected_cards(data),
        _test_card(data),
        _baseline_card(data),
        _trials_card(data),
    ]


def _best_card(data: ReportData) -> Card:
    best = data.best
    if best is None:
        return _card("Best validation accuracy", "–", "no trial has finished an epoch")
    value = best.row.best_val_accuracy or 0.0
    detail = f"{best.row.name}, epoch {best.row.best_epoch} of {best.planned_epochs}"
    if data.corrected is None and len(data.usable) > 1:
        detail += f"; as seen: the best of {len(data.usable)} flatters itself"
    return _card("Best validation accuracy, as seen", f"{value:.4f}", detail)


def _corrected_cards(data: ReportData) -> list[Card]:
    if data.corrected is None:
        return []
    detail = f"corrected for having picked the best of {len(data.usable)}"
    return [_card("Validation accuracy, corrected", f"{data.corrected:.4f}", detail)]


def _test_card(data: ReportData) -> Card:
    if not data.looks:
        detail = f"not looked at yet: pawtune test {data.run.name}"
        return _card("Test accuracy", "–", detail, main=True)
    look = data.looks[-1]
    low, high = look["interval_95"]
    name = next((t.row.name for t in data.trials if t.trial_id == look["trial_id"]), "?")
    detail = f"95% interval {low:.4f} to {high:.4f}; {look['correct']} of {look['n']} right, {name}"
    if len(data.looks) > 1:
        detail += f". Look {len(data.looks)} at this split: no longer an honest test"
    return _card("Test accuracy", f"{look['accuracy']:.4f}", detail, main=True)


def _baseline_card(data: ReportData) -> Card:
    best, baseline = data.best, data.best_baseline
    reference = (
        "" if data.majority_share is None else f"; most frequent class {data.majority_share:.4f}"
    )
    if best is None or baseline is None:
        return _card("Against the baselines", "–", f"no baseline has finished an epoch{reference}")
    accuracy = baseline.row.best_val_accuracy or 0.0
    detail = f"best baseline {baseline.row.name}: {accuracy:.4f}{reference}"
    if best.trial_id == baseline.trial_id:
        return _card("Against the baselines", "±0", f"nothing beat it; {detail}")
    gain = (best.row.best_val_accuracy or 0.0) - accuracy
    return _card("Against the best baseline", f"{gain:+.4f}", detail)


def _trials_card(data: ReportData) -> Card:
    statuses = Counter(trial.row.status for trial in data.trials)
    words = {"stopped": "stopped early"}
    listed = [f"{number} {words.get(status, status)}" for status, number in statuses.items()]
    return _card("Trials", str(len(data.trials)), ", ".join(listed) or "none was proposed")


def _card(label: str, value: str, detail: str, main: bool = False) -> Card:
    return {"label": label, "value": value, "detail": detail, "main": main}


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


def recorded(data: ReportData, config_text: str) -> list[tuple[str, str]]:
    """What was written down, so that the run can be made again."""
    rows = [("data", without_secrets(data.config.data))]
    if data.manifest is not None:
        rows.append(("data fingerprint", data.manifest.fingerprint))
    rows.append(("seed", str(data.config.seed)))
    versions = recorded_versions(config_text)
    if versions:
        rows.append(("versions", ", ".join(f"{name} {v}" for name, v in versions.items())))
    for label, key in (("precision", "precision"), ("trained on", "host")):
        values = sorted({str(trial.facts[key]) for trial in data.trials if key in trial.facts})
        if values:
            rows.append((label, ", ".join(values[:8]) + (" …" if len(values) > 8 else "")))
    return rows


def recorded_versions(config_text: str) -> Mapping[str, Any]:
    """The versions that search.yaml records; empty where it records none."""
    try:
        document = read_yaml(config_text)
    except YamlError:
        return {}
    versions = document.get("versions") if isinstance(document, dict) else None
    return versions if isinstance(versions, dict) else {}


def commands(data: ReportData) -> str:
    """What to type to go on with this run."""
    name = data.run.name
    return "\n".join(
        [
            f"pawtune run --config runs/{name}/search.yaml --name {name}-again   # the same search",
            f"pawtune best {name} --out best.keras    # the best epoch as one Keras model",
            f"pawtune test {name}                     # one look at the held-out test split",
        ]
    )
