"""What decoded pixels of very many images cost a node on which trials train.

    python benchmarks/shared_pixels.py --images 200000 --image-size 64 --out shared_pixels.json

Random pixels are written as decoding writes them, shared as a search shares them, and read by
workers in batches at random, as an epoch reads them. Beside it "one object": the same file put
whole into Ray's object store (--store-mb), as it was before. What the object store takes is read
off /dev/shm and /tmp, where nobody else should write meanwhile.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import ray
from measuring import machine, print_table, start_ray, write_report

from pawtune.data_pipeline.images.pixel_cache import ARRAY, PixelWriter
from pawtune.search.shared_work.shared_array import SharedArray, map_array, share_array

SHARD_IMAGES = 128
BATCH = 32


def private_mb() -> float:
    """Private memory of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1000


def used(folder: str) -> int:
    """Bytes that are taken on a folder's file system."""
    return shutil.disk_usage(folder).used


@ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]
def train(shared: SharedArray, batches: int, seed: int) -> tuple[float, float, int]:
    """Seconds until the array is there, images a second after that, and the sum of some."""
    began = time.monotonic()
    images = shared.open()
    opened = time.monotonic()
    rng, total = np.random.default_rng(seed), 0
    for _ in range(batches):
        total += int(images[rng.integers(0, len(images), BATCH)].sum())
    seconds = time.monotonic() - opened
    return opened - began, batches * BATCH / seconds, total


def write(folder: Path, count: int, size: int) -> tuple[np.ndarray, float]:
    """The pixels in a cache, and the seconds that writing them took."""
    block = np.random.default_rng(0).integers(0, 256, (SHARD_IMAGES, size, size, 3), np.uint8)
    began = time.monotonic()
    with closing(PixelWriter(folder, count, size)) as writer:
        for start in range(0, count, SHARD_IMAGES):
            writer.write(start, block[: count - start])
        writer.finish()
    return map_array(folder / ARRAY), time.monotonic() - began


def measure(way: str, folder: Path, images: np.ndarray, batches: int) -> dict[str, Any]:
    """One row: two workers read an epoch's batches."""
    shm, disk = used("/dev/shm"), used("/tmp")
    began = time.monotonic()
    if way == "a file, mapped":
        shared = share_array(folder / ARRAY, images)
    else:
        shared = SharedArray(ray.put(images))
    shared_s = time.monotonic() - began
    found = ray.get([train.remote(shared, batches, seed) for seed in range(2)])
    row = {
        "what": way,
        "GB": round(images.nbytes / 1e9, 2),
        "shared, s": round(shared_s, 2),
        "open in a worker, s": round(max(each[0] for each in found), 2),
        "images/s of a worker": round(min(each[1] for each in found)),
        "object store, GB": round(max(0, used("/dev/shm") - shm) / 1e9, 2),
        "on the disk besides, GB": round(max(0, used("/tmp") - disk) / 1e9, 2),
        "driver's private MB": round(private_mb()),
        "sum": sum(each[2] for each in found),
    }
    del shared
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=2000, help="of 32 images, in each worker")
    parser.add_argument("--store-mb", type=int, default=1000, help="of Ray's object store")
    parser.add_argument("--ways", nargs="+", default=["a file, mapped", "one object"])
    parser.add_argument("--out", type=Path, default=Path("shared_pixels.json"))
    options = parser.parse_args()
    before = machine()
    start_ray(options.store_mb)
    with tempfile.TemporaryDirectory(prefix="shared-pixels-") as scratch:
        folder = Path(scratch) / "pixels" / "key"
        images, seconds = write(folder, options.images, options.image_size)
        print(f"written in {seconds:.1f} s, {images.nbytes / 1e6 / seconds:.0f} MB/s")
        rows = [measure(way, folder, images, options.batches) for way in options.ways]
    if len({row.pop("sum") for row in rows}) != 1:
        raise SystemExit("the ways must read the same pixels, and did not")
    print_table(rows)
    write_report(options.out, {"machine": before, "written_s": round(seconds, 1), "rows": rows})


if __name__ == "__main__":
    main()
