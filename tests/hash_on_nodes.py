"""Hashes images on the nodes of a cluster, while a test takes one away or keeps them busy."""

import sys
import time
from pathlib import Path

import ray

from pawtune.data_pipeline.splitting.folder_layout import read_layout
from pawtune.data_pipeline.splitting.image_hashes import Read, Shard, read_all
from pawtune.search.cluster.connection import connect
from pawtune.search.shared_work import hashing

read_shard = hashing.read_shard
read_here = 0


def read_slowly(root: Path, shard: Shard) -> Read:
    """In the place of the driver's `read_shard`."""
    global read_here
    read_here += 1
    time.sleep(0.1)
    return read_shard(root, shard)


@ray.remote(num_cpus=1)
def occupy() -> None:
    """Keeps a processor from other tasks."""
    time.sleep(60)


def main(address: str, root: str, busy: str) -> None:
    """Prints how many shards this process read, of how many."""
    connect(address)
    if busy == "busy":
        occupants = [occupy.remote() for _ in range(2)]  # held, or Ray would end them
        while ray.available_resources().get("CPU", 0) > 0:
            time.sleep(0.1)
    hashing.read_shard = read_slowly
    layout = read_layout(Path(root))
    begun = False

    def progress(stage: str, done: int, total: int | None) -> None:
        nonlocal begun
        if done and not begun:
            begun = True
            print("begun", flush=True)

    found = read_all(
        Path(root), layout.candidates, progress=progress, read_shards=hashing.read_on_cluster
    )
    assert found == read_all(Path(root), layout.candidates)
    print(read_here, -(-len(layout.candidates) // 16), flush=True)
    if busy == "busy":
        del occupants


if __name__ == "__main__":
    main(*sys.argv[1:])
