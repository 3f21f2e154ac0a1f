"""Runs a search: data, shared work, trials, leaderboard. One story from configuration to run."""

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune

from pawtune.data_pipeline.cache import cache_dir, cache_limit, shrink_cache
from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.progress import Progress
from pawtune.data_pipeline.safe_files import expanded, read_regular
from pawtune.data_pipeline.sources.object_store import is_address
from pawtune.data_pipeline.sources.resolve import is_path, named_as_given, resolve_source
from pawtune.data_pipeline.splitting.build import build_manifest
from pawtune.data_pipeline.splitting.label_tables.label_table import LabelFile
from pawtune.data_pipeline.splitting.label_tables.table_file import MAX_TABLE_BYTES
from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.data_pipeline.splitting.relabel import read_corrections
from pawtune.models.backbones.backbone_weights import map_weights
from pawtune.search.cluster import connection as cluster
from pawtune.search.cluster.early_start import load_beside_ray
from pawtune.search.cluster.head_address import refuse_foreign
from pawtune.search.cluster.node_check import decoding_nodes
from pawtune.search.config.needs import needs_of_proposals, needs_of_trials
from pawtune.search.config.own_metric import metric_in_use, try_metric
from pawtune.search.config.search_config import (
    ResourcesConfig,
    SearchConfig,
    default_name,
    dump_config,
    load_recorded_config,
)
from pawtune.search.errors import UserError, readable_in_python
from pawtune.search.process import INTERRUPTIONS, interruptible
from pawtune.search.progress.reporter import Reporter, default_reporter
from pawtune.search.results.kept_weights import WeightDropper
from pawtune.search.results.leaderboard import rank_trials, write_leaderboard
from pawtune.search.run import Run
from pawtune.search.sampling.earlier_runs import Lessons, learn_from
from pawtune.search.shared_work.backbones import (
    baselines_of,
    find_families,
    refuse_wrong_weights,
    share_backbones,
    store_backbones,
)
from pawtune.search.shared_work.board import end_board
from pawtune.search.shared_work.hashing import read_on_cluster
from pawtune.search.shared_work.pixels import PixelStore
from pawtune.search.shared_work.scout import keep_best_backbones
from pawtune.search.shared_work.shared_work import SharedWork, share_work
from pawtune.search.storage.history import (
    drop_states_of_ended,
    first_start,
    forget_failures,
    mark_ended,
    read_history,
    remove_partial_files,
)
from pawtune.search.storage.object_store_sync import hold_run
from pawtune.search.storage.records import RunSummary
from pawtune.search.storage.retry import must_exist, retry_storage
from pawtune.search.storage.run_folder import (
    RunFolder,
    create_run_folder,
    open_run_folder,
    remove_run_folder,
    write_bytes,
    write_text,
)
from pawtune.search.storage.versions import installed_versions
from pawtune.search.tuning.own_callbacks import OwnCallbacks
from pawtune.search.tuning.tune_loop import Trials, run_trials
from pawtune.search.worker.trial import TrialWorker
from pawtune.search.worker.trial_client import end_writer, start_writer


@readable_in_python
def run_search(
    config: SearchConfig,
    reporter: Reporter | None = None,
    callbacks: Sequence[object] = (),
) -> Run:
    """Searches from start to end; from a script, a notebook's cell or a thread.

    Example:
        >>> quick = {"image_size": 32, "trials": 2, "epochs": 2, "families": "conv"}
        >>> config = SearchConfig(data="sample", name="pets", **quick)  # doctest: +SKIP
        >>> run = run_search(config)  # doctest: +SKIP

    Args:
        config: The whole experiment.
        reporter: Shows progress; by default a notebook shows it, and a script shows nothing.
        callbacks: Objects with `on_trial_start`, `on_epoch` and `on_trial_end`, or some of them,
            each called with a `TrialEvent`; or instances of `ray.tune.Callback`.

    Returns:
        The run, also where it was interrupted: `run.summary()["reason"]` says why it ended.

    Raises:
        UserError, DataError, ModelError: Bad input; raised before any trial starts, and
            nothing is left behind.
    """
    OwnCallbacks(callbacks, print)  # refuses what is none before anything is made
    reporter = reporter or default_reporter()
    metric_in_use(config.metric)
    config = with_absolute_paths(config)
    teachers = [open_run_folder(earlier, config.runs_dir) for earlier in config.learn_from]
    config = config.model_copy(update={"learn_from": tuple(t.place for t in teachers)})
    run = create_run_folder(config.runs_dir, config.name or default_name(config))
    config = config.model_copy(update={"name": run.name})
    started = time.monotonic()
    holding = hold_run(run, reporter.say, new=True)
    with holding as uploader, reporter.stages.noted_in(run), interruptible():
        try:
            # From here on `pawtune status` knows the run, and `pawtune resume` can begin it.
            write_text(run.config_file, dump_config(config, versions=installed_versions()))
            _keep_labels(config, run)
            refuse_wrong_weights(config)
            _check_resources(config, reporter)
            manifest = _load_beside_ray(config, reporter)
            config, trials, work = _prepare(config, run, manifest, reporter)
        except INTERRUPTIONS:
            reason: str | None = "interrupted"
        except Exception as error:
            if uploader is not None:
                uploader.abandon()
            remove_run_folder(run)  # made a moment ago, and no trial has started
            if isinstance(error, OSError):
                raise _storage_trouble(error) from error
            raise
        else:
            trials = replace(trials, uploader=uploader)
            reason = _run(config, run, trials, work, reporter, callbacks)
        _finish(config, run, reason, time.monotonic() - started, reporter.stages.seconds)
    return Run(run)


@readable_in_python
def resume_search(
    run: Run | RunFolder,
    *,
    more_trials: int = 0,
    retry_failed: bool = False,
    data: str | None = None,
    address: str | None = None,
    reporter: Reporter | None = None,
    callbacks: Sequence[object] = (),
) -> Run:
    """Continues a search from its run folder, wherever that and the images are now.

    Finished trials stand and teach the sampler and ASHA, unfinished ones continue from their
    last kept epoch, then new ones are proposed.

    Example:
        >>> run = resume_search(open_run("pets"), more_trials=1)  # doctest: +SKIP

    Args:
        run: The run.
        more_trials: Proposed trials on top of those the search was given before.
        retry_failed: Run failed trials again.
        data: Place of the images, if they have moved.
        address: A Ray cluster, if another than before.
        reporter: Shows progress; by default a notebook shows it, and a script shows nothing.
        callbacks: Callbacks, as `run_search` takes them.

    Raises:
        UserError, DataError, ModelError: The run is held by another driver, or is damaged, or
            the images are not those it began with.
    """
    reporter = reporter or default_reporter()
    run = run.folder if isinstance(run, Run) else run
    started = time.monotonic()
    holding = hold_run(run, reporter.say)
    with holding as uploader, reporter.stages.noted_in(run), interruptible():
        config = _config_to_resume(run, more_trials, data, address)
        metric_in_use(config.metric)
        try:
            _check_resources(config, reporter)
            manifest = _manifest_to_resume(run, config, reporter)
            if retry_failed:
                forget_failures(run)
            past = read_history(run, config.objective)
            remove_partial_files(run)
            settled = mark_ended(run, past)
            unfinished = [trial.trial_id for trial in past if not trial.over]
            if uploader is not None:
                uploader.take_up(settled, unfinished)
            config, trials, work = _prepare(config, run, manifest, reporter)
        except INTERRUPTIONS:
            reason: str | None = "interrupted"
        except OSError as error:
            raise _storage_trouble(error) from error
        else:
            trials = replace(trials, past=past, uploader=uploader)
            reason = _run(config, run, trials, work, reporter, callbacks)
        _finish(config, run, reason, time.monotonic() - started, reporter.stages.seconds)
    return Run(run)


def _config_to_resume(
    run: RunFolder, more_trials: int, data: str | None, address: str | None
) -> SearchConfig:
    config = load_recorded_config(run.config_file)
    update: dict[str, Any] = {
        "name": run.name,
        "runs_dir": run.runs_dir,
        "trials": config.trials + more_trials,
    }
    if data is not None:
        update["data"] = data
    if run.labels_file.exists():
        update["labels"] = str(run.labels_file)
    if run.relabel_file.exists():
        update["relabel"] = str(run.relabel_file)
    if address is not None:
        update["resources"] = config.resources.model_copy(update={"address": address})
    else:
        refuse_foreign(config.resources.address)
    # The weights are in the run folder; where they once came from may be gone.
    return with_absolute_paths(config.model_copy(update=update))


def _manifest_to_resume(run: RunFolder, config: SearchConfig, reporter: Reporter) -> Manifest:
    """The recorded splits, on the images where they are now; each is checked when decoded."""
    try:
        manifest = Manifest.load(run.root)
    except DataError:
        if any(run.trials()):
            raise
        # The driver was killed before it had made them.
        return _load_beside_ray(config, reporter)
    root = resolve_source(config.data, cache=cache_dir(), progress=reporter.stage)
    return replace(manifest, root=str(root))


def _storage_trouble(error: OSError) -> UserError:
    """The error for a disk that is full or absent, in plain words."""
    return UserError(
        f"the files of a search must be readable and its folders writable: {error}; make room, or "
        "bring the storage back, and give the command again"
    )


def with_absolute_paths(config: SearchConfig) -> SearchConfig:
    """The same search from any folder: workers and later commands run elsewhere."""
    given = {"runs_dir": config.runs_dir, "relabel": config.relabel}
    for key, place in {"data": config.data, "labels": config.labels}.items():
        if place and is_path(place) and os.path.exists(os.path.expanduser(place)):
            given[key] = place
    update = {key: _absolute(place) for key, place in given.items() if place}
    if config.weights:
        update["weights"] = map_weights(config.weights, _absolute)
    return config.model_copy(update=update)


def _absolute(place: str) -> str:
    return place if is_address(place) else str(expanded(place).resolve())


def _keep_labels(config: SearchConfig, run: RunFolder) -> None:
    """Copies the table of labels: when the search is resumed, that of a job is gone."""
    if config.labels is not None and Path(config.labels).is_file():
        write_bytes(run.labels_file, read_regular(Path(config.labels), MAX_TABLE_BYTES))
    if config.relabel is not None:
        read_corrections(Path(config.relabel))  # refused before anything is made of it
        write_bytes(run.relabel_file, Path(config.relabel).read_bytes())


def _load_beside_ray(config: SearchConfig, reporter: Reporter) -> Manifest:
    load = partial(load_data, config)
    return load_beside_ray(load, reporter.stage, config.resources.address, reporter.say)


def load_data(config: SearchConfig, progress: Progress) -> Manifest:
    """The image folder of a configuration, split."""
    cache = cache_dir()
    root = resolve_source(config.data, cache=cache, progress=progress)
    labels = None
    if config.labels is not None:
        labels = LabelFile(Path(config.labels), config.label_column, config.path_column)
    with named_as_given(config.data):
        return build_manifest(
            root,
            seed=config.seed,
            labels=labels,
            relabel=Path(config.relabel) if config.relabel is not None else None,
            min_class_size=config.min_class_size,
            area_from=config.area_from,
            cache=cache,
            progress=progress,
            read_shards=read_on_cluster,
        )


def _check_resources(config: SearchConfig, reporter: Reporter) -> None:
    """Refuses missing resources at once: reading many images takes minutes."""
    if config.resources != ResourcesConfig():
        cluster.connect(config.resources.address, reporter.say)
        cluster.plan_resources(config.resources, cluster.available_resources())


def _prepare(
    config: SearchConfig, run: RunFolder, manifest: Manifest, reporter: Reporter
) -> tuple[SearchConfig, Trials, SharedWork]:
    """Makes what the trials share; the search is narrowed to the backbones that the scout kept."""
    reporter.data(manifest)
    try_metric(config.metric, manifest.labels("validation"), len(manifest.class_names))
    families = find_families(config, reporter.say, run)
    baselines = baselines_of(config, families, len(manifest.class_names), reporter.say)
    cluster.connect(config.resources.address, reporter.say)
    plan = cluster.plan_resources(config.resources, cluster.available_resources())
    nodes = decoding_nodes(manifest, partial(reporter.stage, "look at the nodes"))
    manifest.save(run.root)
    cache = cache_dir()
    shrink_cache(cache, cache_limit())
    pixels = PixelStore(manifest, cache, reporter.stage, nodes, reporter.say)
    stored = store_backbones(run, families)
    for backbone in stored.values():
        run.keep(*backbone.files)
    backbones = share_backbones(stored)
    config = keep_best_backbones(
        config, run, families.names, backbones, pixels, manifest, plan.threads, reporter.say
    )
    needs = needs_of_trials(config, baselines) | needs_of_proposals(config, families.names)
    write_text(run.config_file, dump_config(config, versions=installed_versions()))
    writer = start_writer(run.trials_dir, config.objective)
    work = share_work(config, manifest, plan, needs, pixels, backbones, writer)
    trials = Trials(
        baselines,
        families.names,
        len(manifest.class_names),
        plan,
        lessons=_lessons(config, families.names, manifest, reporter),
        board=work.features.board if work.features is not None else None,
    )
    return config, trials, work


def _lessons(
    config: SearchConfig, families: Sequence[str], manifest: Manifest, reporter: Reporter
) -> Lessons:
    runs = []
    for earlier in config.learn_from:
        try:
            runs.append(open_run_folder(earlier, config.runs_dir))
        except UserError:  # it was there when the search began
            reporter.say(f"learns nothing from {earlier}, which is gone")
    return learn_from(runs, config, families, manifest, reporter.say)


def _run(
    config: SearchConfig,
    run: RunFolder,
    trials: Trials,
    work: SharedWork,
    reporter: Reporter,
    callbacks: Sequence[object],
) -> str | None:
    """Runs all trials; from its return on nobody else writes the run folder."""
    worker = tune.with_parameters(TrialWorker, work=work)
    callbacks = [*callbacks, _dropper(run, config)]
    reason = run_trials(config, run, trials, worker, reporter, callbacks)
    end_writer(work.writer)
    if work.features is not None:
        end_board(work.features.board)
    return reason


def _dropper(run: RunFolder, config: SearchConfig) -> WeightDropper:
    return WeightDropper(run, config.objective, config.keep_weights)


def _finish(
    config: SearchConfig,
    run: RunFolder,
    reason: str | None,
    seconds: float,
    stages: Mapping[str, float],
) -> None:
    """Ranks the trials and records the end; times are added to those of earlier sessions."""

    def finish() -> None:
        must_exist(run.root)
        drop_states_of_ended(run)
        rows = rank_trials(run, config.objective, note=True, over=True)
        if rows:
            write_leaderboard(run, rows)
            _dropper(run, config).drop(rows)
        before = run.read_summary() or RunSummary(seconds=0)
        spent = Counter(before.stages)
        spent.update(stages)
        began = before.began or first_start(run) or time.time() - seconds
        run.write_summary(
            RunSummary(
                reason=reason,
                seconds=round(seconds + before.seconds, 1),
                stages={name: round(value, 1) for name, value in spent.items()},
                counts=dict(Counter(row.status for row in rows)),
                began=round(began, 1),
            )
        )

    try:
        retry_storage(finish)
    except OSError as error:
        raise _storage_trouble(error) from error
