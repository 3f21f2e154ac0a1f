"""The peers of `peers.py` on pawtune's images, and the search that two trials of theirs make.

Two trials of 1 and of 3 epochs give start-up and seconds an epoch; the search takes

    trials / trials at once x (start-up + epochs x seconds an epoch)

Python's start and imports are not counted for them, in their favour. Ray Tune runs two trials at
once in fresh processes, KerasTuner one at a time in one process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from measuring import Search, environment
from peers import CONCURRENCY

from pawtune.data_pipeline.sources.resolve import resolve_source
from pawtune.data_pipeline.splitting.build import build_manifest

PEERS = Path(__file__).with_name("peers.py")
AT_ONCE = {"ray-tune": CONCURRENCY, "keras-tuner": 1}


def add_peer_options(parser: argparse.ArgumentParser) -> None:
    """What the command line says of the peers."""
    parser.add_argument("--peer-epochs", default="1,3", help="what the peers are scaled from")
    parser.add_argument("--peers", default="ray-tune,keras-tuner", help="'' for none")
    parser.add_argument(
        "--keras-tuner-python", default=sys.executable, help="a Python that has keras_tuner"
    )


def link_splits(
    data: str, folder: Path, splits: Sequence[str] = ("train", "validation"), seed: int = 0
) -> Path:
    """The photos as every contender reads them: links in <split>/<class>/."""
    cache = folder / "peers-cache"
    manifest = build_manifest(resolve_source(data, cache=cache), seed=seed, cache=cache)
    images = folder / "images"
    for split in splits:
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
