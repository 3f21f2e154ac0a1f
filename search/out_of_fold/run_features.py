"""Features of a run's training and validation images: from the cache by key, or computed again."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pawtune.data_pipeline.cache import cache_dir
from pawtune.data_pipeline.images.decode import decode_split
from pawtune.data_pipeline.splitting.manifest import Manifest, ManifestEntry
from pawtune.models.cpu_info import cpu_has_bfloat16
from pawtune.models.families.family import Backbone
from pawtune.models.families.table import family_of
from pawtune.search.config.search_config import SearchConfig
from pawtune.search.process import load_tensorflow
from pawtune.search.results.leaderboard import Row
from pawtune.search.shared_work.backbones import stored_backbone
from pawtune.search.shared_work.board import ArrayWriter, Job, load_arrays
from pawtune.search.shared_work.features import FeatureStore, content_of
from pawtune.search.shared_work.pixels import DEVICES
from pawtune.search.storage.run_folder import RunFolder, backbone_of_file

Progress = Callable[[str, int, int], None]
Features = dict[str, NDArray[np.float16]]  # by name, see TapEncoder

POLICIES = ("mixed_bfloat16", "float32", "mixed_float16")


@dataclass(frozen=True)
class SeenImages:
    """The images that a search saw: training images, then validation images.

    Attributes:
        entries: All N of them, each split in its own order.
        labels: (N,) class indices.
        groups: (N,) numbers, equal for duplicates and near duplicates.
        num_train: How many are training images.
    """

    entries: tuple[ManifestEntry, ...]
    labels: NDArray[np.int32]
    groups: NDArray[np.int64]
    num_train: int

    @classmethod
    def of(cls, manifest: Manifest) -> "SeenImages":
        """Those of a manifest. Test images are not among them."""
        train, validation = manifest.split("train"), manifest.split("validation")
        entries = (*train, *validation)
        _, groups = np.unique([entry.group for entry in entries], return_inverse=True)
        labels = np.concatenate([manifest.labels("train"), manifest.labels("validation")])
        return cls(entries, labels, groups.astype(np.int64), len(train))


def find_backbone(run: RunFolder, rows: list[Row]) -> Backbone | None:
    """The frozen backbone of the best trial that has one, or any whose weights the run holds."""
    for row in rows:
        if row.best_epoch is not None:
            model = run.spec_of(row.trial_id).model
            for need in family_of(model).needs(model, bank_views=0):
                if isinstance(need, Backbone):
                    return need
    for file in sorted(run.backbones_dir.glob("*-*.h5")):
        with suppress(ValueError):  # nothing that a search has put there
            return Backbone(*backbone_of_file(file))
    return None


def read_features(
    run: RunFolder,
    config: SearchConfig,
    manifest: Manifest,
    backbone: Backbone,
    progress: Progress,
) -> Features:
    """Features of `SeenImages.of(manifest)`, (N, ...) float16 by name.

    The cache's are taken, whatever they were computed on; where it has none they are made of the
    images in this process and kept there.

    Raises:
        DataError: They are needed, and an image is gone or is not what it was.
        ModelError: What is in the cache is damaged.
    """
    seen = SeenImages.of(manifest)
    jobs = {
        (policy, device): _store(run, seen, backbone, policy, device).plain_job(backbone)
        for device in DEVICES
        for policy in POLICIES
    }
    for job in jobs.values():
        if job.folder.exists():
            return {name: np.asarray(array) for name, array in load_arrays(job.folder).items()}
    policy = config.speed.precision
    if policy == "auto":
        policy = "mixed_bfloat16" if cpu_has_bfloat16() else "float32"
    return _compute(run, manifest, seen, backbone, policy, jobs[policy, "cpu"], progress)


def _store(
    run: RunFolder, seen: SeenImages, backbone: Backbone, policy: str, device: str
) -> FeatureStore:
    return FeatureStore(
        board=None,
        cache=cache_dir(),
        content=content_of(seen.entries),
        num_train=seen.num_train,
        num_validation=len(seen.entries) - seen.num_train,
        policy=policy,
        seed=0,
        threads=0,
        backbones={backbone: stored_backbone(run.backbone_weights(*backbone))},
        device=device,
    )


def _compute(
    run: RunFolder,
    manifest: Manifest,
    seen: SeenImages,
    backbone: Backbone,
    policy: str,
    job: Job,
    progress: Progress,
) -> Features:
    load_tensorflow()
    from pawtune.models.backbones.frozen_backbone import load_backbone
    from pawtune.models.features.tap_encoder import TapEncoder

    name, size = backbone
    model = load_backbone(name, size, run.backbone_weights(name, size))
    encoder = TapEncoder(model, name, policy)
    root, parts = Path(manifest.root), []
    for start in range(0, len(seen.entries), job.shard_rows):
        images = decode_split(root, seen.entries[start : start + job.shard_rows], size)
        parts.append(encoder.encode(images))
        progress(job.name, min(start + job.shard_rows, job.rows), job.rows)
    features = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    try:
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        writer = ArrayWriter(job, features)
        writer.write(0, features)
        writer.finish()
    except OSError:
        pass  # a full cache costs time, nothing else
    return features
