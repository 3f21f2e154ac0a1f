"""Feature banks for a whole search: opened from the cache, or built by Ray tasks, then shared.

A frozen backbone gives the same features for the same pixels in every trial and epoch, so the
views of all images go through it once (`augmented_views` says which, and how a trial draws among
them). One bank per backbone and image size serves every flip mode and rotation factor. Training
images get all views, validation images the plain one; test images have no bank.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import ray

from pawtune.data_pipeline.file_lock import build_lock
from pawtune.models.features.augmented_views import ViewTable, make_view_table
from pawtune.models.features.feature_bank import (
    BankWriter,
    FeatureBank,
    Shard,
    bank_key,
    content_fingerprint,
    load_bank,
)
from pawtune.search.cluster.connection import claim_process
from pawtune.search.cluster.remote_task import remote_task
from pawtune.search.cluster.resource_wait import Progress, wait_for_room
from pawtune.search.cluster.sent_files import SentFile
from pawtune.search.cluster.task_result import result
from pawtune.search.shared_work.shared_array import SharedArray, share_array

if TYPE_CHECKING:
    from pawtune.models.features.view_encoder import ViewEncoder

Pooling = Literal["average", "max"]
POOLINGS: tuple[Pooling, ...] = ("average", "max")
FILES: Mapping[Pooling, str] = {"average": "average.npy", "max": "maximum.npy"}
SHARD_VIEWS = 1024  # 2 to 3 s of one core at 160 px: fine progress, little overhead
# A shard on a GPU has a process of its own, whose start takes longer than a small shard would.
GPU_SHARD_VIEWS = 32 * SHARD_VIEWS


@dataclass(frozen=True)
class BankRefs:
    """One bank, read in place by every trial on a node.

    Attributes:
        table: The views of the training images.
        train: By pooling, (N, V, F) float16.
        validation: By pooling, (M, 1, F) float16, of the plain images.
    """

    table: ViewTable
    train: Mapping[Pooling, SharedArray]
    validation: Mapping[Pooling, SharedArray]


@dataclass(frozen=True)
class BankRecipe:
    """Everything that a bank's values depend on, besides the pixels.

    Attributes:
        backbone: Its name in `keras.applications`.
        image_size: Side in pixels.
        weights: The backbone's stored weights.
        weights_hash: Hash of the file they were read from.
        policy: Keras dtype policy to compute under.
        seed: Seed of the views' angles.
        device: Device that computes it, one of `pixels.DEVICES`.
    """

    backbone: str
    image_size: int
    weights: SentFile
    weights_hash: str
    policy: str
    seed: int
    device: str = "cpu"

    def folder(self, cache: Path, hashes: Sequence[str], num_views: int) -> Path:
        """Where the bank of these images lies in the cache."""
        key = bank_key(
            content=content_fingerprint(hashes),
            image_size=self.image_size,
            backbone=self.backbone,
            weights=self.weights_hash,
            policy=self.policy,
            num_views=num_views,
            seed=self.seed,
            device=self.device,
        )
        return cache / "banks" / key


@dataclass(frozen=True)
class ImageSet:
    """Images to make features of: content hashes, and their pixels on demand."""

    hashes: Sequence[str]
    pixels: Callable[[], SharedArray]


def open_or_build(
    recipe: BankRecipe,
    train: ImageSet,
    validation: ImageSet,
    *,
    num_views: int,
    cache: Path,
    resources: Mapping[str, float],
    progress: Progress,
) -> BankRefs:
    """The bank of a search, from the cache or newly built.

    Args:
        recipe: Recipe of the bank to compute.
        train: Gets `num_views` views of each image.
        validation: Gets the plain view.
        num_views: Views of a training image.
        cache: pawtune's cache folder.
        resources: `num_cpus` and `num_gpus` of a building task.
        progress: Called with (views done, views in all) while building.

    Raises:
        ModelError: The backbone cannot be built, or a cached bank is damaged.
    """
    parts = [(train, num_views), (validation, 1)]
    folders = [recipe.folder(cache, images.hashes, views) for images, views in parts]
    missing = sum(
        len(images.hashes) * views
        for (images, views), folder in zip(parts, folders, strict=True)
        if not folder.exists()
    )
    done = 0
    banks: list[FeatureBank] = []
    for (images, views), folder in zip(parts, folders, strict=True):
        bank: FeatureBank | None = None
        if not folder.exists():
            pixels = images.pixels()
            with build_lock(folder, partial(progress, done, missing)):
                if not folder.exists():  # else another search has built it meanwhile
                    progress(done, missing)
                    wait_for_room(resources, partial(progress, done, missing))
                    progress(done, missing)
                    table = make_view_table(len(images.hashes), views, recipe.seed)
                    add = partial(_add, progress, done, missing)
                    bank = _build(recipe, folder, pixels, table, resources, add)
                    done += len(images.hashes) * views
        banks.append(bank or load_bank(folder))  # somebody may have cleared the cache since
    if missing:
        progress(missing, missing)  # also where another search has made them
    train_arrays, validation_arrays = (
        {name: share_array(folder / FILES[name], bank.features(name)) for name in POOLINGS}
        for bank, folder in zip(banks, folders, strict=True)
    )
    return BankRefs(banks[0].table, train_arrays, validation_arrays)


def _add(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _build(
    recipe: BankRecipe,
    folder: Path,
    pixels: SharedArray,
    table: ViewTable,
    resources: Mapping[str, float],
    progress: Callable[[int], None],
) -> FeatureBank:
    """Builds a bank in shards across the cluster; reports the views that are done."""
    done = 0
    views = GPU_SHARD_VIEWS if resources.get("num_gpus") else SHARD_VIEWS
    step = max(1, views // table.num_views)
    encode = remote_task(
        _encode_shard, num_cpus=resources["num_cpus"], num_gpus=resources.get("num_gpus", 0)
    )
    threads = max(1, int(resources["num_cpus"]))
    starts = {
        encode.remote(recipe, pixels, start, table.rows(start, start + step), threads): start
        for start in range(0, table.num_images, step)
    }
    with ExitStack() as stack:
        stack.callback(lambda: [ray.cancel(task) for task in starts])  # where one failed
        writer: BankWriter | None = None
        while starts:
            (ready,), _ = ray.wait(list(starts), num_returns=1)
            shard: Shard = result(ready)
            if writer is None:
                writer = stack.enter_context(BankWriter(folder, table, shard.average.shape[-1]))
            writer.write(starts.pop(ready), shard)
            done += shard.average.shape[0] * shard.average.shape[1]
            progress(done)
        assert writer is not None  # no bank is empty: every split holds an image
        return writer.finish()


def _encode_shard(
    recipe: BankRecipe, pixels: SharedArray, start: int, table: ViewTable, threads: int
) -> Shard:
    images = pixels.part(start, start + table.num_images).open()
    return _encoder(recipe, threads).encode(images, table)


@lru_cache(maxsize=1)
def _encoder(recipe: BankRecipe, threads: int) -> "ViewEncoder":
    """Built once in a worker process, for all its shards."""
    from pawtune.models import precision
    from pawtune.models.backbones.frozen_backbone import load_backbone
    from pawtune.models.features.view_encoder import ViewEncoder

    claim_process(threads)
    backbone = load_backbone(recipe.backbone, recipe.image_size, recipe.weights.here())
    return ViewEncoder(backbone, recipe.backbone, recipe.policy, precision.has_gpu())
