"""What a search of very many trials costs its driver, and which part of it grows.

    python benchmarks/scale.py --trials 1000 --workers 64 --out scale.json

A real Tune search on this machine: --trials trials of --trial-s seconds in --epochs epochs, of
which --workers run at once, each in a process of its own, as a cluster would run them. A trial
sleeps, writes its epochs and reports them; it imports no TensorFlow. Sampler (TPE), early stopping,
records, TensorBoard's files, study and live view are those of a search, nothing is left out.

For each tenth of the trials, by when they end: milliseconds of processor a trial that the driver
used (all its threads, Ray's included), and of those its parts (in its main thread), and its memory;
beside it, not in it, what Ray's own processes and the workers used, and the memory of a worker. A
driver that is asked for more than one processor second a second is the bottleneck: 1 / (driver s a
trial) trials a second are its limit, whatever the cluster. The first tenth holds the start of the
workers, 2 s of processor and 120 MB each; the first trials wait for all of them. --out is written
after each tenth: what was measured stays when the run is cut short. Ctrl-C and SIGTERM end it in
order.

    python benchmarks/scale.py --trials 1000 --workers 64 --simulate --out scale.json

has no worker processes and no Tune: proposals, early stopping, records and TensorBoard get the
calls that Tune would make for --workers trials at once, one after the other.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from measuring import (
    WORKER_TITLES,
    anonymous_mb,
    machine,
    print_table,
    processes_below,
    processor_s,
    start_ray,
    write_report,
)
from overhead import write_images
from ray import tune
from ray.tune.schedulers import TrialScheduler
from rich.console import Console

from pawtune.data_pipeline.splitting.build import build_manifest
from pawtune.search.cluster.connection import ResourcePlan
from pawtune.search.config.search_config import SearchConfig, load_config
from pawtune.search.driver import _finish
from pawtune.search.objective import Objective
from pawtune.search.progress.reporter import Reporter
from pawtune.search.storage.records import TrialFacts
from pawtune.search.storage.run_folder import RunFolder, create_run_folder
from pawtune.search.storage.trial_writer import KeptEpoch, TrialWriter
from pawtune.search.trial_report import BestEpoch, TrialReport
from pawtune.search.tuning.optuna_searcher import OptunaSearcher
from pawtune.search.tuning.recorder import RecordKeeper, StopSignal
from pawtune.search.tuning.scheduler import FamilyScheduler
from pawtune.search.tuning.tensorboard_logger import TensorBoardLogger
from pawtune.search.tuning.tune_loop import Trials, run_trials
from pawtune.search.worker.epoch_keeper import Records
from pawtune.search.worker.trial import TrialWorker
from pawtune.search.worker.trial_client import start_writer

BLOCKS = 10
START_S = 600.0
WAITING_TITLES = ("default_worker.py", "ray::IDLE")  # of workers that start, or have no trial yet
PARTS: dict[type[Any], tuple[str, tuple[str, ...]]] = {
    OptunaSearcher: ("proposals and study", ("suggest", "on_trial_result", "on_trial_complete")),
    FamilyScheduler: ("early stopping", ("on_trial_result", "on_trial_complete")),
    RecordKeeper: (
        "records and live view",
        ("on_trial_start", "on_trial_result", "on_trial_complete", "close"),
    ),
    TensorBoardLogger: (
        "TensorBoard",
        ("setup", "on_trial_start", "on_trial_result", "on_trial_complete", "on_experiment_end"),
    ),
}


class SleepingWorker(TrialWorker):
    """A trial that needs no processor, and keeps what a trial keeps but its weights."""

    workers = 0

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], run: RunFolder, writer: Any, trial_s: float, workers: int
    ) -> None:
        super().setup(config, SimpleNamespace(writer=writer))  # type: ignore[arg-type]
        self.trials_dir = run.trials_dir
        self.trial_s = trial_s
        self.workers = workers

    def _begin(self, records: Records) -> Iterator[TrialReport]:
        trial_id = int(self.config["trial_id"])
        records.begin()
        epochs = self.config["spec"]["train"]["epochs"]
        seconds = self.trial_s / epochs
        records.describe(TrialFacts(num_weights=1000, training="live"))
        if trial_id <= self.workers:
            self._wait_for_all(self.trials_dir)
        level = trial_id * 617 % 1000 / 3000  # no two alike, in no order
        rows: list[dict[str, float]] = []
        for epoch in range(1, epochs + 1):
            time.sleep(seconds)
            value = 0.5 + level * epoch / epochs
            row = dict.fromkeys(("loss", "val_loss"), 1 - value)
            row |= dict.fromkeys(("accuracy", "val_accuracy", "val_balanced_accuracy"), value)
            row |= {"learning_rate": 0.001, "images_per_second": 900.0, "seconds": seconds}
            rows.append({"epoch": epoch, **row})
            records.keep(KeptEpoch(rows))
            best = BestEpoch(epoch, value, value, 1 - value)
            yield TrialReport(epoch, row, best, num_weights=1000, done=epoch == epochs)

    def _wait_for_all(self, trials: Path) -> None:
        """Until every worker has started: on few cores many trials would end before.

        So what is measured from the second tenth on is as many workers at once as were asked for.
        """
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if sum(1 for _ in trials.glob("*/facts.json")) >= self.workers:
                return
            time.sleep(0.5)


class Meter:
    """Takes processor time and memory whenever a tenth of the trials has ended.

    Args:
        trials: How many there are.
        keep: Takes the rows up to now, after each tenth.
        with_workers: Whether there are any to look at.
    """

    def __init__(
        self, trials: int, keep: Callable[[list[dict[str, Any]]], None], with_workers: bool
    ) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.rows: list[dict[str, Any]] = []
        self.ended = 0
        self._trials = trials
        self._keep = keep
        self._with_workers = with_workers
        self.not_ours_s = 0.0
        self._others: dict[str, dict[int, float]] = {"workers": {}, "Ray's own": {}}
        self._before = self._now()

    def watch(self, kind: type[Any], part: str, names: tuple[str, ...]) -> None:
        """Adds up the time inside some of a class's methods."""
        for name in names:
            setattr(kind, name, self._timed(getattr(kind, name), part))
        if kind is RecordKeeper:
            kind.on_trial_complete = self._counted(kind.on_trial_complete)

    def _timed(self, method: Callable[..., Any], part: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            started = time.thread_time()
            try:
                return method(*arguments, **named)
            finally:
                self.spent[part] += time.thread_time() - started

        return call

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            method(*arguments, **named)
            self.ended += 1
            if self.ended % max(1, self._trials // BLOCKS) == 0:
                self.take()

        return call

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """What is not the driver's work."""
        started = time.process_time()
        yield
        self.not_ours_s += time.process_time() - started

    def take(self) -> None:
        """Ends a tenth."""
        now, before = self._now(), self._before
        count = now["ended"] - before["ended"]
        wall = now["wall"] - before["wall"]

        def each(seconds: float) -> float:
            return float(round(1000 * seconds / count, 1))

        cpu = now["cpu"] - before["cpu"]
        with self.left_out():
            workers, worker_mb = self._look_at_others()
            others = {name: sum(used.values()) for name, used in self._others.items()}
            self.rows.append(
                {
                    "trials": now["ended"],
                    "wall s": round(wall, 1),
                    "driver ms/trial": each(cpu),
                    **{
                        name: each(now["parts"].get(name, 0) - before["parts"].get(name, 0))
                        for name, _ in PARTS.values()
                    },
                    "busy": f"{cpu / wall:.0%}",
                    "memory MB": round(anonymous_mb(os.getpid())),
                }
            )
            if self._with_workers:
                self.rows[-1] |= {
                    **{
                        f"{name} ms/trial": each(used - before["others"].get(name, 0))
                        for name, used in others.items()
                    },
                    "workers": workers,
                    "MB a worker": round(worker_mb),
                }
            print(f"{now['ended']} of {self._trials} ended", file=sys.stderr, flush=True)
            self._keep(self.rows)
        self._before = {**now, "others": others}

    def _look_at_others(self) -> tuple[int, float]:
        """How many worker processes there are, and the mean of their private memory."""
        memory = []
        for process, title in processes_below(os.getpid()).items():
            is_worker = title.startswith(WORKER_TITLES) or any(w in title for w in WAITING_TITLES)
            self._others["workers" if is_worker else "Ray's own"][process] = processor_s(process)
            if is_worker:
                memory.append(anonymous_mb(process))
        return len(memory), sum(memory) / len(memory) if memory else 0.0

    def after_start(self) -> float | None:
        """Seconds of processor a trial that the driver used after the first tenth."""
        later = self.rows[1:]
        if not later:
            return None
        counts = [row["trials"] - before["trials"] for before, row in pairwise(self.rows)]
        spent = sum(row["driver ms/trial"] * n for row, n in zip(later, counts, strict=True))
        return float(round(spent / sum(counts) / 1000, 4))

    def _now(self) -> dict[str, Any]:
        return {
            "ended": self.ended,
            "wall": time.perf_counter(),
            "cpu": time.process_time() - self.not_ours_s,
            "parts": dict(self.spent),
            "others": {},
        }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=64, help="trials at once")
    parser.add_argument("--epochs", type=int, default=2, help="of each trial")
    parser.add_argument("--trial-s", type=float, default=4.0, help="seconds that a trial sleeps")
    parser.add_argument("--sampler", default="tpe", choices=("tpe", "random", "nsga2"))
    parser.add_argument("--simulate", action="store_true", help="without Tune and workers")
    parser.add_argument("--profile", type=Path, help="write cProfile's statistics of the driver")
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    options = parser.parse_args()
    place = machine()

    def keep(rows: list[dict[str, Any]], whole: dict[str, Any] | None = None) -> None:
        write_report(options.out, {"machine": place, "blocks": rows, "whole": whole})

    meter = Meter(options.trials, keep, with_workers=not options.simulate)
    for kind, (part, names) in PARTS.items():
        meter.watch(kind, part, names)
    profiler = cProfile.Profile(time.thread_time) if options.profile else None
    with tempfile.TemporaryDirectory() as scratch:
        result = search(Path(scratch), options, profiler, meter)
    if profiler is not None:
        profiler.dump_stats(options.profile)
    keep(meter.rows, result)
    print_table(meter.rows)
    print_table([result])


def search(
    folder: Path, options: argparse.Namespace, profiler: cProfile.Profile | None, meter: Meter
) -> dict[str, Any]:
    """Runs the search; what it took as a whole."""
    manifest = build_manifest(write_images(folder / "images", 80, 48))
    config = load_config(
        None,
        [f"sampler.name={options.sampler}", "scheduler.grace_period=1"],
        {"data": "x", "trials": options.trials, "epochs": options.epochs, "baselines": "off"},
    )
    run = create_run_folder(folder / "runs", "scale")
    manifest.save(run.root)
    plan = ResourcePlan(cpus=1.0, gpus=0.0, concurrency=options.workers)
    trials = Trials((), ("conv", "transfer"), num_classes=2, plan=plan)
    with open(os.devnull, "w") as nowhere:
        reporter = Reporter(console=Console(file=nowhere, force_terminal=True, width=120))
        started, cpu = time.perf_counter(), time.process_time()
        if profiler is not None:
            profiler.enable()
        if options.simulate:
            reason = simulate(config, run, trials, reporter, meter)
        else:
            workers = min(options.workers, options.trials)
            parameters = {"trial_s": options.trial_s, "workers": workers}
            reason = run_with_tune(config, run, trials, reporter, parameters)
        if profiler is not None:
            profiler.disable()
        wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    cpu_s -= meter.not_ours_s
    started = time.perf_counter()
    _finish(config, run, reason, wall_s, {})
    return {
        "trials": meter.ended,
        "workers": options.workers,
        "ended early": reason or "no",
        "wall s": round(wall_s, 1),
        "driver s/trial": round(cpu_s / max(1, meter.ended), 4),
        "after the first tenth": meter.after_start(),
        "leaderboard s": round(time.perf_counter() - started, 2),
        "study MB": round(size_mb(run.study_file), 1),
        "event files MB": round(size_mb(run.tensorboard_dir), 1),
        "run folder MB": round(size_mb(run.root), 1),
    }


def run_with_tune(
    config: SearchConfig,
    run: RunFolder,
    trials: Trials,
    reporter: Reporter,
    parameters: dict[str, Any],
) -> str | None:
    """Runs the search in earnest; why it ended early, if it did."""
    # More workers than cores start at once: a few at a time, and none is given up as too slow.
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(2 * (os.cpu_count() or 1)))
    os.environ.setdefault("RAY_worker_register_timeout_seconds", "600")
    start_ray(100, trials.plan.concurrency)
    writer = start_writer(run.trials_dir, config.objective)
    worker = tune.with_parameters(SleepingWorker, run=run, writer=writer, **parameters)
    return run_trials(config, run, trials, worker, reporter)


def simulate(
    config: SearchConfig, run: RunFolder, trials: Trials, reporter: Reporter, meter: Meter
) -> str | None:
    """Makes the calls that Tune would make, in its order; none ends early."""
    families, workers = trials.families, trials.plan.concurrency
    searcher = OptunaSearcher(config, run, families=families, num_classes=trials.num_classes)
    scheduler = FamilyScheduler(
        searcher.objective, epochs=config.epochs, grace_period=1, reduction_factor=3
    )
    keeper = RecordKeeper(run, scheduler, StopSignal(), reporter.event)
    board = TensorBoardLogger(run, config, families)
    board.setup()
    reporter.trials(config.trials, trials.plan, run)
    running: deque[Any] = deque()
    for number in range(config.trials + workers):
        if number < config.trials:
            trial = SimpleNamespace(trial_id=f"t{number}")
            trial.config = searcher.suggest(trial.trial_id)
            keeper.on_trial_start(0, [], trial)
            board.on_trial_start(0, [], trial)
            running.append(trial)
        if len(running) == workers or (running and number >= config.trials):
            end_trial(running.popleft(), run, searcher, scheduler, [keeper, board], meter)
    board.on_experiment_end([])
    keeper.close()
    searcher.close()
    reporter.close()
    return None


def end_trial(
    trial: Any,
    run: RunFolder,
    searcher: OptunaSearcher,
    scheduler: FamilyScheduler,
    callbacks: list[Any],
    meter: Meter,
) -> None:
    """Runs a trial from its first epoch to its end."""
    worker = object.__new__(SleepingWorker)
    worker.config, worker.trial_s = trial.config, 0.0
    epochs = worker._begin(TrialWriter(run.new_trial(trial.config["trial_id"]), Objective()))
    while True:
        with meter.left_out():
            result = next(epochs).to_result()
        stopped = scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP
        for callback in callbacks:
            callback.on_trial_result(0, [], trial, result)
        if stopped or result["done"]:
            break
        searcher.on_trial_result(trial.trial_id, result)
    scheduler.on_trial_complete(None, trial, result)
    searcher.on_trial_complete(trial.trial_id, result)
    for callback in callbacks[::-1]:  # a tenth is taken when the records are told
        callback.on_trial_complete(0, [], trial)


def size_mb(path: Path) -> float:
    """Of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


if __name__ == "__main__":
    main()
