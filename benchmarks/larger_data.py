"""A search over many images: the machine's memory at its highest, the workers', and the time.

    python benchmarks/larger_data.py --weights mobilenet_v2_1.0_224_no_top.h5 --out larger.json

Makes --images pictures of the built-in sample at 160 px (10 ms each, not counted), then runs
`pawtune run`, two trials at a time, with a cache of its own: solved heads (hashing, decoding and
one pass through the backbone), then heads trained on augmented views (their bank of 17 views of
each training image besides, 4 trials x 2 epochs), then convolutional nets (2 trials of an epoch).
The first model stands when a trial has its first epoch. Memory is what the whole machine had
available before, less the least it had during the search; --limit-gb is what it must stay below,
else the exit status is 1. The same with --small images shows what of a worker's private memory
grows with the data.

Takes 20 to 25 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from pathlib import Path
from typing import Any

from measuring import MEGABYTE, machine, print_table, run_pawtune, write_report

from pawtune.data_pipeline.sources.sample import make_sample

SIZE_PX = 160
SHARES = {"train": 0.8, "validation": 0.2}  # the search holds the test split back from the second
CLASSES = 2
HEADS = ("--families", "transfer", "--set")
SEARCHES = {
    "solved heads": (*HEADS, "space.head=[ridge,logistic]", "--trials", "12"),
    "trained heads": (
        *(*HEADS, "space.head=[trained]", "--set", "space.head_views=[weighted]"),
        *("--trials", "4", "--epochs", "2"),
    ),
    "nets": ("--families", "conv", "--trials", "2", "--epochs", "1"),
}


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=25_000)
    parser.add_argument("--small", type=int, default=1_000)
    parser.add_argument("--weights", type=Path, required=True, help="MobileNetV2 without its top")
    parser.add_argument("--only", nargs="*", choices=SEARCHES, help="some of the searches")
    parser.add_argument("--limit-gb", type=float, default=24)
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = [
            search(options.weights, Path(scratch), count, kind)
            for count in (options.small, options.images)
            for kind in options.only or SEARCHES
        ]
    print_table(rows)
    write_report(options.out, {"machine": machine(), "rows": rows})
    return 0 if max(row["machine GB"] for row in rows) <= options.limit_gb else 1


def search(weights: Path, folder: Path, count: int, kind: str) -> dict[str, Any]:
    """One search over so many pictures."""
    images = folder / f"images-{count}"
    if not images.exists():
        per_class = {split: round(count * share / CLASSES) for split, share in SHARES.items()}
        make_sample(images, per_class=per_class, size_px=SIZE_PX)
    arguments = [
        *("--data", str(images), "--weights", str(weights), *SEARCHES[kind]),
        *("--concurrency", "2", "--set", "scheduler.name=none"),
    ]
    with LeastAvailable() as memory:
        done = run_pawtune(
            arguments,
            folder / "runs",
            f"{kind.replace(' ', '-')}-{count}",
            folder / f"cache-{count}",
            watch_memory=True,
        )
    row = {
        "images": count,
        "search": kind,
        "decoded MB": round(count * SIZE_PX**2 * 3 / MEGABYTE),
        "first model, s": round(done.first_epoch_s),
        "seconds": round(done.seconds),
        "trials": " ".join(f"{number} {kind}" for kind, number in done.kinds().items()),
        "machine GB": round(memory.taken_mb() / 1000, 1),
        "worker private MB": round(max(sample.anonymous_mb for sample in done.memory)),
    }
    print(row, flush=True)
    return row


class LeastAvailable:
    """Watches the machine's available memory, four times a second, while its block runs."""

    def __enter__(self) -> LeastAvailable:
        """Starts watching."""
        self._before = self._least = available_mb()
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Ends watching."""
        self._over.set()
        self._watcher.join()

    def taken_mb(self) -> float:
        """What was available at the beginning, less the least there was."""
        return self._before - self._least

    def _watch(self) -> None:
        while not self._over.wait(0.25):
            self._least = min(self._least, available_mb())


def available_mb() -> float:
    """Memory that programs could still have, as Linux estimates it; files in cache count."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable"))
    return int(kilobytes) * 1024 / MEGABYTE


if __name__ == "__main__":
    raise SystemExit(main())
