"""What all trials share: decoded pixels and frozen backbones, made once, handed out by reference.

Ray tasks decode shards in parallel across the cluster. The driver gathers them in a file of its
cache, where the next search finds them and every trial reads them in place (`shared_array`). So the
first copy is on the driver's node: a node that decoded may be lost afterwards.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray

from pawtune.data_pipeline.file_lock import build_lock
from pawtune.data_pipeline.images.decode import decode_split
from pawtune.data_pipeline.images.pixel_cache import (
    ARRAY,
    PixelMemory,
    PixelWriter,
    load_pixels,
    pixels_key,
)
from pawtune.data_pipeline.splitting.manifest import Manifest, ManifestEntry
from pawtune.models.cpu_info import cpu_has_bfloat16
from pawtune.models.model_spec import Precision
from pawtune.search.cluster.connection import ResourcePlan
from pawtune.search.cluster.node_check import Node
from pawtune.search.cluster.resource_wait import Progress, StageProgress, silent, wait_for_room
from pawtune.search.cluster.task_result import result
from pawtune.search.shared_work.shared_array import SharedArray, share_array

# Of float32 in convolutions: a GPU from Ampere on computes in TF32, 10 bits of mantissa instead of
# 23. "gpu": of several kinds, or of one that is not known before it computes.
DEVICES = ("cpu", "gpu", "gpu, float32", "gpu, TF32")
GPU_KIND = "accelerator_type:"
WITHOUT_TF32 = {"K80", "P4", "P100", "V100", "T4"}

Pixels = np.ndarray[tuple[int, int, int, int], np.dtype[np.uint8]]
WITHOUT_CPUS = 4  # decoding tasks at once on a node that has no CPUs for tasks
SHARD_IMAGES = 128  # about 10 MB at 160 px: small enough to spread, large enough to amortise


@dataclass(frozen=True)
class PixelRefs:
    """(N, S, S, 3) uint8 pixels of one image size, in manifest order."""

    train: SharedArray
    validation: SharedArray

    @property
    def both(self) -> SharedArray:
        """The training images followed by the validation images."""
        return replace(self.train, stop=None)


class PixelStore:
    """Decodes a size when it is first asked for.

    Args:
        manifest: Images of each split.
        cache: pawtune's cache folder.
        progress: Called with (stage, images done, images in all) while decoding.
        nodes: Nodes that see the images; empty where all do.
        say: Takes a line for the person who watches.
    """

    def __init__(
        self,
        manifest: Manifest,
        cache: Path,
        progress: StageProgress,
        nodes: Sequence[Node] = (),
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._manifest = manifest
        self._cache = cache
        self._progress = progress
        self._nodes = nodes
        self._say = say
        self._decoded: dict[int, PixelRefs] = {}

    def at(self, image_size: int) -> PixelRefs:
        """The pixels at one size."""
        if image_size not in self._decoded:
            self._decoded[image_size] = decode_pixels(
                self._manifest,
                Path(self._manifest.root),
                image_size,
                self._cache,
                progress=partial(self._progress, f"decode at {image_size} px"),
                nodes=self._nodes,
                say=self._say,
            )
        return self._decoded[image_size]


def decode_pixels(
    manifest: Manifest,
    root: Path,
    image_size: int,
    cache: Path,
    *,
    progress: Progress = silent,
    nodes: Sequence[Node] = (),
    say: Callable[[str], None] = lambda line: None,
) -> PixelRefs:
    """The training and validation splits at one size, from the cache or decoded, for all trials.

    Args:
        manifest: Images of each split. Test images are not touched.
        root: The image folder, on a path that the decoding nodes see.
        image_size: Side in pixels.
        cache: pawtune's cache folder.
        progress: Called with (images done, images in all) while decoding.
        nodes: Nodes that decode, each its part; empty: any.
        say: Called where the cache has no room; the search continues without.

    Raises:
        DataError: An image cannot be decoded, or what is in the cache is damaged.
    """
    train = manifest.split("train")
    entries = [*train, *manifest.split("validation")]
    decode = partial(_gather, root, entries, image_size, nodes, progress)
    try:
        images = _through_cache(cache, entries, image_size, decode, progress)
    except OSError as error:
        say(f"decoded pixels are not kept for the next search: {error}")
        images = SharedArray(ray.put(decode(PixelMemory(len(entries), image_size))))
    return PixelRefs(images.part(0, len(train)), images.part(len(train)))


def _through_cache(
    cache: Path,
    entries: Sequence[ManifestEntry],
    image_size: int,
    decode: Callable[[PixelWriter], Pixels],
    progress: Progress,
) -> SharedArray:
    """The images from the cache, where they are decoded to if they are not there.

    Raises:
        OSError: The cache cannot be written, or is full.
    """
    total = len(entries)
    folder = cache / "pixels" / pixels_key((entry.pixels_key for entry in entries), image_size)
    if not folder.exists():
        with build_lock(folder, partial(progress, 0, total)):
            if not folder.exists():
                with closing(PixelWriter(folder, total, image_size)) as writer:
                    return share_array(folder / ARRAY, decode(writer))
            progress(total, total)  # another search has decoded them meanwhile
    return share_array(folder / ARRAY, load_pixels(folder, total, image_size))


def _gather(
    root: Path,
    entries: Sequence[ManifestEntry],
    image_size: int,
    nodes: Sequence[Node],
    progress: Progress,
    into: PixelWriter | PixelMemory,
) -> Pixels:
    """Decodes all images."""
    done = 0
    progress(done, len(entries))
    where = nodes[0].options() if nodes else {"num_cpus": 1}
    wait_for_room(where, partial(progress, done, len(entries)))
    progress(done, len(entries))
    for start, shard in _decode(root, entries, image_size, nodes):
        into.write(start, shard)
        done += len(shard)
        progress(done, len(entries))
    return into.finish()


def _decode(
    root: Path, entries: Sequence[ManifestEntry], image_size: int, nodes: Sequence[Node]
) -> Iterator[tuple[int, Pixels]]:
    """Shards as they come, each with the place of its first image.

    A node of those named that is lost has its shards decoded by the others; where none is named,
    Ray finds another by itself.
    """
    places = deque(nodes)
    # Ray would start a process for each task that asks for no CPU.
    most = len(entries) if not nodes or nodes[0].cpus else WITHOUT_CPUS
    waiting = deque(range(0, len(entries), SHARD_IMAGES))
    running: dict[ray.ObjectRef[Pixels], tuple[int, Node | None]] = {}
    while waiting or running:
        while waiting and len(running) < most:
            start = waiting.popleft()
            node = places[0] if places else None
            places.rotate()
            task = _decode_shard.options(**(node.options() if node else {}))
            shard = task.remote(root, entries[start : start + SHARD_IMAGES], image_size)
            running[shard] = start, node
        (ready,), _ = ray.wait(list(running), num_returns=1)
        start, node = running.pop(ready)
        try:
            images = result(ready)
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError:
            places = deque(place for place in places if place != node)
            if not places:
                raise
            waiting.append(start)
        else:
            yield start, images
        del ready


@ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]
def _decode_shard(root: Path, entries: Sequence[ManifestEntry], image_size: int) -> Pixels:
    return decode_split(root, entries, image_size)


def device_of(plan: ResourcePlan, nodes: Iterable[Mapping[str, Any]]) -> str:
    """What computes features, one of DEVICES: their values are kept apart by it.

    Args:
        plan: Whether it is a GPU.
        nodes: Nodes from `ray.nodes()`, whose resources name the kinds of their GPUs.
    """
    if not plan.gpus:
        return "cpu"
    kinds = {
        name.removeprefix(GPU_KIND)
        for node in nodes
        if node["Alive"]
        for name in node["Resources"]
        if name.startswith(GPU_KIND)
    }
    if not kinds or (kinds & WITHOUT_TF32 and kinds - WITHOUT_TF32):
        return "gpu"
    return "gpu, float32" if kinds <= WITHOUT_TF32 else "gpu, TF32"


def shared_policy(precision: Precision, plan: ResourcePlan) -> str:
    """The dtype policy of features: one for all shards, whatever worker computes them."""
    if precision != "auto":
        return precision
    if plan.gpus:
        return "float32"  # a bank takes a GPU seconds; which one it is cannot be asked here
    return "mixed_bfloat16" if cpu_has_bfloat16() else "float32"
