"""Which families can run: a frozen backbone needs its ImageNet weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import ray

from pawtune.data_pipeline.cache import cache_dir
from pawtune.data_pipeline.progress import silent
from pawtune.data_pipeline.sources.object_store import is_address
from pawtune.data_pipeline.sources.stored_files import stored_file
from pawtune.models.backbones.backbone_weights import find_weights
from pawtune.models.baselines import BASELINES, baseline
from pawtune.models.errors import ModelError
from pawtune.models.families.family import Backbone
from pawtune.models.families.table import check_limits
from pawtune.models.features.feature_bank import file_hash
from pawtune.models.spec import TrialSpec
from pawtune.search.cluster.connection import claim_process
from pawtune.search.cluster.node_check import here
from pawtune.search.cluster.sent_files import SentFile, send_file
from pawtune.search.cluster.task_result import result
from pawtune.search.config.needs import backbones_of, needs_of_family
from pawtune.search.config.search_config import SearchConfig
from pawtune.search.storage.run_folder import RunFolder, read_json, write_bytes, write_json


@dataclass(frozen=True)
class Families:
    """What a search may propose.

    Attributes:
        names: The families that can run.
        weights: The weights file that was found for each (backbone, image size).
    """

    names: tuple[str, ...]
    weights: Mapping[Backbone, Path] = field(default_factory=dict)


def find_families(
    config: SearchConfig, say: Callable[[str], None], run: RunFolder | None = None
) -> Families:
    """Finds the weights of every backbone that the search may use.

    A run that is resumed has them in its folder, wherever they came from. A search that named no
    families leaves out those whose backbone has none.

    Raises:
        ModelError: A family was asked for, and its backbone's weights cannot be had.
    """
    names: list[str] = []
    weights: dict[Backbone, Path] = {}
    for name in config.family_names:
        keys = backbones_of(needs_of_family(config, name))
        try:
            weights |= {key: _find(key, config.weights, run) for key in keys}
        except ModelError as error:
            if config.families is not None or config.weights:
                raise
            say(f"{name} is left out: {error}")
        else:
            names.append(name)
    return Families(tuple(names), weights)


def refuse_wrong_weights(config: SearchConfig) -> None:
    """Looks at a weights file that was given, before the images, which may take minutes.

    Raises:
        ModelError: It cannot hold the weights of the search's backbones.
    """
    if config.weights:
        find_families(config, lambda line: None)


@cache
def _given_weights(place: str | None) -> Path | None:
    if not place:
        return None
    if is_address(place):
        return stored_file(place, cache_dir(), silent)
    return Path(place).expanduser()


def _find(key: Backbone, given: str | None, run: RunFolder | None) -> Path:
    """The weights in the run folder first: where they once came from may be gone."""
    kept = run.backbone_weights(*key) if run is not None else None
    # Its facts are written last: without them the driver was killed while it put them there.
    if kept is not None and _facts(kept).exists():
        return kept
    return find_weights(*key, _given_weights(given))


def baselines_of(
    config: SearchConfig, families: Families, num_classes: int, say: Callable[[str], None]
) -> list[TrialSpec]:
    """The tutorial models that can run, unless switched off.

    Args:
        config: The search.
        families: Families that are searched, with their weights.
        num_classes: From 433 on, tutorial_1 has more weights than a net may have.
        say: Receives which of them are left out, and why.
    """
    if config.baselines == "off":
        return []
    update = {"precision": config.speed.precision, "class_weights": config.class_weights}
    specs = []
    for name in BASELINES:
        spec = baseline(name, config.epochs, config.seed)
        if spec.model.family not in families.names:
            continue
        try:
            check_limits(spec.model, num_classes)
        except ModelError as error:
            say(f"{name} is left out with {num_classes} classes: {error}")
            continue
        train = spec.train.model_copy(update=update)
        specs.append(spec.model_copy(update={"train": train}))
    return specs


@dataclass(frozen=True)
class StoredBackbone:
    """A frozen backbone whose weights a worker has read and put into the run folder.

    Attributes:
        weights: The file, in Keras' own format.
        source_hash: Hash of the file that the weights were read from.
        num_weights: How many there are.
        num_features: Number of features of an image, once pooled.
        sent: The file for other nodes; None: as it is stored, see `share_backbones`.
    """

    weights: Path
    source_hash: str
    num_weights: int
    num_features: int
    sent: SentFile | None = None

    @property
    def files(self) -> tuple[Path, Path]:
        """All that the run folder has of it, the weights first."""
        return self.weights, _facts(self.weights)

    def file(self) -> Path:
        """The weights on this node."""
        return self.weights if self.sent is None else self.sent.here()


def share_backbones(backbones: dict[Backbone, StoredBackbone]) -> dict[Backbone, StoredBackbone]:
    """Puts weights where workers on all nodes find them."""
    return {
        key: replace(backbone, sent=send_file(backbone.weights, backbone.source_hash))
        for key, backbone in backbones.items()
    }


def store_backbones(
    run: RunFolder,
    families: Families,
    threads: int,
    cache: Path,
    meanwhile: Callable[[int], object] = lambda image_size: None,
) -> dict[Backbone, StoredBackbone]:
    """Puts each backbone's weights into the run folder, once.

    Reading Keras' published file takes TensorFlow; its converted copy is kept in the cache, so
    that a later search need not start a worker for it.

    Args:
        run: Where they go.
        families: With the weights that were found.
        threads: TensorFlow's, in the process that reads them.
        cache: pawtune's cache folder.
        meanwhile: Called with each image size of which weights are still being read.

    Raises:
        ModelError: A weights file does not fit its backbone.
    """
    found: dict[Backbone, StoredBackbone] = {}
    pending: dict[Backbone, tuple[ray.ObjectRef[tuple[int, int]], str]] = {}
    for (name, size), file in families.weights.items():
        target = run.backbone_weights(name, size)
        if file == target:  # the run is resumed
            found[Backbone(name, size)] = stored_backbone(target)
            continue
        source_hash = file_hash(file)
        kept = _cached(cache, name, size, source_hash)
        if _facts(kept).exists():
            write_bytes(target, kept.read_bytes())
            write_bytes(_facts(target), _facts(kept).read_bytes())
            found[Backbone(name, size)] = stored_backbone(target)
        else:
            task = _store.options(**here().options()).remote(name, size, file, target, threads)
            pending[Backbone(name, size)] = task, source_hash
    for size in sorted({size for _, size in pending}):
        meanwhile(size)
    for (name, size), (task, source_hash) in pending.items():
        num_weights, num_features = result(task)
        target = run.backbone_weights(name, size)
        facts = {"num_weights": num_weights, "num_features": num_features}
        write_json(_facts(target), {"source_hash": source_hash, **facts})
        kept = _cached(cache, name, size, source_hash)
        write_bytes(kept, target.read_bytes())
        write_bytes(_facts(kept), _facts(target).read_bytes())  # last: it says that all is there
        found[Backbone(name, size)] = stored_backbone(target)
    return found


def _cached(cache: Path, name: str, image_size: int, source_hash: str) -> Path:
    return cache / "backbones" / f"{name}-{image_size}-{source_hash[:32]}.weights.h5"


def _facts(weights: Path) -> Path:
    return weights.with_name(weights.name.removesuffix(".weights.h5") + ".json")


def stored_backbone(weights: Path) -> StoredBackbone:
    """A backbone that a run folder holds, from the facts beside its weights."""
    facts = read_json(_facts(weights))
    # Older runs do not say how many features there are.
    counts = int(facts["num_weights"]), int(facts.get("num_features", 0))
    return StoredBackbone(weights, str(facts["source_hash"]), *counts)


@ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]
def _store(name: str, image_size: int, source: Path, target: Path, threads: int) -> tuple[int, int]:
    from pawtune.models.backbones.frozen_backbone import load_backbone

    claim_process(threads)  # the process may go on as a trial's worker
    backbone = load_backbone(name, image_size, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp.weights.h5")
    backbone.save_weights(temporary)
    temporary.replace(target)
    return int(backbone.count_params()), int(backbone.output_shape[-1])
