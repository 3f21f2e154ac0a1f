"""data_pipeline.cache: a limit, and what goes first when it is passed."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from pawtune.data_pipeline.cache import (
    IN_USE_S,
    cache_limit,
    clear_cache,
    list_cache,
    prepare_cache,
    shrink_cache,
)
from pawtune.data_pipeline.errors import DataError


def entry(cache: Path, kind: str, name: str, size: int, age_s: float) -> Path:
    folder = cache / kind / name
    folder.mkdir(parents=True)
    (folder / "array.npy").write_bytes(bytes(size))
    used = time.time() - age_s
    os.utime(folder, (used, used))
    return folder


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = tmp_path / "pawtune"
    days = 24 * IN_USE_S
    entry(cache, "pixels", "old", 500, 3 * days)
    entry(cache, "features", "older", 300, 4 * days)
    entry(cache, "features", "new", 400, 2 * days)
    entry(cache, "models", "weights", 9000, 90 * days)  # downloaded: never dropped
    assert shrink_cache(cache, 2000) == 0
    assert shrink_cache(cache, 900) == 300
    assert [item.name for item in list_cache(cache)] == ["new", "weights", "old"]
    assert shrink_cache(cache, 899) == 500


def test_what_may_be_in_use_stays(tmp_path: Path) -> None:
    cache = tmp_path / "pawtune"
    entry(cache, "features", "running", 1000, 60)
    assert shrink_cache(cache, 10) == 0


@pytest.mark.parametrize("value", ["0", "-3", "much", "nan"])
def test_a_limit_that_is_none_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAWTUNE_CACHE_GB", value)
    with pytest.raises(DataError, match=f"PAWTUNE_CACHE_GB must be .*above 0, received '{value}'"):
        cache_limit()


def test_the_limit_is_in_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAWTUNE_CACHE_GB", "1.5")
    assert cache_limit() == 1_500_000_000
    monkeypatch.delenv("PAWTUNE_CACHE_GB")
    assert cache_limit() == 50_000_000_000


def test_two_may_clear_the_cache_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        entry(tmp_path, "banks", f"{number}", 10, 0)
    remove = os.unlink

    def removed_twice(path: str, **place: Any) -> None:
        remove(path, **place)
        remove(path, **place)  # as if another process had been a moment faster

    monkeypatch.setattr(os, "unlink", removed_twice)
    prepare_cache(tmp_path)
    clear_cache(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["CACHEDIR.TAG"]
