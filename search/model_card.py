"""What goes with a checkpoint: where it comes from, and what it was measured at."""

import os
import platform
from collections.abc import Sequence
from typing import Any

import yaml

from data_pipeline.manifest import Manifest
from search.checkpoints import load_spec
from search.evaluation import read_ledger
from search.intervals import wilson_interval
from search.leaderboard import Row, as_dicts
from search.objective import Metric
from search.run_folder import RunFolder, read_json
from search.selection import estimate_validation
from search.versions import installed_versions


def make_card(
    run: RunFolder, rows: Sequence[Row], row: Row, manifest: Manifest, metric: Metric
) -> dict[str, Any]:
    """The card of one trial's best epoch, as plain JSON values.

    Args:
        run: The run.
        rows: The leaderboard, best first.
        row: The trial, one of `rows`.
        manifest: The run's splits.
        metric: What the search optimised.
    """
    (trial,) = as_dicts([row])
    facts_file = run.trial(row.trial_id).facts_file
    facts = read_json(facts_file) if facts_file.exists() else {}
    return {
        "run": run.name,
        "class_names": list(manifest.class_names),
        "data_fingerprint": manifest.fingerprint,
        "counts": manifest.counts(),
        "trial": trial,
        "spec": load_spec(run, row.trial_id).model_dump(mode="json"),
        "metric": metric,
        "validation": _validation(run, rows, row, manifest, metric),
        "test": _last_look(run, row),
        "facts": facts,
        "hardware": {
            "trained_on": facts.get("host"),
            "precision": facts.get("precision"),
            "written_on": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        },
        "versions": installed_versions(),
        "search_versions": _search_versions(run),
        "command": f"pawtune best {run.name} --trial {row.trial_id} --out best.keras",
        "search_command": (f"pawtune run --config {run.name}/search.yaml --name {run.name}-again"),
    }


def _validation(
    run: RunFolder, rows: Sequence[Row], row: Row, manifest: Manifest, metric: Metric
) -> dict[str, Any]:
    """As seen with Wilson's interval; corrected for the choice where this trial is the winner."""
    images = sum(manifest.counts()["validation"].values())
    accuracy = row.best_val_accuracy or 0.0
    estimate = estimate_validation(run, manifest, rows, metric)
    is_winner = estimate is not None and estimate.trial_id == row.trial_id
    return {
        "accuracy": accuracy,
        "images": images,
        "interval_95": list(wilson_interval(round(accuracy * images), images)) if images else None,
        "corrected_accuracy": estimate.corrected_accuracy if estimate and is_winner else None,
        "corrected_interval_95": list(estimate.interval_95) if estimate and is_winner else None,
        "candidates": estimate.candidates if estimate else None,
    }


def _last_look(run: RunFolder, row: Row) -> dict[str, Any] | None:
    """The latest look at the test split with this trial; never a new one."""
    ledger = read_ledger(run)
    looks = [look for look in ledger if look["trial_id"] == row.trial_id]
    if not looks:
        return None
    kept = ("time", "accuracy", "correct", "n", "interval_95", "calibration_error", "looks")
    look = {key: looks[-1][key] for key in kept if key in looks[-1]}
    return {**look, "looks_of_run": len(ledger)}


def _search_versions(run: RunFolder) -> dict[str, str]:
    """Versions that the search ran with, where it recorded them."""
    content = yaml.safe_load(run.config_file.read_text(encoding="utf-8"))
    recorded = content.get("versions") if isinstance(content, dict) else None
    return {str(k): str(v) for k, v in recorded.items()} if isinstance(recorded, dict) else {}
