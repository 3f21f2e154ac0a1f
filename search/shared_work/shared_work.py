"""Everything that a search hands to each of its workers, besides the trial's specification."""

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray

from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.models.families.family import Backbone, Request
from pawtune.models.families.own import MAIN
from pawtune.models.model_spec import Resizing
from pawtune.search.cluster.connection import ResourcePlan
from pawtune.search.config.needs import live_sizes
from pawtune.search.config.own_metric import IN_USE, MetricFunction
from pawtune.search.config.search_config import SearchConfig, own_families
from pawtune.search.objective import Objective
from pawtune.search.shared_work.backbones import StoredBackbone
from pawtune.search.shared_work.features import FeatureStore, share_features
from pawtune.search.shared_work.pixels import PixelRefs, PixelStore

Labels = np.ndarray[tuple[int], np.dtype[np.int32]]


@dataclass(frozen=True)
class SharedWork:
    """Everything a worker is handed besides its own spec.

    Attributes:
        objective: Rule for a trial's best epoch, and the costs that are measured.
        threads: TensorFlow threads of a trial: its CPUs.
        class_names: Labels by index.
        train_labels: (N_train,) int32.
        val_labels: (N_validation,) int32.
        pixels: Images by their side in pixels; only those at which some trial may train on pixels.
        backbones: Frozen networks by (name, image size).
        features: Features of the plain images; None where no trial may use any.
        own_families: Classes of one's own that the trials need, sent by value: their module need
            not be where a worker runs.
        writer: The process that writes trials' folders; None where trials are trained again.
        own_metric: Function that the search optimises where it is the user's own, sent by value.
        resizing: How images were resized.
    """

    objective: Objective
    threads: int
    class_names: tuple[str, ...]
    train_labels: Labels
    val_labels: Labels
    pixels: Mapping[int, PixelRefs]
    backbones: Mapping[Backbone, StoredBackbone] = field(default_factory=dict)
    features: FeatureStore | None = None
    own_families: tuple[type, ...] = ()
    writer: Any = None
    own_metric: MetricFunction | None = None
    resizing: Resizing = "bilinear"


def share_work(
    config: SearchConfig,
    manifest: Manifest,
    plan: ResourcePlan,
    needs: Collection[Request],
    pixels: PixelStore,
    backbones: Mapping[Backbone, StoredBackbone],
    writer: Any = None,
) -> SharedWork:
    """Makes what every trial of a search is handed, or has it made when a trial asks for it.

    Args:
        config: The search.
        manifest: Its splits.
        plan: Resources that each trial gets.
        needs: Shared work that some trial may ask for.
        pixels: The decoded images.
        backbones: Backbones that some trial may use.
        writer: The process that writes trials' folders.
    """
    return SharedWork(
        objective=config.objective,
        threads=plan.threads,
        class_names=manifest.class_names,
        train_labels=manifest.labels("train"),
        val_labels=manifest.labels("validation"),
        pixels={size: pixels.at(size) for size in live_sizes(needs)},
        backbones=backbones,
        features=share_features(config, manifest, plan, needs, backbones, pixels),
        own_families=_sent_by_value(config.own_families),
        writer=writer,
        own_metric=_metric_by_value(config.metric),
        resizing=manifest.decoding.resizing,
    )


def _sent_by_value(places: Sequence[str]) -> tuple[type, ...]:
    """The classes of families of one's own, whose code Ray sends along from now on."""
    classes = tuple(type(family) for family in own_families(places))
    for found in classes:
        _send_code_of(found)
    return classes


def _metric_by_value(metric: str) -> MetricFunction | None:
    """A metric of one's own; None where the metric is pawtune's, or nobody has named it here."""
    function = IN_USE.get(metric)
    if function is not None:
        _send_code_of(function)
    return function


def _send_code_of(found: Any) -> None:
    package = sys.modules[found.__module__.partition(".")[0]]
    if package.__name__ != MAIN:  # which is sent by value anyway
        ray.cloudpickle.register_pickle_by_value(package)
