"""What all trials share: decoded pixels and frozen backbones, made once, handed out by reference.

Ray tasks decode shards in parallel across the cluster; one task joins them into a single array in
the object store, which every trial on a node reads in place (zero copy).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import ray

from data_pipeline.images import decode_split
from data_pipeline.manifest import Manifest, ManifestEntry
from search.objective import Metric

Labels = np.ndarray[tuple[int], np.dtype[np.int32]]
Pixels = np.ndarray[tuple[int, int, int, int], np.dtype[np.uint8]]
Progress = Callable[[int, int], None]
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
        run_root: The run folder.
        metric: What decides on a trial's best epoch.
        threads: TensorFlow threads of a trial: its CPUs.
        class_names: Labels by index.
        train_labels: (N_train,) int32.
        val_labels: (N_validation,) int32.
        pixels: By image size in pixels.
        backbone_weights: Weight file of a frozen backbone, by (name, image size).
    """

    run_root: Path
    metric: Metric
    threads: int
    class_names: tuple[str, ...]
    train_labels: Labels
    val_labels: Labels
    pixels: Mapping[int, PixelRefs]
    backbone_weights: Mapping[tuple[str, int], Path] = field(default_factory=dict)


def decode_pixels(
    manifest: Manifest, root: Path, image_size: int, progress: Progress = lambda done, total: None
) -> PixelRefs:
    """Decodes the training and validation splits at one size, once for all trials.

    Args:
        manifest: Who is in which split. Test images are not touched.
        root: The image folder, on a path that every node sees.
        image_size: Side in pixels.
        progress: Called with (images done, images in all).
    """
    splits = {name: manifest.split(name) for name in ("train", "validation")}
    total = sum(len(entries) for entries in splits.values())
    shards = {
        name: [
            _decode_shard.remote(root, entries[start : start + SHARD_IMAGES], image_size)
            for start in range(0, len(entries), SHARD_IMAGES)
        ]
        for name, entries in splits.items()
    }
    pending = [shard for refs in shards.values() for shard in refs]
    of_all = len(pending)
    while pending:
        _, pending = ray.wait(pending, num_returns=1)
        progress(total * (of_all - len(pending)) // of_all, total)
    joined = {name: _join.remote(*refs) for name, refs in shards.items()}
    ray.wait(list(joined.values()), num_returns=len(joined))
    return PixelRefs(train=joined["train"], validation=joined["validation"])


@ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]
def _decode_shard(root: Path, entries: Sequence[ManifestEntry], image_size: int) -> Pixels:
    return decode_split(root, entries, image_size)


@ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]
def _join(*shards: Pixels) -> Pixels:
    return np.concatenate(shards)
