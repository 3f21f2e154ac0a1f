"""Searches over image classifiers on Ray Tune, and what comes out of them.

>>> from search import SearchConfig, run_search
>>> run = run_search(SearchConfig(data="sample", trials=8))  # doctest: +SKIP
>>> run.leaderboard()  # doctest: +SKIP

`run_search` runs a `SearchConfig` and returns a `Run`; `open_run` opens one that has been made.
They are loaded at first use, because Ray and Keras take seconds and not everything needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.config import SearchConfig
    from search.driver import run_search
    from search.run import Run, open_run

__all__ = ["Run", "SearchConfig", "open_run", "run_search"]

_HOMES = {
    "Run": "search.run",
    "SearchConfig": "search.config",
    "open_run": "search.run",
    "run_search": "search.driver",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
