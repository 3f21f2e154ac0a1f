"""What many images cost: CIFAR-10's shape, near duplicates of a million, manifests.

    python benchmarks/data_scale.py --weights mobilenet_v2_no_top.h5 --out data_scale.json

Makes 60,000 PNG files of 32 px (10 classes, 50,000 in train and 10,000 in test) in a temporary
folder and runs `pawtune preview` on them as a user does, the first time and again with the cache;
with `--weights` also a search of solved heads, with nothing in the cache. Groups random hashes, of
which a tenth are near another, and hashes whose bits are nearly always the same, as those of films
of one kind are; saves and loads a manifest.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine, print_table, write_report
from PIL import Image

from pawtune.data_pipeline.splitting.manifest import (
    Manifest,
    ManifestEntry,
    fingerprint,
    validation_labels,
)
from pawtune.data_pipeline.splitting.near_hashes import connect_near

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHARES = {"train": 5, "test": 1}


def make_class(root: Path, number: int, files: int) -> None:
    """Writes `files` images of one class, in train and test as 5 to 1."""
    for split, part in SHARES.items():
        folder = root / split / CLASSES[number]
        folder.mkdir(parents=True)
        for index in range(files * part // sum(SHARES.values())):
            rng = np.random.default_rng((number, part, index))
            coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            noise = rng.normal(0, 12, (32, 32, 3))
            smooth = np.asarray(Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC))
            pixels = np.clip(smooth + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{index:05d}.png")


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    work()
    return round(time.perf_counter() - started, 2)


def processor_seconds(work: Callable[[], object]) -> dict[str, float]:
    """The same, with the processor's time: a busy machine shows in the first alone."""
    began = time.process_time()
    elapsed = seconds(work)
    return {"s": elapsed, "processor_s": round(time.process_time() - began, 2)}


def make_images(root: Path, files: int) -> None:
    """Writes all classes, one process for each core."""
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(make_class, root), range(10), [files // 10] * 10))


def command(folder: Path, cache: str, *arguments: str) -> float:
    """Seconds of a pawtune command, from its start to its end, with a cache of its own."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / cache)}
    words = [sys.executable, "-m", "pawtune", *arguments]
    run = partial(subprocess.run, words, env=environment, check=True, cwd=folder)
    return seconds(partial(run, stdout=subprocess.DEVNULL))


def preview(root: Path) -> list[dict[str, Any]]:
    """`pawtune preview`, twice."""
    words = ("preview", str(root), "--image-size", "32", "--out")
    return [
        {
            "what": f"pawtune preview, {name}",
            "s": command(root.parent, "preview-cache", *words, str(root.parent / "preview")),
        }
        for name in ("first", "again")
    ]


def search(root: Path, weights: Path, trials: int) -> dict[str, Any]:
    """`pawtune run` over solved heads."""
    words = ("run", "--data", str(root), "--image-size", "32", "--families", "transfer")
    words += ("--set", "space.head=[ridge,logistic]", "--trials", str(trials))
    words += ("--weights", str(weights.resolve()), "--name", "heads")
    took = command(root.parent, "search-cache", *words)
    return {"what": f"pawtune run, {trials} solved heads, nothing in the cache", "s": took}


def near_duplicates(count: int, chance: float = 0.5) -> dict[str, Any]:
    """Random hashes, a tenth of them one bit from another; each bit is set with one chance."""
    rng = np.random.default_rng(0)
    hashes = np.zeros(count, np.uint64)
    for bit in range(64):
        hashes |= (rng.random(count) < chance).astype(np.uint64) << np.uint64(bit)
    some = count // 10
    hashes[:some] = hashes[-some:] ^ (np.uint64(1) << rng.integers(0, 64, some, dtype=np.uint64))
    hashes = np.unique(hashes)
    name = f"near duplicates among {count:,}, bits set in {chance:.0%}"
    return {"what": name, **processor_seconds(lambda: connect_near(hashes))}


def manifest(folder: Path, count: int) -> list[dict[str, Any]]:
    """A manifest of `count` images."""
    entries = []
    for index in range(count):
        sha = hashlib.sha256(str(index).encode()).hexdigest()
        path = f"train/class {index % 10}/{index}.png"
        split = "train" if index % 5 else "validation"
        label = f"class {index % 10}"
        entries.append(ManifestEntry(path, label, split, sha, sha[:16], sha, 32, 32))
    names = tuple(f"class {number}" for number in range(10))
    made = Manifest(
        root="/photos",
        class_names=names,
        entries=tuple(entries),
        rejects=(),
        warnings=(),
        seed=0,
        layout="classes",
        fingerprint=fingerprint(entries),
    )
    return [
        {"what": f"manifest {name}, {count:,} rows", **processor_seconds(work)}
        for name, work in (
            ("saved", lambda: made.save(folder)),
            ("loaded", lambda: Manifest.load(folder)),
            ("not read: sizes and labels alone", lambda: validation_labels(folder)),
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=60_000, help="0: none")
    parser.add_argument("--weights", type=Path, help="of MobileNetV2 without its top, for a search")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--hashes", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = manifest(Path(scratch) / "run", options.rows)
        images = Path(scratch) / "cifar"
        if options.files:
            make_images(images, options.files)
            rows += preview(images)
        if options.files and options.weights:
            rows.append(search(images, options.weights, options.trials))
    rows += [near_duplicates(options.hashes, chance) for chance in (0.5, 0.8, 0.9)]
    print_table(rows)
    if options.out:
        write_report(options.out, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
