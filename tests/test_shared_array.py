"""search.shared_work.shared_array: workers map files of the cache, and no object is one whole."""

import json
import mmap
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pawtune.data_pipeline.cache import clear_cache, prepare_cache, shrink_cache
from pawtune.data_pipeline.errors import DataError
from pawtune.search.cluster.connection import connect
from pawtune.search.shared_work import shared_array
from pawtune.search.shared_work.features import room_for_activations
from pawtune.search.shared_work.shared_array import CachedFile, SharedArray, shards, share_array
from tests.ray_head import ray_head, ray_node

ROOT = Path(__file__).resolve().parent.parent


def keep(cache: Path, array: np.ndarray) -> SharedArray:
    """An array in a cache, shared."""
    file = cache / "features" / "key" / "average.npy"
    file.parent.mkdir(parents=True)
    np.save(file, array)
    return share_array(file, array)


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
def look(shared: SharedArray) -> tuple[int, bool]:
    """The sum, and whether it is memory of a file."""
    array = shared.open()
    return int(array.sum()), is_mapped(array)


def is_mapped(array: Any) -> bool:
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    return array is not None


@pytest.fixture
def numbers() -> np.ndarray:
    return (np.arange(3000) % 7).astype(np.int8).reshape(300, 10)


@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_of_the_drivers_node_maps_the_file(tmp_path: Path, numbers: np.ndarray) -> None:
    shared = keep(tmp_path, numbers)
    assert isinstance(shared.place, CachedFile)
    assert ray.get(look.remote(shared)) == (int(numbers.sum()), True)
    part = shared.part(100).part(50, 60)
    np.testing.assert_array_equal(part.open(), numbers[150:160])
    assert not part.open().flags.writeable


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("shape", [(300, 10), (7,), (), (3, 4, 5)])
@pytest.mark.parametrize("shard_bytes", [1, 64, 6000, 10**6])
def test_a_copy_is_the_same_in_however_many_shards(
    shape: tuple[int, ...], shard_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shard_bytes == 1 and len(shape) == 2:
        pytest.skip("3,000 tasks")
    array = np.random.default_rng(0).normal(size=shape).astype(np.float16)
    shared = keep(tmp_path / "driver", array)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    monkeypatch.setattr(shared_array, "SHARD_BYTES", shard_bytes)
    assert isinstance(shared.place, CachedFile)
    copy = shared.place._copy()
    assert copy.is_relative_to(tmp_path / "other")
    np.testing.assert_array_equal(np.load(copy), array)
    before = copy.stat().st_ino
    assert shared.place._copy().stat().st_ino == before  # fetched once
    assert [path.name for path in copy.parent.parent.glob("*.partial")] == []


def test_no_shard_is_larger_than_its_limit() -> None:
    images = 1_000_000
    parts = [*shards(images * 160 * 160 * 3, 1)]
    assert max(stop - start for start, stop in parts) <= shared_array.SHARD_BYTES
    assert parts[-1][1] == images * 160 * 160 * 3


@pytest.mark.usefixtures("ray_cluster")
def test_what_a_search_uses_is_not_cleared_until_it_ends(
    tmp_path: Path, numbers: np.ndarray
) -> None:
    shared: SharedArray | None = keep(tmp_path, numbers)
    prepare_cache(tmp_path)
    folder = tmp_path / "features" / "key"
    os.utime(folder, (0, 0))
    assert clear_cache(tmp_path) == 0
    assert shrink_cache(tmp_path, 1) == 0
    assert ray.get(look.remote(shared)) == (int(numbers.sum()), True)
    os.utime(folder, (0, 0))
    shared = None
    assert shrink_cache(tmp_path, 1) > 0
    assert not folder.exists()


@pytest.mark.usefixtures("ray_cluster")
def test_a_file_that_was_deleted_by_hand_is_named_with_the_remedy(
    tmp_path: Path, numbers: np.ndarray
) -> None:
    shared = keep(tmp_path, numbers)
    shutil.rmtree(tmp_path / "features")
    with pytest.raises(DataError, match=r"average.npy must stay .* was deleted: .*pawtune resume"):
        shared.open()


@pytest.mark.usefixtures("ray_cluster")
def test_without_a_file_the_object_store_has_it(tmp_path: Path, numbers: np.ndarray) -> None:
    shared = share_array(tmp_path / "features" / "key" / "average.npy", numbers)
    assert not isinstance(shared.place, CachedFile)
    assert ray.get(look.remote(shared.part(0, 2))) == (int(numbers[:2].sum()), False)


@pytest.mark.slow
def test_a_node_with_another_cache_has_a_copy_of_its_own(tmp_path: Path) -> None:
    """Two nodes of `ray start`; the array is larger than the object store of either."""
    other = tmp_path / "other"
    with ray_head(with_token=False, num_cpus=1) as head:
        elsewhere = replace(head, environment={**head.environment, "XDG_CACHE_HOME": str(other)})
        with ray_node(elsewhere):
            done = subprocess.run(
                [sys.executable, "-m", "tests.test_shared_array", head.gcs_address, str(tmp_path)],
                env=head.environment, capture_output=True, text=True, timeout=200, cwd=ROOT,
            )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (copy,) = (other / "pawtune" / "copies").glob("*/average.npy")
    assert json.loads(done.stdout.splitlines()[-1]) == [True, True]
    assert copy.stat().st_size > 150_000_000


def look_from_everywhere(address: str, folder: Path) -> None:
    """Prints whether a worker of each node maps the same numbers."""
    connect(address)
    array = np.random.default_rng(0).integers(0, 255, (160, 1_000_000), np.uint8)
    shared = keep(folder / "driver", array)
    found = [
        look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(shared)
        for node in ray.nodes()
    ]
    print(json.dumps([each == (int(array.sum()), True) for each in ray.get(found)]))


if __name__ == "__main__":
    look_from_everywhere(sys.argv[1], Path(sys.argv[2]))


def test_room_for_activations_where_an_autoscaler_is_yet_to_add_workers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By Ray's records of a head without CPUs, and of a worker beside it."""
    head = {"Alive": True, "Resources": {"memory": 1e6}}
    worker = {"Alive": True, "Resources": {"CPU": 2.0, "memory": 8e6}}
    monkeypatch.setattr(ray, "nodes", lambda: [head])
    assert room_for_activations(tmp_path) > 8e6  # half of the disk
    monkeypatch.setattr(ray, "nodes", lambda: [head, worker])
    assert room_for_activations(tmp_path) == 4e6
