"""Which families can run: a frozen backbone needs its ImageNet weights."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from pawtune.data_pipeline.cache import cache_dir
from pawtune.data_pipeline.progress import silent
from pawtune.data_pipeline.safe_files import expanded
from pawtune.data_pipeline.sources.object_store import is_address
from pawtune.data_pipeline.sources.stored_files import stored_file
from pawtune.models.backbones.backbone_weights import (
    NUM_FEATURES,
    NUM_WEIGHTS,
    find_weights,
    weights_by_backbone,
    weights_ending,
)
from pawtune.models.baselines import BASELINES, baseline
from pawtune.models.errors import ModelError
from pawtune.models.families.family import Backbone
from pawtune.models.families.table import check_limits
from pawtune.models.spec import TrialSpec
from pawtune.search.cluster.sent_files import SentFile, send_file
from pawtune.search.config.needs import backbones_of, given_weights, needs_of_family
from pawtune.search.config.search_config import SearchConfig
from pawtune.search.storage.run_folder import (
    RunFolder,
    backbone_of_file,
    read_json,
    write_bytes,
    write_json,
)


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
        ModelError: A family was asked for, and its backbone's weights cannot be found.
    """
    names: list[str] = []
    weights: dict[Backbone, Path] = {}
    given = weights_by_backbone(config.weights)
    for name in config.family_names:
        keys = backbones_of(needs_of_family(config, name))
        try:
            weights |= {key: _find(key, given.get(key.name, given.get("")), run) for key in keys}
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
        given_weights(config)
        find_families(config, lambda line: None)


@cache
def _given_weights(place: str | None) -> Path | None:
    if not place:
        return None
    if is_address(place):
        return stored_file(place, cache_dir(), silent)
    return expanded(place)


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
        num_classes: Number of classes; from 433 on, tutorial_1 has too many weights.
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
    """A frozen backbone whose weights are in the run folder.

    Attributes:
        weights: The file, in Keras' old format (.h5) or its new one (.weights.h5).
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


def store_backbones(run: RunFolder, families: Families) -> dict[Backbone, StoredBackbone]:
    """Puts each backbone's weights into the run folder, as they were found."""
    found: dict[Backbone, StoredBackbone] = {}
    for (name, size), file in families.weights.items():
        target = file
        if file.parent != run.backbones_dir:  # there already where the run is resumed
            target = run.backbones_dir / f"{name}-{size}{weights_ending(file)}"
            content = file.read_bytes()
            write_bytes(target, content)
            facts = {"num_weights": NUM_WEIGHTS[name], "num_features": NUM_FEATURES[name]}
            write_json(
                _facts(target), {"source_hash": hashlib.sha256(content).hexdigest(), **facts}
            )
        found[Backbone(name, size)] = stored_backbone(target)
    return found


def _facts(weights: Path) -> Path:
    name, size = backbone_of_file(weights)
    return weights.with_name(f"{name}-{size}.json")


def stored_backbone(weights: Path) -> StoredBackbone:
    """A backbone that a run folder holds, from the facts beside its weights."""
    facts = read_json(_facts(weights))
    # Older runs do not say how many features there are.
    counts = int(facts["num_weights"]), int(facts.get("num_features", 0))
    return StoredBackbone(weights, str(facts["source_hash"]), *counts)
