"""Whether Ray's object store holds what a search shares; what does not fit goes to disk."""

from collections.abc import Mapping, Sequence

import ray

from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.models.families.family import Backbone
from pawtune.search.shared_work.backbones import StoredBackbone
from pawtune.search.shared_work.feature_banks import POOLINGS

HALF = 2  # bytes of a number in a bank, float16


def bytes_to_share(
    manifest: Manifest,
    live_sizes: Sequence[int],
    backbones: Mapping[Backbone, StoredBackbone],
    num_views: int,
) -> int:
    """The most that a node's object store holds at once, if trials of all kinds run there.

    Pixels that only banks are made of go when the banks are there.

    Args:
        manifest: Training and validation images count.
        live_sizes: In pixels, at which trials train on pixels.
        backbones: Backbones that banks are made of; empty where banks are switched off.
        num_views: Number of views of a training image in a bank.
    """
    counts = {split: len(manifest.split(split)) for split in ("train", "validation")}
    pixels = {size: sum(counts.values()) * size * size * 3 for _, size in backbones}
    pixels |= {size: sum(counts.values()) * size * size * 3 for size in live_sizes}
    views = counts["train"] * num_views + counts["validation"]
    banks = sum(views * b.num_features * HALF * len(POOLINGS) for b in backbones.values())
    return sum(pixels.values()) + banks


def smallest_store() -> int | None:
    """Bytes of the smallest object store that has to hold it; None where there is none yet.

    That is the driver's, which has the first copy of all, and those of the nodes with CPUs.
    """
    here = ray.get_runtime_context().get_node_id()
    stores = [
        node["Resources"].get("object_store_memory", 0)
        for node in ray.nodes()
        if node["Alive"] and (node["Resources"].get("CPU") or node["NodeID"] == here)
    ]
    return int(min(stores)) if stores else None


def too_small(needed: int, available: int | None) -> str | None:
    """One line where a search does not fit into the object store; it runs all the same."""
    if available is None or needed <= available:
        return None
    return (
        f"object store: this search shares up to {needed / 1e9:.1f} GB, a node's store holds "
        f"{available / 1e9:.1f} GB; the rest goes to disk, which is slower: start Ray with a "
        "larger --object-store-memory, or take smaller images or fewer speed.views"
    )
