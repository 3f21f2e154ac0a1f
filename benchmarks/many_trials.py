"""What `status` and `leaderboard` take of a run of very many trials, ended and running.

    python benchmarks/many_trials.py --trials 3000 10000

Seconds of a fresh process each, its seconds of processor, and how many files of trials it opened.
The trials are files only: eight epochs each, no weights.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from pawtune.data_pipeline.splitting.manifest import Manifest, ManifestEntry
from pawtune.models.baselines import baseline
from pawtune.search.config.search_config import dump_config, load_config
from pawtune.search.objective import Objective
from pawtune.search.results.leaderboard import rank_trials, write_leaderboard
from pawtune.search.storage.object_store_sync import hold_run
from pawtune.search.storage.run_folder import (
    RunFolder,
    create_run_folder,
    write_json,
    write_text,
)

EPOCHS = 8
COUNT_OPENS = """
import sys
opened = 0
def hook(event, arguments):
    global opened
    if event == "open" and "/trials/" in str(arguments[0]):
        opened += 1
sys.addaudithook(hook)
sys.argv = ["pawtune", *sys.argv[1:]]
from pawtune.__main__ import main
try:
    main()
finally:
    print(opened, file=sys.stderr)
"""


def make_run(folder: Path, count: int) -> RunFolder:
    """A run of so many ended trials."""
    run = create_run_folder(folder, f"trials_{count}")
    config = load_config(None, [], {"data": str(folder), "name": run.name})
    write_text(run.config_file, dump_config(config))
    digest = "0" * 64
    entries = tuple(
        ManifestEntry(f"{label}/{i}.jpg", label, split, digest, "0" * 16, digest, 10, 10)
        for label in ("cat", "dog")
        for i, split in enumerate(("train", "validation", "test"))
    )
    Manifest(str(folder), ("cat", "dog"), entries, (), (), 0, "classes", digest).save(run.root)
    spec = baseline("tutorial_2", EPOCHS)
    content = {"baseline": False, "params": spec.params(), **spec.model_dump(mode="json")}
    for number in range(1, count + 1):
        trial = run.new_trial(f"{number:04d}")
        write_json(trial.spec_file, {**content, "name": f"conv-{number:04d}"})
        accuracy = 0.5 + 0.4 * (number * 7919 % count) / count
        trial.write_metrics([epoch_row(epoch, accuracy) for epoch in range(1, EPOCHS + 1)])
        write_json(trial.facts_file, {"num_weights": 1000})
        trial.write_status("completed", started=1.0, finished=9.0, seconds=8.0)
    return run


def epoch_row(epoch: int, accuracy: float) -> dict[str, float]:
    """One epoch of a trial."""
    shown = accuracy - 0.01 * (EPOCHS - epoch)
    names = ("accuracy", "val_accuracy", "val_balanced_accuracy")
    rest = {"loss": 0.5, "val_loss": 0.5, "learning_rate": 0.001}
    return {"epoch": epoch, **dict.fromkeys(names, shown), **rest, "seconds": 1.0,
            "images_per_second": 900.0}  # fmt: skip


def measure(command: str, run: RunFolder) -> dict[str, float]:
    """Seconds, and files of trials that were opened, of one command on a run."""
    began, before = time.monotonic(), processor_s()
    done = subprocess.run(
        [sys.executable, "-c", COUNT_OPENS, command, str(run.root)],
        capture_output=True, text=True, check=True,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    opened = int(done.stderr.strip().splitlines()[-1])
    return {
        "seconds": round(time.monotonic() - began, 2),
        "processor_s": round(processor_s() - before, 2),
        "files of trials": opened,
    }


def processor_s() -> float:
    """Seconds of processor of all commands so far: what a busy machine takes as well."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def note_progress(run: RunFolder, count: int) -> None:
    """What a driver that has ended all of them but none so far would note."""
    best = {"value": 0.9, "accuracy": 0.9, "loss": 0.5, "name": "conv-0001", "epoch": 8,
            "params": {}, "trial_id": "0001"}  # fmt: skip
    content = {
        "total": count, "train_images": 2, "val_images": 2, "saved_epochs": 0, "saved_passes": 0,
        "metric": "val_accuracy", "waits": "", "ended": {"completed": count}, "running": {},
        "best": best, "bar": {"began": 0, "at": 1, "behind": 0}, "noted": time.time() + 60,
    }  # fmt: skip
    write_json(run.root / "progress.json", content)


def main() -> None:
    """Prints a line of JSON for each number of trials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[3000, 10_000])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    report = {}
    for count in options.trials:
        with tempfile.TemporaryDirectory() as folder:
            run = make_run(Path(folder), count)
            found = {"nothing noted: leaderboard": measure("leaderboard", run)}
            rows = rank_trials(run, Objective("val_accuracy"), note=True)
            found["killed: status"] = measure("status", run)
            write_leaderboard(run, rows)
            counts = dict(Counter(row.status for row in rows))
            write_json(run.summary_file, {"reason": None, "seconds": 1.0, "counts": counts})
            for command in ("status", "leaderboard"):
                found[f"ended: {command}"] = measure(command, run)
            with hold_run(run, print):
                note_progress(run, count)
                for command in ("status", "leaderboard"):
                    found[f"running: {command}"] = measure(command, run)
        report[count] = found
        print(json.dumps({count: found}), flush=True)
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
