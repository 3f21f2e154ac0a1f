"""Words and numbers of the report: headline, budget, what was recorded."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from pawtune.data_pipeline.safe_files import shown
from pawtune.data_pipeline.url_credentials import without_secrets
from pawtune.models.words import count
from pawtune.search.report.data import ReportData
from pawtune.search.results.metrics import LEARNED_NOTHING, Majority
from pawtune.search.results.selection_bias import describe_winner
from pawtune.search.storage.run_folder import read_json
from pawtune.search.storage.versions import recorded_versions

Card = dict[str, Any]
NOTHING_TO_TEST = "there is nothing to test yet"


def duration(seconds: float | None) -> str:
    """A duration in words.

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
        parts.append(duration(data.summary.seconds))
    return " · ".join(parts)


def notices(data: ReportData) -> list[str]:
    """Warnings above the numbers: the search has not ended, nothing to rank, an unread manifest."""
    found = []
    if data.summary is None:
        found.append(
            "This search has not ended (or was killed): the numbers are those of this moment."
        )
    elif data.summary.reason:
        found.append(f"The search ended early: {data.summary.reason}.")
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
        *_reference_cards(data),
        _trials_card(data),
    ]


def _best_card(data: ReportData) -> Card:
    best = data.best
    if best is None:
        return _card("Best validation, uncorrected", "–", "no trial has finished an epoch")
    detail = f"{best.row.name}, epoch {best.row.best_epoch} of {best.spec.train.epochs}"
    accuracy = best.row.best_val_accuracy or 0.0
    if data.manifest is not None:
        majority = Majority(*data.manifest.majority("validation"))
        detail += f"; {majority}"
        if majority.is_all_of(accuracy):
            detail += f"; {LEARNED_NOTHING}"
    return _card("Best validation, uncorrected", f"{accuracy:.4f}", detail)


def _corrected_cards(data: ReportData) -> list[Card]:
    if len(data.usable) < 2:  # nothing was chosen among
        return []
    label = "The same, corrected"
    if data.estimate is None:
        rows = [trial.row for trial in data.ranked]
        missing = "needs the validation predictions of the best trial"
        return [_card(label, "–", describe_winner(None, rows) or missing)]
    low, high = data.estimate.interval_95
    detail = (
        f"for picking the best of {data.estimate.candidates} (bootstrap); 95% interval "
        f"{low:.4f} to {high:.4f}"
    )
    return [_card(label, f"{data.estimate.corrected_accuracy:.4f}", detail)]


def _test_card(data: ReportData) -> Card:
    if not data.looks:
        detail = (
            f"not looked at yet: pawtune test {data.run.name}" if data.best else NOTHING_TO_TEST
        )
        return _card("Test accuracy", "–", detail, main=True)
    look = data.looks[-1]
    low, high = look.interval_95
    name = next((t.row.name for t in data.trials if t.trial_id == look.trial_id), "?")
    if look.model != "trial":  # a refit or an ensemble, by its own name
        name = look.title or look.model
    detail = f"95% interval {low:.4f} to {high:.4f}; {look.correct} of {look.n} right, {name}"
    if len(data.looks) > 1:
        detail += f". Look {len(data.looks)} at this split: no longer an honest test"
    return _card("Test accuracy", f"{look.accuracy:.4f}", detail, main=True)


def _reference_cards(data: ReportData) -> list[Card]:
    """The winner against the best baseline, or against the first trial where none ran."""
    best, (baseline, kind) = data.best, data.reference
    reference = (
        "" if data.majority_share is None else f"; most frequent class {data.majority_share:.4f}"
    )
    if best is None or baseline is None:
        return []
    accuracy = baseline.row.best_val_accuracy or 0.0
    detail = f"{kind} {baseline.row.name}: {accuracy:.4f}{reference}"
    if best.trial_id == baseline.trial_id:  # it is not compared with itself
        return [_card(f"Against the {kind}", "none better", f"no other trial beat the {detail}")]
    gain = (best.row.best_val_accuracy or 0.0) - accuracy
    return [_card(f"Against the {kind}", f"{gain:+.4f}", detail)]


def _trials_card(data: ReportData) -> Card:
    outcomes = Counter(trial.row.state for trial in data.trials)
    listed = [f"{number} {outcome}" for outcome, number in outcomes.most_common()]
    return _card("Trials", str(len(data.trials)), ", ".join(listed) or "none was proposed")


def _card(label: str, value: str, detail: str, main: bool = False) -> Card:
    return {"label": label, "value": value, "detail": detail, "main": main}


def test_lines(data: ReportData) -> list[str]:
    """What the last look at the test split found, in sentences; empty before any."""
    if not data.looks:
        return []
    look = data.looks[-1]
    low, high = look.interval_95
    lines = [
        f"{look.correct:,} of {look.n:,} test images are right: accuracy "
        f"{look.accuracy:.4f}, 95% interval {low:.4f} to {high:.4f} (Wilson)."
    ]
    baseline, comparison = look.baseline, look.comparison
    tested = next((t.row.name for t in data.trials if t.trial_id == look.trial_id), None)
    if baseline and baseline.name != tested:  # a winner is not compared with itself
        lines.append(
            f"The {baseline.kind}, {baseline.name}, gets {baseline.accuracy:.4f} of them right."
        )
    if baseline and comparison:
        lines.append(
            f"{comparison.only_first} are right in the trial alone, {comparison.only_second} "
            f"in the {baseline.kind} alone: p = {comparison.p_value:.3g} (McNemar, exact)."
        )
    if look.calibration_error is not None:
        before = look.calibration_error_before
        uncalibrated = "" if before is None else f", {before:.4f} before calibration"
        lines.append(f"Expected calibration error: {look.calibration_error:.4f}{uncalibrated}.")
    if len(data.looks) > 1:
        lines.append(
            f"This was look {len(data.looks)}: a figure chosen after several looks is no longer "
            "an honest test."
        )
    return lines


def advice(data: ReportData) -> str:
    """What more images would bring, as `pawtune advise` found it; or how to ask."""
    file = data.run.folder.audit_dir / "advice.json"
    ask = f"Not asked yet: pawtune advise {data.run.name} says what more images would bring."
    if not file.exists():
        return ask
    content = read_json(file)
    try:
        found = [
            (int(each["images"]), float(each["accuracy"]), *map(float, each["band"]))
            for each in content["forecasts"]
        ]
        needed = [(str(each["name"]), float(each["recall"])) for each in content["classes"]]
        (now, accuracy, *_), *more = found
        expected = "; ".join(
            f"with {images:,} images {mean:.1%} (90% band {low:.1%} to {high:.1%})"
            for images, mean, low, high in more
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return f"{file.name} cannot be read. {ask}"
    lowest = ", ".join(f"{shown(name)} {recall:.1%}" for name, recall in needed[:5])
    return (
        f"A linear head on {now:,} training and validation images is right on {accuracy:.1%}; "
        f"{expected}. Lowest recall, where images are most needed: {lowest}."
    )


def recorded(data: ReportData) -> list[tuple[str, str]]:
    """Name and value of what is needed to repeat the run: data, seed, versions, machines."""
    rows = [("data", without_secrets(data.config.data))]
    if data.manifest is not None:
        rows.append(("data fingerprint", data.manifest.fingerprint))
    rows.append(("seed", str(data.config.seed)))
    versions = recorded_versions(data.run.folder.config_file)
    if versions:
        rows.append(("versions", ", ".join(f"{name} {v}" for name, v in versions.items())))
    facts = [trial.facts for trial in data.trials]
    precisions, hosts = {f.precision for f in facts}, {f.host for f in facts}
    for label, found in (("precision", precisions), ("trained on", hosts)):
        values = sorted(value for value in found if value is not None)
        if values:
            rows.append((label, ", ".join(values[:8]) + (" …" if len(values) > 8 else "")))
    return rows


def commands(data: ReportData) -> str:
    """Commands to type next, each with its purpose, as text in columns."""
    name = data.run.name
    lines = [
        (f"pawtune run --config runs/{name}/search.yaml --name {name}-again", "the same search"),
    ]
    if data.summary is None or data.summary.reason:
        lines.append((f"pawtune resume {name}", "continue this one"))
    if data.best is not None:
        lines.append((f"pawtune best {name} --out best.keras", "the best epoch as one Keras model"))
        lines.append((f"pawtune reproduce {name}", "trains it again and compares every epoch"))
        lines.append((f"pawtune test {name}", "one look at the held-out test split"))
    elif data.trials:
        trial_id = data.trials[0].trial_id
        lines.append((f"pawtune show {name} {trial_id}", "what became of a trial, in full"))
    width = max(len(command) for command, _ in lines)
    return "\n".join(f"{command:<{width}}  # {why}" for command, why in lines)
