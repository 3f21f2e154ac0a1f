"""Nets from scratch within a time budget: a search over them, and one net of an expert's.

    python benchmarks/from_scratch.py --data cats_and_dogs_filtered.zip --budget 15m \
        --out from_scratch.json

Both read the same folder of train/, validation/ and test/ images, nothing cached and no weights.
The expert's script (`modern_recipe.py`) trains one net whose recipe it knows; `pawtune run
--families conv` searches with its defaults. Either's best epoch on validation is scored on test.

Takes the budget and what the script takes. Let nothing else run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import (
    environment,
    machine,
    print_table,
    run_pawtune,
    score_on_test,
    write_report,
)
from peer_runs import link_splits

SCRIPT = Path(__file__).with_name("modern_recipe.py")


def main() -> None:
    """Measure, print, write."""
    options = parse_options()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        images = link_splits(options.data, folder, ("train", "validation", "test"))
        rows = [train_by_script(options, images)]
        arguments = [
            *("--data", str(images), "--families", "conv", "--image-size", str(options.image_size)),
            *("--time-budget", options.budget, "--trials", "10000"),
            *("--epochs", str(options.epochs)),
        ]
        done = run_pawtune(arguments, folder / "runs", "nets", folder / "cache")
        first = done.run.trial("0001").read_metrics()
        rows.append(
            {
                "contender": "pawtune",
                "seconds": round(done.seconds, 1),
                "nets": len(done.outcome["leaderboard"]),
                "first net": round(max((row["val_accuracy"] for row in first), default=0.0), 4),
                "best validation": round(done.accuracies()[0], 4),
                "test": round(score_on_test(done), 4),
            }
        )
    print_table(rows)
    write_report(options.out, {"machine": machine(), "rows": rows, "commands": [done.command]})


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="as `pawtune run` takes it")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=36)
    parser.add_argument("--budget", default="15m", help="time budget of the search")
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    return parser.parse_args()


def train_by_script(options: argparse.Namespace, images: Path) -> dict[str, Any]:
    """The expert's script, from its command to its end."""
    sizes = ("--image-size", str(options.image_size), "--epochs", str(options.epochs))
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(images), *sizes],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    seconds = time.perf_counter() - started
    last = json.loads(done.stdout.splitlines()[-1])
    return {
        "contender": "expert's script",
        "seconds": round(seconds, 1),
        "nets": 1,
        "first net": round(last["validation"], 4),
        "best validation": round(last["validation"], 4),
        "test": round(last["test"], 4),
    }


if __name__ == "__main__":
    main()
