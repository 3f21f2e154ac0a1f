"""What goes with a checkpoint: where it comes from, and what it was measured at."""

import os
import platform
from collections.abc import Sequence
from typing import Any

from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.search.objective import Metric
from pawtune.search.results.leaderboard import Row, as_dicts
from pawtune.search.results.look_ledger import read_ledger
from pawtune.search.results.metrics import wilson_interval
from pawtune.search.results.model_choice import ModelChoice, refit_folder
from pawtune.search.results.selection_bias import estimate_validation
from pawtune.search.storage.run_folder import RunFolder, read_json
from pawtune.search.storage.trial_spec import load_spec
from pawtune.search.storage.versions import installed_versions, recorded_versions


def make_card(
    run: RunFolder, rows: Sequence[Row], chosen: ModelChoice, manifest: Manifest, metric: Metric
) -> dict[str, Any]:
    """The card of a complete model, as plain JSON values.

    Args:
        run: The run.
        rows: The leaderboard, best first.
        chosen: The model, of one of `rows` or several.
        manifest: The run's splits.
        metric: What the search optimised.
    """
    row = chosen.row
    (trial,) = as_dicts([row])
    facts = _facts(run, chosen)
    return {
        "run": run.name,
        "model": chosen.kind,
        "title": chosen.title,
        "class_names": list(manifest.class_names),
        "data_fingerprint": manifest.fingerprint,
        "counts": manifest.counts(),
        "trial": trial,
        "spec": _spec(run, chosen),
        "record": chosen.record,
        "metric": metric,
        "validation": _validation(run, rows, chosen, manifest, metric),
        "test": _last_look(run, chosen),
        "facts": facts,
        "hardware": {
            "trained_on": facts.get("host"),
            "processor": facts.get("cpu"),
            "precision": facts.get("precision"),
            "written_on": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        },
        "versions": installed_versions(),
        "search_versions": recorded_versions(run.config_file),
        "command": f"pawtune best {run.name} {chosen.option} --out best.keras",
        "search_command": (f"pawtune run --config {run.name}/search.yaml --name {run.name}-again"),
    }


def _facts(run: RunFolder, chosen: ModelChoice) -> dict[str, Any]:
    """What the worker found out that trained it; of an ensemble, its best member's."""
    folder = run.trial(chosen.row.trial_id)
    if chosen.kind == "refit":
        folder = refit_folder(run, chosen.trial_id)
    return read_json(folder.facts_file) if folder.facts_file.exists() else {}


def _spec(run: RunFolder, chosen: ModelChoice) -> dict[str, Any]:
    if chosen.kind == "ensemble":  # each member has its own; the size is for `predict`
        members = [member["trial_id"] for member in chosen.record["members"]]
        return {
            "model": {"family": "ensemble", "image_size": chosen.image_size},
            "train": {},
            "members": [load_spec(run, name).model_dump(mode="json") for name in members],
        }
    spec = load_spec(run, chosen.row.trial_id).model_dump(mode="json")
    if chosen.kind == "refit":
        spec["train"]["epochs"] = chosen.record["epochs"]
    return spec


def _validation(
    run: RunFolder, rows: Sequence[Row], chosen: ModelChoice, manifest: Manifest, metric: Metric
) -> dict[str, Any]:
    """As seen with Wilson's interval; corrected for the choice where this trial is the winner.

    A refit has no validation images left: the figures are the trial's before.
    """
    images = sum(manifest.counts()["validation"].values())
    accuracy = chosen.row.best_val_accuracy or 0.0
    if chosen.kind == "ensemble":
        accuracy = float(chosen.record["accuracy"])
    estimate = estimate_validation(run, manifest, rows, metric)
    is_winner = estimate is not None and estimate.trial_id == chosen.trial_id
    return {
        "accuracy": accuracy,
        "images": images,
        "interval_95": list(wilson_interval(round(accuracy * images), images)) if images else None,
        "corrected_accuracy": estimate.corrected_accuracy if estimate and is_winner else None,
        "corrected_interval_95": list(estimate.interval_95) if estimate and is_winner else None,
        "candidates": estimate.candidates if estimate else None,
    }


def _last_look(run: RunFolder, chosen: ModelChoice) -> dict[str, Any] | None:
    """The latest look at the test split with this model; never a new one."""
    ledger = read_ledger(run)
    this = (chosen.kind, chosen.trial_id)
    looks = [look for look in ledger if (look.get("model", "trial"), look["trial_id"]) == this]
    if not looks:
        return None
    kept = ("time", "accuracy", "correct", "n", "interval_95", "calibration_error", "looks")
    look = {key: looks[-1][key] for key in kept if key in looks[-1]}
    return {**look, "looks_of_run": len(ledger)}
