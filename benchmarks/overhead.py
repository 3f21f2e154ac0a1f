"""What a trial costs besides its training, and the memory of the workers that run trials.

    python benchmarks/overhead.py --out overhead.json

All by the real command, one trial at a time, on generated images:

- seconds of a trivial trial: --trials conv nets, and as many heads on a bank, for 2 epochs each,
  on 80 images of 32 px. Wall time from the end of the first trial to the end of the last, over
  the trials between. Overhead is what remains when each epoch's recorded seconds are taken off;
  the strict overhead takes off the second epoch's twice, so that building TensorFlow's graph, in
  the first, counts as overhead too. Workers that were replaced are counted in both;
- memory of a worker over these trials: private memory when the first trials run (its start), the
  most later, and how many processes there were;
- private memory that images add: the most that a worker has while it trains a small conv net on
  few images and on many (--image-mb of pixels, training and validation), and the difference.

Private memory is RssAnon of /proc/PID/status: the object store's pages are shared and not in it.
Takes 3 to 4 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from measuring import MEGABYTE, Search, machine, print_table, run_pawtune, write_report
from PIL import Image

TRIVIAL_PX, TRIVIAL_IMAGES, EPOCHS = 32, 80, 2
MEMORY_PX, FEW_IMAGES = 160, 100
START_TRIALS = 3  # a worker's start: what it needs once TensorFlow has run a few trials
IN_USE = 0.85  # of the images; the test split is not decoded
COMMON = (
    *("--no-baselines", "--concurrency", "1", "--set", "scheduler.name=none"),
    *("--set", "sampler.name=random"),
)
SMALL_NET = (
    *("--families", "conv", "--set", "space.conv_depth=2", "--set", "space.filters=4"),
    *("--set", "space.conv_dense_width=0", "--set", "space.flip=none"),
    *("--set", "space.rotation_factor=0", "--set", "space.kernel_size=3"),
)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100, help="trivial trials of each family")
    parser.add_argument("--image-mb", type=float, default=230, help="decoded; 0 leaves it out")
    parser.add_argument("--families", default="conv,transfer")
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": machine(), "trials": [], "images": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        images = write_images(folder / "trivial", TRIVIAL_IMAGES, 48)
        for family in options.families.split(","):
            done = trivial_search(family, images, folder, options.trials)
            report["trials"].append(trial_row(family, done))
        print_table(report["trials"])
        if options.image_mb:
            report["images"] = image_rows(folder, options.image_mb)
            print_table(report["images"])
    write_report(options.out, report)


def write_images(root: Path, count: int, side: int) -> Path:
    """Two classes of coarse blobs, no two alike."""
    rng = np.random.default_rng(0)
    for number in range(count):
        folder = root / ("blue", "red")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        colour = ((60, 90, 190), (190, 90, 60))[number % 2]
        blobs = rng.normal(0, 40, (8, 8, 1)) + rng.normal(colour, 10, (1, 1, 3))
        small = Image.fromarray(blobs.clip(0, 255).astype(np.uint8))
        large = small.resize((side, side), Image.Resampling.BILINEAR)
        large.save(folder / f"{number:05d}.jpg")
    return root


def trivial_search(family: str, images: Path, folder: Path, trials: int) -> Search:
    """Trials in which there is next to nothing to compute."""
    arguments = [
        *("--data", str(images), "--trials", str(trials), "--epochs", str(EPOCHS)),
        *("--image-size", str(TRIVIAL_PX), *COMMON),
    ]
    if family == "conv":
        arguments += SMALL_NET
    else:
        weights = folder / "untrained.weights.h5"
        write_weights(weights)
        arguments += ["--families", family, "--weights", str(weights)]
    cache = folder / f"cache-{family}"
    done = run_pawtune(arguments, folder / "runs", family, cache, watch_memory=True)
    print(f"{trials} {family} trials: {done.seconds:.1f} s", flush=True)
    return done


def write_weights(path: Path) -> None:
    """An untrained backbone: how long a head takes does not depend on what it sees."""
    import keras

    shape = (TRIVIAL_PX, TRIVIAL_PX, 3)
    keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=shape).save_weights(
        path
    )


def trial_row(family: str, done: Search) -> dict[str, Any]:
    """Seconds of a trial and what is overhead, and the workers' memory."""
    folders = sorted(done.run.trials(), key=lambda trial: trial.read_status().finished)
    ends = [trial.read_status().finished for trial in folders]
    epochs = [[row["seconds"] for row in trial.read_metrics()] for trial in folders[1:]]
    seconds = (ends[-1] - ends[0]) / (len(ends) - 1)
    samples = [sample for sample in done.memory if sample.anonymous_mb]
    start = max(s.anonymous_mb for s in samples if s.trials_begun <= START_TRIALS)
    most = max(s.anonymous_mb for s in samples)
    return {
        "family": family,
        "trials": len(folders),
        "s/trial": round(seconds, 3),
        "epochs s": round(mean(sum(times) for times in epochs), 3),
        "overhead s": round(seconds - mean(sum(times) for times in epochs), 3),
        "strict overhead s": round(seconds - EPOCHS * mean(times[-1] for times in epochs), 3),
        "worker start MB": round(start),
        "most MB": round(most),
        "growth MB": round(most - start),
        "workers": len({sample.process for sample in samples}),
    }


def image_rows(folder: Path, image_mb: float) -> list[dict[str, Any]]:
    """The private memory of a worker that trains on few images and on many."""
    many = round(image_mb * MEGABYTE / MEMORY_PX**2 / 3 / IN_USE)
    most = {}
    for count in (FEW_IMAGES, many):
        images = write_images(folder / f"images-{count}", count, MEMORY_PX)
        arguments = [
            *("--data", str(images), "--trials", "2", "--epochs", str(EPOCHS)),
            *("--image-size", str(MEMORY_PX), *COMMON, *SMALL_NET, "--set", "space.batch_size=32"),
        ]
        done = run_pawtune(
            arguments, folder / "runs", f"images-{count}", folder / "cache", watch_memory=True
        )
        most[count] = max(sample.anonymous_mb for sample in done.memory)
        print(f"{count} images: {done.seconds:.1f} s", flush=True)
    return [
        {
            "images": count,
            "decoded MB": round(count * IN_USE * MEMORY_PX**2 * 3 / MEGABYTE),
            "worker MB": round(private),
            "added MB": round(private - most[FEW_IMAGES]),
        }
        for count, private in most.items()
    ]


if __name__ == "__main__":
    main()
