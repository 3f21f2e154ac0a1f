"""What ASHA saves and what it misses, replayed on the learning curves of real searches.

    pawtune run --data DATA --families transfer --trials 32 --no-baselines \
        --set scheduler.name=none --name heads
    python benchmarks/early_stopping.py runs/heads --out early_stopping.json

Takes runs whose trials all ran to their end (`scheduler.name=none`). Their curves are played back
through pawtune's own scheduler, in --orders random orders, two trials at a time by the seconds
that each epoch took, for several settings. Of each: the share of the epochs and of the seconds that
the trials took, how often the best trial of the run was found, the best value missed on average,
and what the scheduler itself took for each epoch reported to it.

Proposals do not react to the replay: it is the scheduler alone that is judged. Takes seconds.
"""

from __future__ import annotations

import argparse
import heapq
import random
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from time import perf_counter
from types import SimpleNamespace
from typing import Any

from measuring import machine, print_table, write_report

from pawtune.models.spec import TrialSpec
from pawtune.search.objective import Objective
from pawtune.search.run import open_run
from pawtune.search.storage.history import read_history
from pawtune.search.tuning.scheduler import FamilyScheduler

AT_ONCE = 2
SETTINGS = ((1, 3), (2, 3), (3, 3), (4, 3), (3, 2), (3, 4))  # grace period, reduction factor


@dataclass(frozen=True)
class Curve:
    """A trial that ran to its end.

    Attributes:
        spec: Of the trial.
        bests: Best value up to each epoch.
        seconds: Of each epoch.
    """

    spec: TrialSpec
    bests: list[float]
    seconds: list[float]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--orders", type=int, default=200)
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    options = parser.parse_args()
    rows = []
    for folder in options.runs:
        curves, objective = read_curves(folder)
        for grace, factor in SETTINGS:
            rows.append(
                {
                    "run": folder.name,
                    "trials": len(curves),
                    "grace_period": grace,
                    "reduction_factor": factor,
                    **assess(curves, objective, grace, factor, options.orders),
                }
            )
    print_table(rows)
    write_report(options.out, {"machine": machine(), "rows": rows})


def read_curves(folder: Path) -> tuple[list[Curve], Objective]:
    """The trials of a run."""
    run = open_run(str(folder), ".")
    objective = run.config().objective
    curves = []
    for trial in read_history(run.folder, objective):
        if trial.status != "completed":
            raise SystemExit(
                f"every trial of RUN must have run to its end, got {trial.trial_id} of {folder}, "
                f"{trial.status}; search with --set scheduler.name=none"
            )
        rows = run.folder.trial(trial.trial_id).read_metrics()
        curves.append(Curve(trial.spec, list(trial.values.values()), [r["seconds"] for r in rows]))
    return curves, objective


def assess(
    curves: list[Curve], objective: Objective, grace: int, factor: int, orders: int
) -> dict[str, Any]:
    """One setting over many orders."""
    sign = 1 if objective.mode == "max" else -1
    best = max(sign * curve.bests[-1] for curve in curves)
    whole = sum(sum(curve.seconds) for curve in curves)
    every = sum(len(curve.bests) for curve in curves)
    epochs, shares, missed, spent, told = [], [], [], 0.0, 0
    for seed in range(orders):
        shuffled = random.Random(seed).sample(curves, len(curves))
        scheduler = FamilyScheduler(
            objective,
            epochs=max(len(curve.bests) for curve in curves),
            grace_period=grace,
            reduction_factor=factor,
        )
        lengths, seconds = replay(shuffled, scheduler)
        spent, told = spent + seconds, told + sum(lengths)
        epochs.append(sum(lengths) / every)
        pairs = list(zip(shuffled, lengths, strict=True))
        shares.append(sum(sum(curve.seconds[:length]) for curve, length in pairs) / whole)
        missed.append(best - max(sign * curve.bests[length - 1] for curve, length in pairs))
    return {
        "of the epochs": round(mean(epochs), 3),
        "of the seconds": round(mean(shares), 3),
        "best found": round(mean(value <= 1e-12 for value in missed), 3),
        "missed": round(mean(missed), 5),
        "scheduler us/epoch": round(1e6 * spent / told, 1),
    }


def replay(curves: list[Curve], scheduler: FamilyScheduler) -> tuple[list[int], float]:
    """Epochs that each trial was given, and the seconds the scheduler took."""
    lengths = [0] * len(curves)
    waiting = iter(range(len(curves)))
    stubs = [
        SimpleNamespace(
            trial_id=str(number),
            config={"trial_id": str(number), "baseline": False, "spec": curve.spec.model_dump()},
        )
        for number, curve in enumerate(curves)
    ]
    running = [(curves[n].seconds[0], n) for n, _ in zip(waiting, range(AT_ONCE), strict=False)]
    heapq.heapify(running)
    spent = 0.0
    while running:
        now, number = heapq.heappop(running)
        curve, stub = curves[number], stubs[number]
        lengths[number] += 1
        epoch = lengths[number]
        result = {"epoch": epoch, "objective": curve.bests[epoch - 1]}
        started = perf_counter()
        over = scheduler.on_trial_result(None, stub, result) == scheduler.STOP
        if over or epoch == len(curve.bests):
            scheduler.on_trial_complete(None, stub, result)
            spent += perf_counter() - started
            number = next(waiting, -1)
            if number < 0:
                continue
        else:
            spent += perf_counter() - started
        heapq.heappush(running, (now + curves[number].seconds[lengths[number]], number))
    return lengths, spent


if __name__ == "__main__":
    main()
