"""A real search that takes seconds, for what needs a model and not a particular one."""

from pathlib import Path
from typing import Any

import ray

from pawtune.data_pipeline.images.decode import decode_split
from pawtune.data_pipeline.splitting.build import build_manifest
from pawtune.search.config.search_config import SearchConfig
from pawtune.search.driver import run_search
from pawtune.search.objective import Objective
from pawtune.search.run import Run
from pawtune.search.shared_work.pixels import PixelRefs
from pawtune.search.shared_work.shared_array import SharedArray
from pawtune.search.shared_work.shared_work import SharedWork

TINY: dict[str, Any] = {
    "families": "conv",
    "image_size": 32,
    "epochs": 2,
    "trials": 2,
    "space": {"conv_depth": 2, "filters": [8], "conv_dense_width": [0]},
    "resources": {"concurrency": 2},
}


def search_tiny(images: Path, runs_dir: Path, name: str = "tiny", **settings: Any) -> Run:
    """Two small nets, two epochs each."""
    given = {**TINY, "data": str(images), "runs_dir": str(runs_dir), "name": name, **settings}
    return run_search(SearchConfig(**given))


def tiny_work(images: Path) -> SharedWork:
    """The shared work of a search on small images at 32 px."""
    manifest = build_manifest(images)
    pixels = {
        split: SharedArray(ray.put(decode_split(images, manifest.split(split), 32)))
        for split in ("train", "validation")
    }
    return SharedWork(
        objective=Objective(),
        threads=1,
        class_names=manifest.class_names,
        train_labels=manifest.labels("train"),
        val_labels=manifest.labels("validation"),
        pixels={32: PixelRefs(**pixels)},
    )
