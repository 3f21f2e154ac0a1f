"""The model card: where a model comes from, and how it was measured."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.search.markdown import render_markdown
from pawtune.search.objective import Metric
from pawtune.search.results.calibration import choice_temperature, measure_calibration
from pawtune.search.results.delivery.front_matter import front_matter
from pawtune.search.results.leaderboard import Row, as_dicts
from pawtune.search.results.look_ledger import read_ledger
from pawtune.search.results.metrics import Majority, wilson_interval
from pawtune.search.results.model_choice import ModelChoice, refit_folder
from pawtune.search.results.selection_bias import estimate_validation
from pawtune.search.results.validation import read_choice
from pawtune.search.storage.records import EnsembleRecord, RefitRecord, TrialFacts
from pawtune.search.storage.run_folder import RunFolder
from pawtune.search.storage.versions import installed_versions, recorded_versions

TEMPLATE = Path(__file__).parent / "templates" / "model_card.md.j2"


def make_card(
    run: RunFolder, rows: Sequence[Row], choice: ModelChoice, manifest: Manifest, metric: Metric
) -> dict[str, Any]:
    """The card of a complete model, as plain JSON values.

    Args:
        run: The run.
        rows: The leaderboard, best first.
        choice: The model, of one of `rows` or several.
        manifest: The run's splits.
        metric: Metric that the search optimised.
    """
    row = choice.row
    (trial,) = as_dicts([row])
    facts = _facts(run, choice)
    return {
        "run": run.name,
        "model": choice.kind,
        "title": choice.title,
        "class_names": list(manifest.class_names),
        **manifest.decoding._asdict(),
        "data_fingerprint": manifest.fingerprint,
        "counts": manifest.counts(),
        "trial": trial,
        "spec": _spec(run, choice),
        "record": choice.record.as_dict() if choice.record is not None else {},
        "metric": metric,
        "majority": asdict(Majority(*manifest.majority("validation"))),
        "validation": _validation(run, rows, choice, manifest, metric),
        "test": _last_look(run, choice),
        "calibration": _calibration(run, choice, manifest),
        "facts": facts.as_dict(),
        "hardware": {
            "trained_on": facts.host,
            "processor": facts.cpu,
            "precision": facts.precision,
            "written_on": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        },
        "versions": installed_versions(),
        "search_versions": recorded_versions(run.config_file),
        "command": f"pawtune best {run.name} {choice.option} --out best.keras",
        "search_command": (f"pawtune run --config {run.name}/search.yaml --name {run.name}-again"),
    }


def card_markdown(card: Mapping[str, Any]) -> str:
    """The card as one Markdown page, for people and for hubs; the JSON holds the same and more."""
    return front_matter(card) + render_markdown(TEMPLATE, {"card": card})


def _facts(run: RunFolder, choice: ModelChoice) -> TrialFacts:
    """Facts recorded by the worker that trained it; for an ensemble, those of its best member."""
    folder = run.trial(choice.row.trial_id)
    if choice.kind == "refit":
        folder = refit_folder(run, choice.trial_id)
    return folder.read_facts()


def _spec(run: RunFolder, choice: ModelChoice) -> dict[str, Any]:
    if choice.kind == "ensemble":  # each member has its own; the size is for `predict`
        return {
            "model": {"family": "ensemble", "image_size": choice.image_size},
            "train": {},
            "members": [run.spec_of(name).model_dump(mode="json") for name in choice.trial_ids],
        }
    spec = run.spec_of(choice.row.trial_id).model_dump(mode="json")
    if isinstance(choice.record, RefitRecord):
        spec["train"]["epochs"] = choice.record.epochs
    return spec


def _validation(
    run: RunFolder, rows: Sequence[Row], choice: ModelChoice, manifest: Manifest, metric: Metric
) -> dict[str, Any]:
    """Uncorrected with Wilson's interval; corrected for the choice where this trial is the best.

    A refit has no validation images left: the figures are the trial's before.
    """
    images = sum(manifest.counts()["validation"].values())
    accuracy = choice.row.best_val_accuracy or 0.0
    if isinstance(choice.record, EnsembleRecord):
        accuracy = choice.record.accuracy
    estimate = estimate_validation(run, rows, metric)
    is_winner = estimate is not None and estimate.trial_id == choice.trial_id
    return {
        "accuracy": accuracy,
        "images": images,
        "interval_95": list(wilson_interval(round(accuracy * images), images)) if images else None,
        "corrected_accuracy": estimate.corrected_accuracy if estimate and is_winner else None,
        "corrected_interval_95": list(estimate.interval_95) if estimate and is_winner else None,
        "candidates": estimate.candidates if estimate else None,
    }


def _calibration(run: RunFolder, choice: ModelChoice, manifest: Manifest) -> dict[str, Any] | None:
    """The temperature inside, and what it does on validation."""
    if choice_temperature(run, choice) is None:
        return None
    found = measure_calibration(read_choice(run, choice, manifest), manifest)
    return found.as_dict() if found is not None else None


def _last_look(run: RunFolder, choice: ModelChoice) -> dict[str, Any] | None:
    """The latest look at the test split with this model; never a new one."""
    ledger = read_ledger(run)
    this = (choice.kind, choice.trial_id)
    looks = [look for look in ledger if (look.model, look.trial_id) == this]
    if choice.kind == "ensemble":  # a vote and a weight average may be of the same trials
        looks = [look for look in looks if look.title in ("", choice.title)]
    if not looks:
        return None
    errors = ("calibration_error", "calibration_error_before")
    kept = ("time", "accuracy", "correct", "n", "interval_95", *errors, "looks")
    content = looks[-1].as_dict()
    return {key: content[key] for key in kept if key in content} | {"looks_of_run": len(ledger)}
