"""What it costs to show a search: TensorBoard's files, the live view, the records of trials.

    python benchmarks/logging_cost.py --out logging_cost.json

A real Tune search of --trials trials that only sleep, one second each over --epochs epochs, two at
a time, with the live view on a terminal (of 120 columns, its output thrown away). All time that
the driver spends in pawtune's callbacks is added up, by part, and set against the wall time. As
the trials need no processor, every second of it is free to be measured: where trials need all
cores, the share of their time is the same or, the driver having to wait, less.
Takes a minute with 100 trials on 2 cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import ray
from measuring import machine, print_table, write_report
from overhead import write_images
from ray import tune
from rich.console import Console

from pawtune.data_pipeline.splitting.build import build_manifest
from pawtune.search.cluster.connection import ResourcePlan
from pawtune.search.config.search_config import load_config
from pawtune.search.progress.reporter import Reporter
from pawtune.search.storage.run_folder import create_run_folder
from pawtune.search.tuning.recorder import RecordKeeper
from pawtune.search.tuning.tensorboard_logger import TensorBoardLogger
from pawtune.search.tuning.tune_loop import Trials, run_trials

TRIAL_S = 1.0
HOOKS = (
    "setup",
    "on_trial_start",
    "on_trial_result",
    "on_trial_complete",
    "on_experiment_end",
)


class SleepingWorker(tune.Trainable):  # type: ignore[misc]  # Ray is untyped
    """A trial that takes a second and no processor."""

    def setup(self, config: dict[str, Any], epochs: int) -> None:
        self.epochs, self.epoch = epochs, 0

    def step(self) -> dict[str, Any]:
        time.sleep(TRIAL_S / self.epochs)
        self.epoch += 1
        accuracy = 0.5 + 0.4 * self.epoch / self.epochs
        metrics = {"loss": 0.5, "accuracy": accuracy, "val_loss": 0.5, "val_accuracy": accuracy}
        more = {"learning_rate": 0.001, "images_per_second": 900.0, "seconds": 0.2}
        best = {"objective": accuracy, "best_val_accuracy": accuracy, "best_epoch": self.epoch}
        best["best_val_loss"] = 0.5
        done = self.epoch >= self.epochs
        return {**metrics, **more, **best, "epoch": self.epoch, "num_weights": 1000, "done": done}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.epoch = 0
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}

    def load_checkpoint(self, checkpoint: Any) -> None:
        pass


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=5, help="of each trial")
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": machine()}
    spent: dict[str, float] = defaultdict(float)
    watch(RecordKeeper, "records and live view", spent)
    watch(TensorBoardLogger, "TensorBoard", spent)
    with tempfile.TemporaryDirectory() as scratch:
        wall_s = search(Path(scratch), options.trials, options.epochs)
    report["parts"] = [
        {"part": part, "seconds": round(seconds, 2), "share": f"{seconds / wall_s:.2%}"}
        for part, seconds in [*spent.items(), ("both", sum(spent.values()))]
    ]
    report["wall_s"], report["share"] = round(wall_s, 1), sum(spent.values()) / wall_s
    print_table(report["parts"])
    print(f"{options.trials} trials of {TRIAL_S:g} s, {options.epochs} epochs each: {wall_s:.1f} s")
    write_report(options.out, report)


def watch(callback: type[Any], part: str, spent: dict[str, float]) -> None:
    """Adds up the time inside a callback's hooks."""

    def timed(hook: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any, **named: Any) -> None:
            started = time.perf_counter()
            hook(*arguments, **named)
            spent[part] += time.perf_counter() - started

        return call

    for name in HOOKS:
        if name in vars(callback):
            setattr(callback, name, timed(getattr(callback, name)))


def search(folder: Path, trials: int, epochs: int) -> float:
    """Runs the search; returns its wall time in seconds."""
    manifest = build_manifest(write_images(folder / "images", 80, 48))
    config = load_config(
        None, ["scheduler.name=none"], {"data": "x", "trials": trials, "epochs": epochs}
    )
    run = create_run_folder(folder / "runs", "sleeping")
    manifest.save(run.root)
    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(address="local", num_cpus=2, **options)
    plan = ResourcePlan(cpus=1.0, gpus=0.0, concurrency=2)
    worker = tune.with_parameters(SleepingWorker, epochs=epochs)
    with open(os.devnull, "w") as nowhere:
        console = Console(file=nowhere, force_terminal=True, width=120)
        started = time.perf_counter()
        run_trials(
            config,
            run,
            Trials((), ("conv", "transfer"), num_classes=2, plan=plan),
            worker,
            Reporter(console=console),
        )
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
