"""A real search that takes seconds, for what needs a model and not a particular one."""

from pathlib import Path
from typing import Any

from pawtune.search.config.search_config import SearchConfig
from pawtune.search.driver import run_search
from pawtune.search.run import Run

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
