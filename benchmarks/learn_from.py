"""What earlier runs teach: trials until 99% of the best, with and without `--learn-from`.

    python benchmarks/learn_from.py --data flowers17.zip --weights mobilenet_v2_no_top.h5 \
        --out learn_from.json

Deals the images of each class alternately to two halves. Searches over heads on the second half:
alone; taught by a search on the first half (other images); by the one that searched alone (the same
images); and by a search on the first half that looked for the largest error, so that its best two
are its worst: a misleading teacher. The best is that of all searches on the second half with that
seed; a trial counts from its place in the order of proposal.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine, print_table, write_report

from pawtune.data_pipeline.cache import cache_dir
from pawtune.data_pipeline.sources.resolve import resolve_source
from pawtune.search.config.search_config import SearchConfig
from pawtune.search.driver import run_search
from pawtune.search.run import Run

NEAR = 0.99


def error_rate(labels: Any, probabilities: Any) -> float:
    """The share of wrong answers: a search for it finds what is worst."""
    return float(np.mean(probabilities.argmax(axis=1) != labels))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="pawtune-") as scratch:
        source = Path(resolve_source(options.data, cache=cache_dir()))
        first, second = deal(source, Path(scratch))
        for seed in range(options.seeds):
            rows += measure(options, Path(scratch) / "runs", first, second, seed)
    print_table(rows)
    write_report(options.out, {"machine": machine(), "rows": rows})


def deal(source: Path, folder: Path) -> tuple[Path, Path]:
    """Two image folders with every second image of each class."""
    halves = folder / "first", folder / "second"
    for label in sorted(path for path in source.iterdir() if path.is_dir()):
        for number, image in enumerate(sorted(label.iterdir())):
            target = halves[number % 2] / label.name / image.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image, target)
    return halves


def measure(
    options: argparse.Namespace, runs: Path, first: Path, second: Path, seed: int
) -> list[dict[str, Any]]:
    """One seed: it decides on splits, proposals and training."""

    def search(name: str, data: Path, **settings: Any) -> Run:
        config = SearchConfig(
            data=str(data),
            name=f"{name}-{seed}",
            runs_dir=str(runs),
            families="transfer",
            weights=options.weights,
            image_size=options.image_size,
            trials=options.trials,
            epochs=options.epochs,
            seed=seed,
            **settings,
        )
        return run_search(config)

    search("elsewhere", first)
    search("misleading", first, metric=error_rate)
    students = {
        teacher: search(
            f"student-{teacher.replace(' ', '-')}",
            second,
            learn_from=() if teacher == "nobody" else (f"{name}-{seed}",),
        )
        for teacher, name in {
            "nobody": "",
            "other images": "elsewhere",
            "same images": "student-nobody",
            "misleading": "misleading",
        }.items()
    }
    scores = {teacher: in_order(run) for teacher, run in students.items()}
    best = max(max(values) for values in scores.values())
    return [
        {
            "seed": seed,
            "taught by": teacher,
            "first trial": round(values[0], 4),
            "best": round(max(values), 4),
            "trials until 99%": until(values, NEAR * best),
        }
        for teacher, values in scores.items()
    ]


def in_order(run: Run) -> list[float]:
    """Best validation accuracy of each trial, in the order of proposal; 0 where it failed."""
    rows = sorted(run.rows(), key=lambda row: row.trial_id)
    return [row.best_val_accuracy or 0.0 for row in rows]


def until(values: list[float], least: float) -> int | None:
    """The place of the first value that is enough, from 1; None where there is none."""
    return next((place for place, value in enumerate(values, 1) if value >= least), None)


if __name__ == "__main__":
    main()
