"""A search over transfer heads: pawtune, cold and warm, against plain Ray Tune and KerasTuner.

    python benchmarks/transfer_heads.py --data cats_and_dogs_filtered.zip \
        --weights mobilenet_v2_1.0_224_no_top.h5 --out transfer_heads.json

Measured in full: `pawtune run` of --trials x --epochs with nothing in its cache (the archive is
unpacked, hashed and decoded, the feature bank built), then the same command again with the bank
in the cache. Seconds are those of the whole command.

Scaled: the peers get the same photos in the same splits, the same weights and the same space, and
train as their own examples do (`peers.py`): images read, augmented and sent through the backbone
in every epoch. Two trials of 1 and of 3 epochs give start-up and seconds an epoch; the search takes

    trials / trials at once x (start-up + epochs x seconds an epoch)

Python's start and imports are not counted for them, in their favour. Ray Tune runs two trials at
once in fresh processes, KerasTuner one at a time in one process.

Takes 5 to 8 minutes on 2 cores. KerasTuner comes with `pip install -e '.[bench]'`; without it
its row is left out. Exit status 1 where a pawtune trial was live, failed or fell short.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from measuring import Search, environment, machine, print_table, run_pawtune, write_report
from peers import CONCURRENCY

from pawtune.data_pipeline.sources.resolve import resolve_source
from pawtune.data_pipeline.splitting.build import build_manifest

PEERS = Path(__file__).with_name("peers.py")
AT_ONCE = {"ray-tune": CONCURRENCY, "keras-tuner": 1}


def main() -> int:
    """Measure, print, write."""
    options = parse_options()
    report: dict[str, Any] = {"machine": machine(), "missing": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        searches = [
            search(options, folder, name) for name in ("cold", "warm")
        ]  # in this order: the second finds what the first has cached
        images = link_splits(options.data, folder)
        measured = {}
        for peer in AT_ONCE:
            reason = missing(peer, options)
            if reason:
                report["missing"].append(reason)
                print(f"left out: {reason}", flush=True)
            else:
                measured[peer] = measure_peer(peer, images, options)
        report["rows"] = [
            *(scaled_row(peer, result, options) for peer, result in measured.items()),
            *(measured_row(name, s) for name, s in zip(("cold", "warm"), searches, strict=True)),
        ]
        report["ratios"] = ratios(report["rows"])
        report["pawtune"] = [
            {"command": s.command, "kinds": s.kinds(), "val_accuracies": s.accuracies()}
            for s in searches
        ]
        report["peers"] = measured
        complete = all(s.kinds() == {"bank": options.trials} for s in searches)
    print_table(report["rows"])
    for name, ratio in report["ratios"].items():
        print(f"{name}: {ratio} times faster")
    print(f"all pawtune trials finished, none of them live: {complete}")
    write_report(options.out, report)
    return 0 if complete else 1


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="as `pawtune run` takes it")
    parser.add_argument("--weights", type=Path, required=True, help="MobileNetV2 without its top")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--peer-epochs", default="1,3", help="what the peers are scaled from")
    parser.add_argument("--peers", default="ray-tune,keras-tuner", help="'' for none")
    parser.add_argument(
        "--keras-tuner-python", default=sys.executable, help="a Python that has keras_tuner"
    )
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    return parser.parse_args()


def search(options: argparse.Namespace, folder: Path, name: str) -> Search:
    """The search by the real command, told as it ends."""
    arguments = [
        *("--data", options.data, "--weights", str(options.weights), "--families", "transfer"),
        *("--image-size", str(options.image_size), "--trials", str(options.trials)),
        *("--epochs", str(options.epochs), "--no-baselines", "--set", "scheduler.name=none"),
    ]
    done = run_pawtune(arguments, folder / "runs", name, folder / "cache")
    print(f"pawtune, {name}: {done.seconds:.1f} s", flush=True)
    return done


def link_splits(data: str, folder: Path) -> Path:
    """The photos as the peers read them: links in train/<class>/ and validation/<class>/."""
    cache = folder / "peers-cache"
    manifest = build_manifest(resolve_source(data, cache=cache), cache=cache)
    images = folder / "images"
    for split in ("train", "validation"):
        for number, entry in enumerate(manifest.split(split)):
            target = Path(manifest.root) / entry.path
            link = images / split / entry.label / f"{number:06d}{target.suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target.resolve())
    return images


def missing(peer: str, options: argparse.Namespace) -> str | None:
    """Why a peer cannot be measured."""
    if peer not in options.peers.split(","):
        return f"{peer}: not in --peers"
    if peer == "ray-tune":
        return None
    probe = "import importlib.util as u, sys; sys.exit(u.find_spec('keras_tuner') is None)"
    if subprocess.run([options.keras_tuner_python, "-c", probe]).returncode:
        return f"{peer}: {options.keras_tuner_python} has no keras_tuner (pip install '.[bench]')"
    return None


def measure_peer(peer: str, images: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What `peers.py` says: by number of epochs, seconds and accuracies of two trials."""
    python = options.keras_tuner_python if peer == "keras-tuner" else sys.executable
    command = [
        *(python, str(PEERS), peer, "--images", str(images)),
        *("--image-size", str(options.image_size), "--epochs", options.peer_epochs),
        *(("--weights", str(options.weights)) if options.weights else ()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{peer}: {result}", flush=True)
    return result


def scaled_row(peer: str, result: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Start-up and slope from two numbers of epochs, and the search that they make."""
    few, many = sorted(int(epochs) for epochs in result)
    # Two trials were run: together, or one after the other.
    turns = 2 / AT_ONCE[peer]
    times = {epochs: result[str(epochs)]["seconds"] / turns for epochs in (few, many)}
    slope = (times[many] - times[few]) / (many - few)
    startup = times[few] - few * slope
    seconds = options.trials / AT_ONCE[peer] * (startup + options.epochs * slope)
    accuracies = result[str(many)]["val_accuracies"]
    return {
        "contender": peer,
        "seconds": round(seconds),
        "how": f"scaled from 2 trials x {few} and {many} epochs",
        "start-up s": round(startup, 2),
        "s/epoch": round(slope, 2),
        "first epoch s": "",
        "val_accuracy best (mean)": f"{max(accuracies):.4f} ({mean(accuracies):.4f}), {many} ep.",
    }


def measured_row(name: str, done: Search) -> dict[str, Any]:
    """A search of pawtune's, as measured."""
    accuracies = done.accuracies()
    epochs = [row["seconds"] for trial in done.run.trials() for row in trial.read_metrics()]
    return {
        "contender": f"pawtune, {name}",
        "seconds": round(done.seconds, 1),
        "how": f"measured, {len(accuracies)} trials",
        "start-up s": "",
        "s/epoch": round(mean(epochs), 3),
        "first epoch s": round(done.first_epoch_s, 1),
        "val_accuracy best (mean)": f"{max(accuracies):.4f} ({mean(accuracies):.4f})",
    }


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """How many times a peer's seconds each search of pawtune's would fit into."""
    seconds = {row["contender"]: row["seconds"] for row in rows}
    return {
        f"pawtune, {name}, than {peer}": round(seconds[peer] / seconds[f"pawtune, {name}"], 1)
        for name in ("cold", "warm")
        for peer in AT_ONCE
        if peer in seconds
    }


if __name__ == "__main__":
    raise SystemExit(main())
