r"""Hard tasks made from photos: which way up, how blurred; heads and fine-tuned tops by stage.

    python benchmarks/hard_tasks.py --data flowers17.zip \
        --weights mobilenet_v2_1.0_224_no_top.h5 --seeds 0 1 2 --out hard_tasks.json

Each photo is in one class alone, drawn with the seed, so no two splits share a photo:

- rotation: turned by 0, 90, 180 or 270 degrees. It is cropped at random, turned, then resized: the
  grid of a JPEG's blocks, the borders and the traces of resampling do not give the turn away.
- blur: by one of three Gaussian radii, after resizing.

All are squares of `--image-size`, PNG, so that nothing resizes them again. For each task and seed
one `pawtune run` of the families transfer and finetune, and of its best heads on the last block, on
several blocks, and fine-tuned top: the validation accuracy, and one look at the test images.

Which way up and how sharp is seen by the lower blocks: fine-tuning has the upper 70% or 90% of the
backbone's arithmetic here, or, with `--default-space`, what a search has by default.

The augmented views for fine-tuning would be of wrong classes: a photo turned by 90 degrees looks in
the mirror like one turned by 270, and turning or zooming a photo blurs it. So there are none.

Takes one to two minutes a task and seed in the default space, else several. Let nothing else run.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Search, machine, print_table, run_pawtune, score_on_test, write_report
from PIL import Image, ImageFilter

from pawtune.data_pipeline.cache import cache_dir
from pawtune.data_pipeline.sources.resolve import resolve_source
from pawtune.search.storage.run_folder import read_json

Picture = Image.Image
SUFFIXES = {".jpg", ".jpeg", ".png"}
TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}
RADII = (0.4, 0.8, 1.2)  # pixels
SMALLEST_CROP = 0.85  # of the shorter side
# By default the upper 0.25 or 0.3 are trained: here less than heads on all blocks reach.
PLAIN = ("--set", "space.tune_views=1")
DEEP = ("--set", "space.tune_share=[0.7,0.9]", "--set", "space.tune_epochs={low: 10, high: 15}")
STAGES = ("last block", "several blocks", "fine-tuned")


def turned(photo: Picture, side: int, degrees: int) -> Picture:
    """Turned first: resizing leaves the same traces in every class."""
    return shrunk(photo.transpose(TURNS[degrees]) if degrees else photo, side)


def blurred(photo: Picture, side: int, radius: float) -> Picture:
    """Resized first: the radius is in pixels of what a model sees."""
    return shrunk(photo, side).filter(ImageFilter.GaussianBlur(radius))


def shrunk(photo: Picture, side: int) -> Picture:
    """Resized to a square of `side` pixels."""
    return photo.resize((side, side), Image.Resampling.LANCZOS)


# What makes a square photo one of a class, of a side in pixels: by task and class.
TASKS: dict[str, dict[str, Callable[[Picture, int], Picture]]] = {
    "rotation": {f"turned_{degrees}": partial(turned, degrees=degrees) for degrees in (0, *TURNS)},
    "blur": {f"radius_{radius}": partial(blurred, radius=radius) for radius in RADII},
}


def main() -> None:
    """Make, measure, print, write."""
    options = parse_options()
    rows, commands = [], []
    with tempfile.TemporaryDirectory(prefix="pawtune-") as scratch:
        photos = read_photos(options.data, options.photos)
        for name in options.tasks:
            for seed in options.seeds:
                folder = Path(scratch) / f"{name}-{seed}"
                make_images(TASKS[name], photos, folder / "images", options.image_size, seed)
                done = search(options, folder, seed)
                commands.append(done.command)
                rows += [{"task": name, "seed": seed, **row} for row in stages_of(done)]
                print_table(rows[-len(STAGES) :])
    print_table([*rows, *means(rows)])
    report = {"machine": machine(), "rows": rows, "means": means(rows), "commands": commands}
    write_report(options.out, report)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="as `pawtune run` takes it")
    parser.add_argument("--weights", type=Path, required=True, help="MobileNetV2 without its top")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--photos", type=int, help="so many, drawn at random; default: all")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--default-space", action="store_true", help="fine-tune the top alone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    return parser.parse_args()


def read_photos(data: str, most: int | None) -> list[Path]:
    """Image files, in a fixed random order."""
    root = resolve_source(data, cache=cache_dir())
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    order = np.random.default_rng(0).permutation(len(found))[:most]
    return [found[place] for place in order]


def make_images(
    task: Mapping[str, Callable[[Picture, int], Picture]],
    photos: Sequence[Path],
    folder: Path,
    side: int,
    seed: int,
) -> None:
    """Writes class folders, in which each photo is once."""
    rng = np.random.default_rng(seed)
    labels = list(task)
    for label in labels:
        (folder / label).mkdir(parents=True)
    for number, place in enumerate(rng.permutation(len(photos))):
        label = labels[number % len(labels)]
        with Image.open(photos[place]) as photo:
            square = cropped(photo.convert("RGB"), rng)
        task[label](square, side).save(folder / label / f"{place:05d}.png")


def cropped(photo: Picture, rng: np.random.Generator) -> Picture:
    """A square about the middle, its side and place drawn at random."""
    shorter = min(photo.size)
    side = int(rng.integers(round(SMALLEST_CROP * shorter), shorter, endpoint=True))
    left = (photo.width - shorter) // 2 + int(rng.integers(shorter - side, endpoint=True))
    top = (photo.height - shorter) // 2 + int(rng.integers(shorter - side, endpoint=True))
    return photo.crop((left, top, left + side, top + side))


def search(options: argparse.Namespace, folder: Path, seed: int) -> Search:
    """One search over heads and fine-tuned tops, with nothing in its cache."""
    arguments = [
        *("--data", str(folder / "images"), "--weights", str(options.weights)),
        *("--image-size", str(options.image_size), "--families", "transfer,finetune"),
        *("--trials", str(options.trials), "--seed", str(seed)),
        *(*PLAIN, *(() if options.default_space else DEEP)),
    ]
    return run_pawtune(arguments, folder / "runs", "search", folder / "cache")


def stages_of(done: Search) -> list[dict[str, Any]]:
    """A row for each stage: its trials, their seconds, and its best on validation and test."""
    best: dict[str, tuple[float, str]] = {}
    counts, seconds = dict.fromkeys(STAGES, 0), dict.fromkeys(STAGES, 0.0)
    for trial in done.run.trials():
        reached = [row["val_accuracy"] for row in trial.read_metrics()]
        if not reached:
            continue
        stage = stage_of(read_json(trial.spec_file)["model"])
        counts[stage] += 1
        seconds[stage] += trial.seconds_so_far()
        best[stage] = max(best.get(stage, (0.0, "")), (max(reached), trial.trial_id))
    return [
        {
            "stage": stage,
            "trials": counts[stage],
            "trials s": round(seconds[stage], 1),
            "validation": round(best[stage][0], 4),
            "test": round(score_on_test(done, best[stage][1]), 4),
            "search s": round(done.seconds, 1),
        }
        for stage in STAGES
        if stage in best
    ]


def stage_of(model: dict[str, Any]) -> str:
    """What a model is made of, one of `STAGES`."""
    if model["family"] == "finetune":
        return "fine-tuned"
    # A trained head says "average" or nothing: it sees the last block.
    in_last = model.get("taps", "average") in ("average", "maximum", "both")
    return "last block" if in_last else "several blocks"


def means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over the seeds, of each task and stage."""
    found = []
    for name, stage in dict.fromkeys((row["task"], row["stage"]) for row in rows):
        chosen = [row for row in rows if (row["task"], row["stage"]) == (name, stage)]
        mean = {
            column: round(float(np.mean([row[column] for row in chosen])), 4)
            for column in ("validation", "test")
        }
        found.append({"task": name, "seed": "mean", "stage": stage, **mean})
    return found


if __name__ == "__main__":
    main()
