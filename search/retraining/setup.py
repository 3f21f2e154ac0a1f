"""Training a run's trials again: its images found and checked, its shared work made again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pawtune.data_pipeline.cache import cache_dir
from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.sources.resolve import resolve_source
from pawtune.data_pipeline.splitting.image_check import check_unchanged
from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.models.spec import TrialSpec
from pawtune.search.cluster import connection as cluster
from pawtune.search.cluster.connection import ResourcePlan
from pawtune.search.cluster.head_address import refuse_foreign
from pawtune.search.config.needs import backbones_of, needs_of_trials
from pawtune.search.config.search_config import ResourcesConfig, SearchConfig, load_recorded_config
from pawtune.search.errors import UserError
from pawtune.search.progress.reporter import Reporter
from pawtune.search.shared_work.backbones import (
    Families,
    share_backbones,
    store_backbones,
)
from pawtune.search.shared_work.pixels import PixelStore
from pawtune.search.shared_work.shared_work import SharedWork, share_work
from pawtune.search.storage.run_folder import RunFolder

LOCAL = "local"  # an address: a cluster started on this machine


@dataclass(frozen=True)
class RetrainingSetup:
    """What trials of a run need to be trained again: data, resources and shared work.

    Attributes:
        config: Configuration of the search.
        manifest: Manifest of the search, on the images where they are now.
        plan: Resources of each training, and how many run at once.
        work: Shared work that every training is handed.
    """

    config: SearchConfig
    manifest: Manifest
    plan: ResourcePlan
    work: SharedWork


def prepare_retraining(
    run: RunFolder,
    specs: Sequence[TrialSpec],
    *,
    reporter: Reporter,
    data: str | None = None,
    address: str | None = None,
    precision: str | None = None,
    on_cpu: bool = False,
) -> RetrainingSetup:
    """Finds the images, joins the cluster, and makes what the trials share.

    Args:
        run: The run; nothing is written to it.
        specs: The trials to train.
        reporter: Shows progress.
        data: Place of the images, if they have moved.
        address: A Ray cluster, or "local" for this machine; None: as the search had it, unless
            that is on another machine: then it must be named.
        precision: Resolved precision to compute in; None: as the search chose.
        on_cpu: Use no GPU, even where there is one.

    Raises:
        UserError, DataError, ModelError: The run folder is damaged, or the images are not those
            that the search saw.
    """
    config = load_recorded_config(run.config_file)
    manifest = locate_images(run, config, data, reporter)
    check_unchanged(
        Path(manifest.root),
        [*manifest.split("train"), *manifest.split("validation")],
        what="training or validation",
    )
    if precision is not None:
        speed = config.speed.model_copy(update={"precision": precision})
        config = config.model_copy(update={"speed": speed})
    if address is None:
        refuse_foreign(config.resources.address)
    joined = None if address == LOCAL else address or config.resources.address
    cluster.connect(joined, reporter.say)
    plan = fit_resources(config.resources, on_cpu=on_cpu)
    needs = needs_of_trials(config, specs)
    names = tuple(sorted({spec.model.family for spec in specs}))
    weights = {key: run.backbone_weights(*key) for key in backbones_of(needs)}
    families = Families(names, weights)
    backbones = share_backbones(store_backbones(run, families))
    pixels = PixelStore(manifest, cache_dir(), reporter.stage, say=reporter.say)
    work = share_work(config, manifest, plan, needs, pixels, backbones)
    return RetrainingSetup(config, manifest, plan, work)


def locate_images(
    run: RunFolder, config: SearchConfig, data: str | None, reporter: Reporter
) -> Manifest:
    """The recorded splits on the images where they are now: as given, as then, or made again.

    Raises:
        UserError: The images are not found.
    """
    manifest = Manifest.load(run.root)
    if data is None and Path(manifest.root).is_dir():
        return manifest
    try:
        root = resolve_source(data or config.data, cache=cache_dir(), progress=reporter.stage)
    except DataError as error:
        raise UserError(
            f"the images of run {run.name} are needed again, but: {error}; give the place where "
            "they are now with --data"
        ) from error
    return replace(manifest, root=str(root))


def fit_resources(config: ResourcesConfig, *, on_cpu: bool = False) -> ResourcePlan:
    """The plan of the search, as far as this cluster can meet it."""
    capacity = cluster.available_resources()
    largest = capacity.largest
    gpus = 0.0 if on_cpu else config.gpus_per_trial
    update = {
        "cpus_per_trial": min(config.cpus_per_trial, largest["CPU"]),
        "gpus_per_trial": gpus if gpus is None else min(gpus, largest["GPU"]),
    }
    return cluster.plan_resources(config.model_copy(update=update), capacity)
