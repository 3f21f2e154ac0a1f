"""Hyperparameter search for image classifiers on Ray: from a folder of images to one tested model.

>>> import pawtune as pt
>>> run = pt.run_search(pt.SearchConfig(data="sample", trials=8))  # doctest: +SKIP
>>> run.leaderboard()  # doctest: +SKIP

`run_search` runs a `SearchConfig` and returns a `Run`; `open_run` opens one that was made before.
Public names are loaded at first use: Ray and Keras take seconds, and not everything needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pawtune.models.keras_settings import choose_backend

if TYPE_CHECKING:
    from pawtune.data_pipeline.errors import DataError
    from pawtune.models.errors import ModelError
    from pawtune.models.families.family import Family
    from pawtune.models.families.own import use_family
    from pawtune.search.config.own_metric import use_metric
    from pawtune.search.config.search_config import SearchConfig
    from pawtune.search.driver import resume_search, run_search
    from pawtune.search.errors import UserError
    from pawtune.search.progress.live_view import TrialEvent
    from pawtune.search.progress.reporter import Reporter
    from pawtune.search.run import Run, open_run

__all__ = [
    "DataError",
    "Family",
    "ModelError",
    "Reporter",
    "Run",
    "SearchConfig",
    "TrialEvent",
    "UserError",
    "open_run",
    "resume_search",
    "run_search",
    "use_family",
    "use_metric",
]

choose_backend()  # before anything imports Keras

_MODULES = {
    "DataError": "pawtune.data_pipeline.errors",
    "Family": "pawtune.models.families.family",
    "ModelError": "pawtune.models.errors",
    "Reporter": "pawtune.search.progress.reporter",
    "Run": "pawtune.search.run",
    "SearchConfig": "pawtune.search.config.search_config",
    "TrialEvent": "pawtune.search.progress.live_view",
    "UserError": "pawtune.search.errors",
    "open_run": "pawtune.search.run",
    "resume_search": "pawtune.search.driver",
    "run_search": "pawtune.search.driver",
    "use_family": "pawtune.models.families.own",
    "use_metric": "pawtune.search.config.own_metric",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("run_search", "resume_search"):
        import_module("pawtune.search.errors").refuse_without_docstrings()
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
