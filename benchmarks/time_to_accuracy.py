r"""Validation accuracy against seconds since the command: pawtune, an expert's script, two peers.

    python benchmarks/time_to_accuracy.py --data cats_and_dogs_filtered.zip \
        --weights mobilenet_v2_1.0_224_no_top.h5 --out time_to_accuracy.json

All contenders read the same folder of train/, validation/ and test/ images. Measured whole, from
the command's start to its end: the expert's script (`expert.py`); `pawtune run --families transfer`
with nothing in its cache; the same again with the features in the cache. Scaled (`peer_runs.py`):
plain Ray Tune with OptunaSearch and KerasTuner, which train as their own examples do.

"as good" is the time at which a contender's best validation accuracy comes within 0.002 of the best
of the expert's whole script. The test accuracy is that of the contender's best by validation.

The expert's script needs scikit-learn, which pawtune does not: in a folder, --expert-path, made by

    pip install --no-deps --target expert \
        scikit-learn joblib threadpoolctl narwhals cloudpickle loky

Takes 2 minutes a size on 2 cores, with the peers 8. Let nothing else run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import (
    Search,
    environment,
    machine,
    print_table,
    run_pawtune,
    score_on_test,
    write_report,
)
from peer_runs import AT_ONCE, add_peer_options, link_splits, measure_peer, missing, scaled_row

from pawtune.search.storage.run_folder import write_bytes

EXPERT = Path(__file__).with_name("expert.py")
AS_GOOD = 0.002  # of the expert's best, which is two of the thousand photos it is judged on


@dataclass(frozen=True)
class Course:
    """How a contender's best validation accuracy rose.

    Attributes:
        name: Contender.
        seconds: Duration of the whole command.
        steps: (seconds since the command, validation accuracy) of each model, in this order.
        test: Test accuracy of the best model.
        command: Command line as it was run.
    """

    name: str
    seconds: float
    steps: list[tuple[float, float]]
    test: float
    command: str

    @property
    def best(self) -> float:
        """Best validation accuracy."""
        return max(accuracy for _, accuracy in self.steps)

    def reaches(self, accuracy: float) -> float | None:
        """Seconds until a model that good stood; None: it never did."""
        return next((at for at, reached in self.steps if reached >= accuracy - 1e-9), None)


def main() -> None:
    """Measure, print, draw, write."""
    options = parse_options()
    report: dict[str, Any] = {"machine": machine(), "missing": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        images = link_splits(
            options.data, folder, ("train", "validation", "test"), options.split_seed
        )
        courses = [measure_expert(options, images)]
        for name in ("cold", "warm"):  # in this order: the second finds what the first has cached
            courses.append(measure_pawtune(options, images, folder, name))
        peers = []
        for peer in AT_ONCE:
            reason = missing(peer, options)
            if reason:
                report["missing"].append(reason)
            else:
                peers.append(scaled_row(peer, measure_peer(peer, images, options), options))
    expert = courses[0]
    rows = [course_row(course, expert) for course in courses]
    rows += [
        {
            **dict.fromkeys(rows[0], ""),
            "contender": f"{row['contender']} ({row['how']})",
            "seconds": row["seconds"],
            "of the expert's": round(row["seconds"] / expert.seconds, 1),
        }
        for row in peers
    ]
    print_table(rows)
    report |= {"rows": rows, "courses": [vars(course) for course in courses], "peers": peers}
    write_report(options.out, report)
    if options.figure is not None:
        draw(courses, options.figure)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_race_options(parser, image_size=160)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=20, help="of the peers' trials")
    parser.add_argument("--split-seed", type=int, default=0, help="where the data has no splits")
    add_peer_options(parser)
    parser.add_argument("--figure", type=Path, help="PNG file of the courses")
    return parser.parse_args()


def add_race_options(parser: argparse.ArgumentParser, image_size: int) -> None:
    """The options of every race with the expert's script; `image_size` in pixels by default."""
    parser.add_argument("--data", required=True, help="as `pawtune run` takes it")
    parser.add_argument("--weights", type=Path, required=True, help="MobileNetV2 without its top")
    parser.add_argument("--image-size", type=int, default=image_size)
    parser.add_argument("--expert-path", type=Path, help="a folder that holds scikit-learn")
    parser.add_argument("--out", type=Path, help="JSON file of the result")


def measure_expert(options: argparse.Namespace, images: Path) -> Course:
    """The expert's script, its heads noted as they come."""
    command = [
        *(sys.executable, str(EXPERT), str(images), str(options.weights)),
        *("--image-size", str(options.image_size), "--heads", str(options.trials)),
    ]
    # Behind the installed packages: the folder may hold others of its own.
    more = {"PYTHONPATH": str(options.expert_path)} if options.expert_path else {}
    steps, scores = [], []
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**more)
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            scores.append(json.loads(line))
            steps.append((time.perf_counter() - started, scores[-1]["validation"]))
        errors = process.stderr.read()
    seconds = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{errors[-2000:]}")
    best = max(scores, key=lambda score: score["validation"])
    print(f"expert: {seconds:.1f} s", flush=True)
    return Course("expert's script", seconds, steps, best.get("test", float("nan")), str(command))


def measure_pawtune(options: argparse.Namespace, images: Path, folder: Path, name: str) -> Course:
    """A search by the real command; its test accuracy by a second one, not timed."""
    arguments = [
        *("--data", str(images), "--weights", str(options.weights), "--families", "transfer"),
        *("--image-size", str(options.image_size), "--trials", str(options.trials)),
    ]
    began = time.time()
    done = run_pawtune(arguments, folder / "runs", name, folder / "cache")
    print(f"pawtune, {name}: {done.seconds:.1f} s", flush=True)
    test = score_on_test(done)
    return Course(f"pawtune, {name}", done.seconds, steps_of(done, began), test, done.command)


def steps_of(done: Search, began: float) -> list[tuple[float, float]]:
    """When each trial's first complete model stood, and its best one, from its files."""
    steps = []
    for trial in done.run.trials():
        rows = trial.read_metrics()
        if rows:
            written = os.stat(trial.best_weights).st_mtime
            steps.append((written - began, max(row["val_accuracy"] for row in rows)))
    return sorted(steps)


def course_row(course: Course, expert: Course) -> dict[str, Any]:
    """A contender in the table."""
    good = course.reaches(expert.best - AS_GOOD)
    return {
        "contender": course.name,
        "first model s": round(course.steps[0][0], 1),
        "as good s": "never" if good is None else round(good, 1),
        "seconds": round(course.seconds, 1),
        "of the expert's": round(course.seconds / expert.seconds, 2),
        "best val_accuracy": round(course.best, 4),
        "test_accuracy": round(course.test, 4),
    }


def draw(courses: list[Course], target: Path) -> None:
    """Best validation accuracy so far against seconds."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for course, style in zip(courses, ("--", "-", "-"), strict=True):
        best, seconds, reached = 0.0, [], []
        for at, accuracy in course.steps:
            best = max(best, accuracy)
            seconds.append(at)
            reached.append(best)
        axes.step([*seconds, course.seconds], [*reached, best], style, where="post", lw=2,
                  label=f"{course.name}, {course.seconds:.0f} s")  # fmt: skip
    axes.set(xlabel="seconds since the command", ylabel="best val_accuracy", xlim=(0, None))
    low = min(accuracy for course in courses for _, accuracy in course.steps[:1])
    axes.set_ylim(max(0.0, min(low, courses[0].best - 0.05)), None)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=120)
    write_bytes(target, drawn.getvalue())


if __name__ == "__main__":
    main()
