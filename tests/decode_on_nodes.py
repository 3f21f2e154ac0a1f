"""Decodes on named nodes of a cluster, slowly, while a test takes them away."""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray

from pawtune.data_pipeline.images.decode import decode_split
from pawtune.data_pipeline.splitting.build import build_manifest
from pawtune.search.cluster.connection import connect
from pawtune.search.cluster.node_check import Node
from pawtune.search.shared_work import pixels as shared_work

SIZE = 32


class SlowDecode:
    """In the place of `pixels._decode_shard`: as it, half a second later."""

    def options(self, **options: Any) -> "SlowDecode":
        """As a task of Ray."""
        self._options = options
        return self

    def remote(self, *arguments: Any) -> Any:
        """As a task of Ray."""
        return _decode_later.options(**self._options).remote(*arguments)


@ray.remote
def _decode_later(*arguments: Any) -> Any:
    time.sleep(0.5)
    return decode_split(*arguments)


def main(address: str, root: str, cache: str, *node_ids: str) -> None:
    """Prints what it has done, a line each."""
    connect(address)
    shared_work._decode_shard = SlowDecode()  # type: ignore[assignment]
    shared_work.SHARD_IMAGES = 8
    manifest = build_manifest(Path(root))
    told = False

    def progress(done: int, total: int) -> None:
        nonlocal told
        if done and not told:
            told = True
            print("first shard", flush=True)

    refs = shared_work.decode_pixels(
        manifest,
        Path(root),
        SIZE,
        Path(cache),
        progress=progress,
        nodes=[Node(node_id, cpus=1) for node_id in node_ids],
    )
    print("decoded", flush=True)
    time.sleep(3)  # the last node that decoded is taken away
    for split, reference in (("train", refs.train), ("validation", refs.validation)):
        expected = decode_split(Path(root), manifest.split(split), SIZE)
        np.testing.assert_array_equal(reference.open(), expected)
    print("all there", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
