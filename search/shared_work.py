"""What all trials share: decoded pixels and frozen backbones, made once, handed out by reference.

Ray tasks decode shards in parallel across the cluster; one task joins them into a single array in
the object store, which every trial on a node reads in place (zero copy).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
import ray

from data_pipeline.images import decode_split
from data_pipeline.manifest import Manifest, ManifestEntry
from models.hardware import cpu_has_bfloat16
from models.spec import Precision
from search.cluster import ResourcePlan
from search.config import SearchConfig
from search.families import Backbone, StoredBackbone
from search.feature_banks import BankRecipe, BankRefs, ImageSet, open_or_build
from search.objective import Metric
from search.reach import Node

Labels = np.ndarray[tuple[int], np.dtype[np.int32]]
Pixels = np.ndarray[tuple[int, int, int, int], np.dtype[np.uint8]]
Progress = Callable[[int, int], None]
WITHOUT_CPUS = 4  # decoding tasks at once on a node that has no CPUs for tasks
SHARD_IMAGES = 128  # about 10 MB at 160 px: small enough to spread, large enough to amortise


@dataclass(frozen=True)
class PixelRefs:
    """References to (N, S, S, 3) uint8 pixels of one image size, in manifest order."""

    train: "ray.ObjectRef[Pixels]"
    validation: "ray.ObjectRef[Pixels]"


@dataclass(frozen=True)
class SharedWork:
    """Everything a worker is handed besides its own spec.

    Attributes:
        run_root: The run folder, or its address in an object store.
        metric: What decides on a trial's best epoch.
        threads: TensorFlow threads of a trial: its CPUs.
        class_names: Labels by index.
        train_labels: (N_train,) int32.
        val_labels: (N_validation,) int32.
        pixels: By image size in pixels; only sizes at which some trial may train on pixels.
        backbones: By (name, image size).
        banks: By (name, image size); empty where banks are switched off.
    """

    run_root: Path | str
    metric: Metric
    threads: int
    class_names: tuple[str, ...]
    train_labels: Labels
    val_labels: Labels
    pixels: Mapping[int, PixelRefs]
    backbones: Mapping[Backbone, StoredBackbone] = field(default_factory=dict)
    banks: Mapping[Backbone, BankRefs] = field(default_factory=dict)


class PixelStore:
    """Decodes a size when it is first asked for.

    Args:
        manifest: Who is in which split.
        progress: Called with (stage, images done, images in all).
        nodes: That see the images; empty where all do.
    """

    def __init__(
        self,
        manifest: Manifest,
        progress: Callable[[str, int, int], None],
        nodes: Sequence[Node] = (),
    ) -> None:
        self._manifest = manifest
        self._progress = progress
        self._nodes = nodes
        self._decoded: dict[int, PixelRefs] = {}

    def at(self, image_size: int) -> PixelRefs:
        """The pixels at one size."""
        if image_size not in self._decoded:
            self._decoded[image_size] = decode_pixels(
                self._manifest,
                Path(self._manifest.root),
                image_size,
                partial(self._progress, f"decode at {image_size} px"),
                self._nodes,
            )
        return self._decoded[image_size]


def decode_pixels(
    manifest: Manifest,
    root: Path,
    image_size: int,
    progress: Progress = lambda done, total: None,
    nodes: Sequence[Node] = (),
) -> PixelRefs:
    """Decodes the training and validation splits at one size, once for all trials.

    Args:
        manifest: Who is in which split. Test images are not touched.
        root: The image folder, on a path that the decoding nodes see.
        image_size: Side in pixels.
        progress: Called with (images done, images in all).
        nodes: That decode, each its part; empty: any.
    """
    splits = {name: manifest.split(name) for name in ("train", "validation")}
    total = sum(len(entries) for entries in splits.values())
    pieces = [
        (name, entries[start : start + SHARD_IMAGES])
        for name, entries in splits.items()
        for start in range(0, len(entries), SHARD_IMAGES)
    ]
    places = cycle([node.options() for node in nodes] or [{}])
    # Ray would start a process for each task that asks for no CPU.
    most = len(pieces) if not nodes or nodes[0].cpus else WITHOUT_CPUS
    shards: dict[str, list[ray.ObjectRef[Pixels]]] = {name: [] for name in splits}
    pending: list[ray.ObjectRef[Pixels]] = []
    progress(0, total)
    for begun, (name, entries) in enumerate(pieces, start=1):
        shards[name].append(_decode_shard.options(**next(places)).remote(root, entries, image_size))
        pending.append(shards[name][-1])
        while pending and (len(pending) >= most or begun == len(pieces)):
            _, pending = ray.wait(pending, num_returns=1)
            progress(total * (begun - len(pending)) // len(pieces), total)
    joined = {name: _join.remote(*refs) for name, refs in shards.items()}
    ray.wait(list(joined.values()), num_returns=len(joined))
    return PixelRefs(train=joined["train"], validation=joined["validation"])


@ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]
def _decode_shard(root: Path, entries: Sequence[ManifestEntry], image_size: int) -> Pixels:
    return decode_split(root, entries, image_size)


@ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]
def _join(*shards: Pixels) -> Pixels:
    return np.concatenate(shards)


def prepare_banks(
    config: SearchConfig,
    manifest: Manifest,
    backbones: Mapping[Backbone, StoredBackbone],
    pixels: PixelStore,
    plan: ResourcePlan,
    cache: Path,
    progress: Callable[[str, int, int], None],
) -> dict[Backbone, BankRefs]:
    """A feature bank for every backbone and image size that trials may use.

    Raises:
        ModelError: A backbone cannot be built, or a cached bank is damaged.
    """
    if not config.speed.bank:
        return {}
    banks = {}
    for (name, size), backbone in backbones.items():
        recipe = BankRecipe(
            backbone=name,
            image_size=size,
            weights=backbone.weights,
            weights_hash=backbone.source_hash,
            content=backbone.content,
            policy=_bank_policy(config.speed.precision, plan),
            seed=config.seed,
        )
        hashes = {
            split: [entry.sha256 for entry in manifest.split(split)]
            for split in ("train", "validation")
        }
        banks[name, size] = open_or_build(
            recipe,
            ImageSet(hashes["train"], partial(_split, pixels, size, "train")),
            ImageSet(hashes["validation"], partial(_split, pixels, size, "validation")),
            num_views=config.speed.views,
            cache=cache,
            resources={"num_cpus": plan.cpus, "num_gpus": plan.gpus},
            progress=partial(progress, f"feature bank {name} at {size} px"),
        )
    return banks


def _split(pixels: PixelStore, size: int, split: str) -> "ray.ObjectRef[Pixels]":
    return getattr(pixels.at(size), split)


def _bank_policy(precision: Precision, plan: ResourcePlan) -> str:
    """The dtype policy of a bank: one for all its shards, whatever worker computes them."""
    if precision != "auto":
        return precision
    if plan.gpus:
        return "float32"  # a bank takes a GPU seconds; which one it is cannot be asked here
    return "mixed_bfloat16" if cpu_has_bfloat16() else "float32"
