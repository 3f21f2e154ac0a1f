"""Runs a search: data, shared work, trials, leaderboard. One story from configuration to run."""

import shutil
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from ray import tune

from data_pipeline.manifest import Manifest, build_manifest
from data_pipeline.sources import cache_dir, resolve_source
from search import cluster
from search.config import SearchConfig, dump_config
from search.families import baselines_of, find_families, live_sizes, store_backbones
from search.leaderboard import rank_trials, write_leaderboard
from search.objective import Objective
from search.progress import Reporter
from search.run import Run
from search.run_folder import RunFolder, create_run_folder, write_json, write_text
from search.shared_work import PixelStore, SharedWork, prepare_banks
from search.trial import TrialWorker
from search.tuning import Trials, run_trials
from search.versions import installed_versions


def run_search(config: SearchConfig, reporter: Reporter | None = None) -> Run:
    """Searches from start to end.

    Args:
        config: The whole experiment.
        reporter: Shows progress; by default nothing is shown.

    Returns:
        The run, also where it was interrupted: `run.summary()["reason"]` says why it ended.

    Raises:
        UserError, DataError, ModelError: Bad input; raised before any trial starts, and
            nothing is left behind.
    """
    reporter = reporter or Reporter(quiet=True)
    config = with_absolute_paths(config)
    run = create_run_folder(Path(config.runs_dir), config.name or default_name(config))
    config = config.model_copy(update={"name": run.name})
    started = time.monotonic()
    try:
        prepared = _prepare(config, run, reporter)
    except BaseException:
        shutil.rmtree(run.root)  # made a moment ago, and no trial has started
        raise
    trials, work = prepared
    worker = tune.with_parameters(TrialWorker, work=work)
    reason = run_trials(config, run, trials, worker, reporter)
    _finish(config, run, reason, time.monotonic() - started)
    return Run(run)


def default_name(config: SearchConfig) -> str:
    """Data and time, as a folder name."""
    data = "".join(c if c.isalnum() else "-" for c in Path(config.data).stem)
    return f"{data.strip('-') or 'run'}-{datetime.now():%Y%m%d-%H%M%S}"


def with_absolute_paths(config: SearchConfig) -> SearchConfig:
    """The same search from any folder: workers and later commands run elsewhere."""
    update: dict[str, Any] = {"runs_dir": str(Path(config.runs_dir).expanduser().resolve())}
    if Path(config.data).expanduser().exists():
        update["data"] = str(Path(config.data).expanduser().resolve())
    if config.weights:
        update["weights"] = str(Path(config.weights).expanduser().resolve())
    return config.model_copy(update=update)


def load_data(config: SearchConfig, reporter: Reporter) -> Manifest:
    """The image folder of a configuration, split."""
    cache = cache_dir()
    root = resolve_source(config.data, cache=cache, progress=reporter.stage)
    return build_manifest(root, seed=config.seed, cache=cache, progress=reporter.stage)


def _prepare(config: SearchConfig, run: RunFolder, reporter: Reporter) -> tuple[Trials, SharedWork]:
    """All that stands ready before the first trial; what cannot work is found here."""
    manifest = load_data(config, reporter)
    reporter.data(manifest)
    families = find_families(config, reporter.say)
    baselines = baselines_of(config, families)
    cluster.connect(config.resources.address)
    plan = cluster.plan_resources(config.resources, *cluster.available_resources())
    manifest.save(run.root)
    cache = cache_dir()
    backbones = store_backbones(run, families, plan.threads, cache)
    pixels = PixelStore(manifest, reporter.stage)
    banks = prepare_banks(config, manifest, backbones, pixels, plan, cache, reporter.stage)
    write_text(run.config_file, dump_config(config, versions=installed_versions()))
    work = SharedWork(
        run_root=run.root,
        metric=config.metric,
        threads=plan.threads,
        class_names=manifest.class_names,
        train_labels=manifest.labels("train"),
        val_labels=manifest.labels("validation"),
        pixels={size: pixels.at(size) for size in live_sizes(config, families, baselines)},
        backbones=backbones,
        banks=banks,
    )
    return Trials(baselines, families.names, len(manifest.class_names), plan), work


def _finish(config: SearchConfig, run: RunFolder, reason: str | None, seconds: float) -> None:
    rows = rank_trials(run, Objective(config.metric))
    if rows:
        write_leaderboard(run, rows)
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.status] = counts.get(row.status, 0) + 1
    write_json(run.summary_file, {"reason": reason, "seconds": round(seconds, 1), "counts": counts})
