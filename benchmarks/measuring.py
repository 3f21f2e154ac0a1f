"""What the benchmarks share: searches by the real command, memory seen from outside, tables, JSON.

Every search runs as `pawtune run` in a process of its own, with a cache of its own, so that its
seconds are those of a person at a terminal: Python's start, Ray's start and the end included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pawtune.models.cpu_info import cpu_has_bfloat16
from pawtune.search.storage.run_folder import RunFolder, read_json, write_text
from pawtune.search.storage.versions import installed_versions

ROOT = Path(__file__).resolve().parent.parent
MEGABYTE = 1e6
POLL_S = 0.05
# What Ray calls a process that waits for a trial's next epoch, and one that trains it.
WORKER_TITLES = ("ray::TrialWorker", "ray::ResourceTrainable")


@dataclass(frozen=True)
class MemorySample:
    """Private memory of one worker that runs trials, at one moment.

    Attributes:
        trials_begun: By all workers so far.
        process: Its process id.
        anonymous_mb: Its private memory; pages of the object store are shared and do not count.
    """

    trials_begun: int
    process: int
    anonymous_mb: float


@dataclass(frozen=True)
class Search:
    """A finished `pawtune run`.

    Attributes:
        command: As it was run.
        seconds: From the command to its end.
        first_epoch_s: From the command to the end of its first epoch.
        run: Its folder.
        outcome: What `--json` printed.
        memory: Of the workers, where it was asked for.
    """

    command: str
    seconds: float
    first_epoch_s: float
    run: RunFolder
    outcome: dict[str, Any]
    memory: list[MemorySample]

    def accuracies(self) -> list[float]:
        """Best validation accuracy of each trial, best first."""
        return [row["best_val_accuracy"] for row in self.outcome["leaderboard"]]

    def kinds(self) -> dict[str, int]:
        """How many trials trained from a bank, and how many live."""
        kinds = [read_json(trial.facts_file)["training"] for trial in self.run.trials()]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def run_pawtune(
    arguments: Sequence[str], folder: Path, name: str, cache: Path, *, watch_memory: bool = False
) -> Search:
    """Runs one search to its end.

    Args:
        arguments: Of `pawtune run`, without name and folder.
        folder: Where runs and logs go.
        name: Of the run.
        cache: What XDG_CACHE_HOME is; empty or absent for a cold start.
        watch_memory: Sample the memory of the workers.

    Raises:
        RuntimeError: The command failed.
    """
    program = str(Path(sys.executable).with_name("pawtune"))
    command = [program, "run", *arguments, "--name", name, "--runs-dir", str(folder), "--json"]
    folder.mkdir(parents=True, exist_ok=True)
    run = RunFolder(folder / name)
    memory: list[MemorySample] = []
    first_epoch_s = float("nan")
    log, printed = folder / f"{name}.log", folder / f"{name}.json"
    with log.open("w") as errors, printed.open("w") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=output, stderr=errors, env=environment(XDG_CACHE_HOME=str(cache))
        )
        while process.poll() is None:
            time.sleep(POLL_S)
            if first_epoch_s != first_epoch_s and any(run.trials_dir.glob("*/metrics.csv")):
                first_epoch_s = time.perf_counter() - started
            if watch_memory:
                begun = sum(1 for _ in run.trials_dir.glob("*/facts.json"))
                memory += [
                    MemorySample(begun, worker, anonymous_mb(worker))
                    for worker in trial_workers(process.pid)
                ]
        seconds = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{log.read_text()[-2000:]}")
    outcome = json.loads(printed.read_text())
    shown = " ".join(["pawtune", *command[1:]])
    return Search(shown, seconds, first_epoch_s, run, outcome, memory)


def score_on_test(done: Search, trial: str | None = None) -> float:
    """Test accuracy of a trial, by default a search's winner, by the real command; not timed."""
    program = str(Path(sys.executable).with_name("pawtune"))
    command = [program, "test", str(done.run.root), "--json"]
    if trial is not None:
        command += ["--trial", trial]
    tested = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    return float(json.loads(tested.stdout)["accuracy"])


def environment(**more: str) -> dict[str, str]:
    """Ours, the same for every contender."""
    given = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "RAY_USAGE_STATS_ENABLED": "0", **more}
    given.pop("PYTHONDONTWRITEBYTECODE", None)  # would cost every process that imports TensorFlow
    return given


def processes_below(driver: int) -> dict[int, str]:
    """The processes that a process started, and theirs, with their titles."""
    children: dict[int, list[int]] = {}
    titles: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                titles[int(entry.name)] = (entry / "cmdline").read_text()
            except OSError:  # it has ended
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    waiting, found = list(children.get(driver, [])), {}
    while waiting:
        process = waiting.pop()
        waiting += children.get(process, [])
        found[process] = titles.get(process, "")
    return found


def trial_workers(driver: int) -> list[int]:
    """Ray's processes below a driver that have a trial, told by the title that Ray gives them."""
    below = processes_below(driver)
    return [process for process, title in below.items() if title.startswith(WORKER_TITLES)]


def processor_s(process: int) -> float:
    """Processor time of a process up to now; 0 where it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def anonymous_mb(process: int) -> float:
    """Private memory of a process in MB; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    kilobytes = next((line.split()[1] for line in lines if line.startswith("RssAnon")), "0")
    return int(kilobytes) * 1024 / MEGABYTE


def start_ray(store_mb: int, num_cpus: int | None = None) -> None:
    """A Ray of this process' own, and not one that happens to run here."""
    import ray

    ray.init(
        address="local",
        num_cpus=num_cpus or os.cpu_count(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=store_mb * 2**20,
    )


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), "?")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "bfloat16": cpu_has_bfloat16(),
        "load_before": os.getloadavg()[0],
        "versions": installed_versions(),
    }


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Rows, aligned; a row may lack a column."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = [columns, *([str(row.get(name, "")) for name in columns] for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip(), flush=True)


def write_report(out: Path | None, report: dict[str, Any]) -> None:
    """Writes the JSON that goes with a table, with the command and the machine."""
    if out is not None:
        full = {"command": " ".join(sys.argv), **report}
        write_text(out, json.dumps(full, indent=1, default=str) + "\n")
