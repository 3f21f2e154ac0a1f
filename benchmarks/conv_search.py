"""A search over convolutional nets: pawtune against plain Ray Tune and KerasTuner.

    python benchmarks/conv_search.py --data cats_and_dogs_filtered.zip --out conv_search.json

The tutorial's third net at 160 px, whose dropout, flip and rotation the search varies; no trial is
stopped early, so that every contender trains as many epochs. `pawtune run` is measured whole, with
nothing in its cache. The peers read, decode and augment the photos in every epoch, as their own
examples do (`peers.py`); they are measured on two trials of 1 and of 3 epochs and scaled as in
`peer_runs.py`. `conv_nets.py` compares the training itself.

Takes 8 to 10 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from measuring import machine, print_table, run_pawtune, write_report
from peer_runs import (
    AT_ONCE,
    add_peer_options,
    link_splits,
    measure_peer,
    measured_row,
    missing,
    scaled_row,
)
from peers import NET_BATCH, NET_RATE

# The space that is left: dropout, flip and rotation factor.
FIXED = {
    "conv_depth": 3,
    "filters": 32,
    "filter_growth": 1.5,  # 32, 32, 64
    "kernel_size": 3,
    "padding": "valid",
    "batch_norm": "false",
    "conv_pooling": "flatten",
    "conv_dense_width": 128,
    "scaling": "minus_one_to_one",
    "batch_size": NET_BATCH,
    "learning_rate": NET_RATE,
    "optimizer": "adam",
    "schedule": "constant",
    "label_smoothing": 0.0,
    "zoom_factor": 0.0,
    "shift_factor": 0.0,
    "brightness_factor": 0.0,
    "contrast_factor": 0.0,
}


def main() -> None:
    """Measure, print, write."""
    options = parse_options()
    report: dict[str, Any] = {"machine": machine(), "missing": [], "peers": {}}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ours = measured_row("cold", search(options, folder))
        images = link_splits(options.data, folder)
        rows = []
        for peer in AT_ONCE:
            reason = missing(peer, options)
            if reason:
                report["missing"].append(reason)
                print(f"left out: {reason}", flush=True)
                continue
            report["peers"][peer] = measure_peer(peer, images, options)
            row = scaled_row(peer, report["peers"][peer], options)
            rows.append({**row, "times pawtune's": round(row["seconds"] / ours["seconds"], 2)})
    report["rows"] = [*rows, {**ours, "times pawtune's": 1.0}]
    print_table(report["rows"])
    write_report(options.out, report)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="as `pawtune run` takes it")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=6)
    add_peer_options(parser)
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    parser.set_defaults(weights=None)  # the peers train nets
    return parser.parse_args()


def search(options: argparse.Namespace, folder: Path) -> Any:
    """The search by the real command, told as it ends."""
    fixed = [part for key, value in FIXED.items() for part in ("--set", f"space.{key}={value}")]
    arguments = [
        *("--data", options.data, "--families", "conv", "--no-baselines", *fixed),
        *("--image-size", str(options.image_size), "--set", "scheduler.name=none"),
        *("--trials", str(options.trials), "--epochs", str(options.epochs)),
    ]
    done = run_pawtune(arguments, folder / "runs", "nets", folder / "cache")
    print(f"pawtune: {done.seconds:.1f} s", flush=True)
    return done


if __name__ == "__main__":
    main()
