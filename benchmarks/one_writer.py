"""What the one process that writes the run folder can take from many workers.

    python benchmarks/one_writer.py --out one_writer.json

Simulated workers, threads of --processes Ray processes, do nothing but hand over an epoch (metrics,
weights and predictions) and wait until it is written, as trials do between their epochs: the most
that --workers can ask for. Two sizes: heads of 10 KB, and nets of 20 million weights (80 MB; fewer
workers where Ray's object store, --store-mb, would not hold an epoch of each). What one process
writes without Ray is beside it. Seconds of processor are the processes' own; "driver" is the one
that has the search, through which no weights go. Takes a minute.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
from measuring import machine, print_table, start_ray, write_report

from pawtune.search.objective import Objective
from pawtune.search.storage.run_folder import (
    BEST_PREDICTIONS,
    BEST_WEIGHTS,
    RunFolder,
    TrialFolder,
)
from pawtune.search.storage.run_writer import RunWriter
from pawtune.search.storage.trial_writer import KeptEpoch, TrialWriter
from pawtune.search.storage.untrusted_files import REQUIRED_METRICS
from pawtune.search.worker.trial_client import TrialClient, end_writer

PREDICTIONS = 1000 * 2 * 4  # bytes: 1,000 validation images of two classes


class MeasuredWriter(RunWriter):
    """As the search's own, and says what it has cost."""

    def processor_s(self) -> float:
        """Seconds of processor of this process so far."""
        return time.process_time()


@ray.remote(num_cpus=0)
def hand_over(writer: Any, trial_ids: list[str], size: int, seconds: float) -> list[float]:
    """Runs a worker for each trial at once; seconds of every epoch that was handed over."""
    epochs = epochs_of(size)
    taken: list[float] = []
    deadline = time.monotonic() + seconds

    def work(trial_id: str) -> None:
        client = TrialClient(writer, trial_id)
        client.begin()
        number = 0
        while time.monotonic() < deadline:
            began = time.monotonic()
            client.keep(epochs[number % len(epochs)])
            taken.append(time.monotonic() - began)
            number += 1

    threads = [threading.Thread(target=work, args=[trial_id]) for trial_id in trial_ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def epochs_of(size: int) -> list[KeptEpoch]:
    """The best epochs of a trial of ten, with weights of a size."""
    rows = [{"epoch": n, **dict.fromkeys(REQUIRED_METRICS, n / 20)} for n in range(1, 11)]
    files = {
        BEST_WEIGHTS: np.random.default_rng(0).integers(0, 256, size, np.uint8),
        BEST_PREDICTIONS: np.zeros(PREDICTIONS, np.uint8),
    }
    return [KeptEpoch(rows[:number], best=files) for number in range(1, 11)]


def new_trials(root: Path, count: int) -> RunFolder:
    """A run with the folders of so many trials."""
    run = RunFolder(root)
    for number in range(count):
        run.new_trial(f"{number:04d}").root.mkdir(parents=True)
    return run


def measure(name: str, size: int, workers: int, processes: int, seconds: float) -> dict[str, Any]:
    """One row of the table."""
    with tempfile.TemporaryDirectory(prefix="one-writer-") as folder:
        run = new_trials(Path(folder), workers)
        writer = ray.remote(MeasuredWriter).options(num_cpus=0)
        writer = writer.remote(run.trials_dir, "val_accuracy", os.getpid())
        before, own_before = ray.get(writer.processor_s.remote()), time.process_time()
        shares = [[f"{n:04d}" for n in range(i, workers, processes)] for i in range(processes)]
        ray.get([hand_over.remote(writer, [], size, 0.0) for _ in shares])  # processes start
        began = time.monotonic()
        tasks = [hand_over.remote(writer, share, size, seconds) for share in shares if share]
        taken = sorted(second for task in tasks for second in ray.get(task))
        wall = time.monotonic() - began
        spent = ray.get(writer.processor_s.remote()) - before
        own = time.process_time() - own_before
        end_writer(writer)
    return {
        "what": name,
        "workers": workers,
        "epochs/s": round(len(taken) / wall, 1),
        "MB/s": round(len(taken) * (size + PREDICTIONS) / 1e6 / wall, 1),
        "writer's processor": f"{spent / wall:.0%}",
        "ms an epoch": round(1000 * spent / len(taken), 2),
        "driver's processor": f"{own / wall:.1%}",
        "wait, median ms": round(1000 * statistics.median(taken), 1),
        "wait, p95 ms": round(1000 * taken[int(0.95 * len(taken))], 1),
        "MB/s without Ray": round(alone(size, seconds / 3), 1),
    }


def alone(size: int, seconds: float) -> float:
    """MB/s of one process that writes epochs, handed over by nobody."""
    with tempfile.TemporaryDirectory(prefix="one-writer-") as folder:
        new_trials(Path(folder), 1)
        writer = TrialWriter(TrialFolder(Path(folder) / "trials" / "0000"), Objective())
        epochs, count, began = epochs_of(size), 0, time.monotonic()
        while time.monotonic() < began + seconds:
            writer.keep(epochs[count % len(epochs)])
            count += 1
        return count * (size + PREDICTIONS) / 1e6 / (time.monotonic() - began)


def main() -> None:
    """Measures, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--processes", type=int, default=4, help="that the workers are threads of")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a row")
    parser.add_argument("--store-mb", type=int, default=4000, help="of Ray's object store")
    parser.add_argument("--net-mb", type=float, default=80.0, help="weights of a net")
    parser.add_argument("--out", type=Path, default=Path("one_writer.json"))
    options = parser.parse_args()
    before = machine()
    start_ray(options.store_mb)
    sizes = {"head, 10 KB": 10_000, f"net, {options.net_mb:g} MB": int(options.net_mb * 1e6)}
    rows = []
    for name, size in sizes.items():
        fit = max(1, int(0.8 * options.store_mb * 2**20 / size))
        workers = min(options.workers, fit)
        rows.append(measure(name, size, workers, options.processes, options.seconds))
    print_table(rows)
    write_report(options.out, {"machine": before, "rows": rows})


if __name__ == "__main__":
    main()
