"""Training of convolutional nets: pawtune's against plain float32 Keras, at equal threads.

    python benchmarks/conv_nets.py --threads 1 --out conv_nets.json
    python benchmarks/conv_nets.py --threads 1 --data cats_and_dogs_filtered.zip \
        --accuracy-epochs 8 --out conv_accuracy.json

Three contenders train the same net on the same images, from the same spec: Keras' `fit` on tf.data
from the array, with Keras' own RandomFlip and RandomRotation, as its tutorials do (`peers.py`);
`live_training.train_live` in the precision that `auto` finds here; and the same in float32.
They take turns, an epoch each, in one process, so that other programs disturb all alike; the first
round, which compiles, is told apart. The ratio is that of the median seconds of an epoch.
Validation is not counted. Images are random unless --data is given: speed does not depend on them.

With --accuracy-epochs the same contenders train on all images of --data at --accuracy-size px,
with --seeds seeds: mean validation accuracy of the last epochs, and its standard error.

Takes 2 to 3 minutes on a core with AMX; the accuracies 3 to 4 minutes on top.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from measuring import machine, print_table, write_report
from peers import conv_model

from pawtune.data_pipeline.cache import cache_dir
from pawtune.data_pipeline.images.decode import decode_split
from pawtune.data_pipeline.sources.resolve import resolve_source
from pawtune.data_pipeline.splitting.build import build_manifest
from pawtune.models.baselines import BASELINES
from pawtune.models.build import build_network
from pawtune.models.families.conv import CONV, ConvSpec
from pawtune.models.model_spec import Precision, TrainSpec
from pawtune.models.precision import has_gpu, limit_threads, precision, resolve_precision
from pawtune.models.training.live_training import train_live

NETS: dict[str, ConvSpec] = {
    "tutorial_3": BASELINES["tutorial_3"].model,  # type: ignore[dict-item]
    "batch_norm": ConvSpec(filters=(32, 32, 64), batch_norm=True, dense_width=128),
}
LAST_EPOCHS = 3


class Problem:
    """Images and labels of both splits.

    Attributes:
        train: (N, S, S, 3) uint8, (N,) int32.
        validation: The same of the validation images.
    """

    def __init__(self, data: str | None, image_size: int, count: int | None) -> None:
        if data is None:
            rng = np.random.default_rng(0)
            shape = (count or 640, image_size, image_size, 3)
            images = rng.integers(0, 256, shape, dtype=np.uint8)
            labels = rng.integers(0, 2, len(images)).astype(np.int32)
            self.train, self.validation = (images, labels), (images[:32], labels[:32])
            self.num_classes = 2
            return
        root = resolve_source(data, cache=cache_dir())
        manifest = build_manifest(root, cache=cache_dir())
        self.num_classes = len(manifest.class_names)
        splits = []
        for split in ("train", "validation"):
            entries, labels = manifest.split(split), manifest.labels(split)
            chosen = np.random.default_rng(0).permutation(len(entries))[:count]
            images = decode_split(root, [entries[index] for index in chosen], image_size)
            splits.append((images, labels[chosen]))
        self.train, self.validation = splits


# One step of a contender: trains an epoch; seconds of training, and validation accuracy if asked.
Epochs = Iterator[tuple[float, float]]
Contender = Callable[[ConvSpec, Problem, int, int], Epochs]


def keras_epochs(spec: ConvSpec, problem: Problem, seed: int, epochs: int) -> Epochs:
    """Plain Keras: float32, tf.data from the array, one `fit` an epoch."""
    keras.utils.set_random_seed(seed)
    train = TrainSpec()
    images, labels = problem.train
    with precision("float32"):
        model = conv_model(
            image_size=spec.image_size,
            num_classes=problem.num_classes,
            filters=spec.filters,
            dense_width=spec.dense_width,
            batch_norm=spec.batch_norm,
            dropout=spec.dropout,
            flip=spec.flip,
            rotation_factor=spec.rotation_factor,
            learning_rate=train.learning_rate,
        )
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images))
    batches = batches.batch(train.batch_size).prefetch(tf.data.AUTOTUNE)
    for _ in range(epochs):
        start = time.perf_counter()
        model.fit(batches, shuffle=False, verbose=0)
        seconds = time.perf_counter() - start
        logits = model.predict(problem.validation[0], batch_size=64, verbose=0)
        yield seconds, float((logits.argmax(axis=1) == problem.validation[1]).mean())


def our_epochs(wanted: Precision) -> Contender:
    """Our training loop in a precision."""

    def run(spec: ConvSpec, problem: Problem, seed: int, epochs: int) -> Epochs:
        train = TrainSpec(seed=seed, epochs=epochs, precision=wanted)
        policy = resolve_precision(wanted, has_gpu=has_gpu())
        with precision(policy):
            core = CONV.build_core(spec, problem.num_classes, {}, seed=seed)
            network = build_network(spec, core, seed=seed)
            results = train_live(network, *problem.train, *problem.validation, train)
        while True:
            # The policy holds for what is built, also late, in the first epoch.
            with precision(policy):
                result = next(results, None)
            if result is None:
                return
            seconds = len(problem.train[0]) / result.metrics["images_per_second"]
            yield seconds, result.metrics["val_accuracy"]

    return run


CONTENDERS: dict[str, Contender] = {
    "keras float32": keras_epochs,
    "pawtune auto": our_epochs("auto"),
    "pawtune float32": our_epochs("float32"),
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--threads", type=int, default=1, help="of TensorFlow, for all alike")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--images", type=int, default=640, help="training images of a round")
    parser.add_argument("--rounds", type=int, default=5, help="counted epochs of each contender")
    parser.add_argument("--data", help="as `pawtune run` takes it; default: random images")
    parser.add_argument("--accuracy-epochs", type=int, default=0, help="0: speed alone")
    parser.add_argument("--accuracy-size", type=int, default=64, help="image side in pixels")
    parser.add_argument("--accuracy-images", type=int, help="default: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    options = parser.parse_args()
    if options.accuracy_epochs and not options.data:
        parser.error("--accuracy-epochs needs --data: random images have nothing to learn")
    limit_threads(options.threads)
    report: dict[str, Any] = {"machine": machine(), "threads": options.threads}
    names = options.nets.split(",")
    problem = Problem(options.data, options.image_size, options.images)
    report["speed"] = [row for name in names for row in speed_rows(name, problem, options)]
    print_table(report["speed"])
    if options.accuracy_epochs:
        problem = Problem(options.data, options.accuracy_size, options.accuracy_images)
        report["accuracy"] = [
            row for name in names for row in accuracy_rows(name, problem, options)
        ]
        print_table(report["accuracy"])
    write_report(options.out, report)


def speed_rows(name: str, problem: Problem, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Contenders in turns, an epoch each; medians of all rounds but the first."""
    spec = NETS[name].model_copy(update={"image_size": options.image_size})
    running = {
        contender: start(spec, problem, 0, options.rounds + 1)
        for contender, start in CONTENDERS.items()
    }
    seconds: dict[str, list[float]] = {contender: [] for contender in running}
    for number in range(options.rounds + 1):
        # Each is first in turn: what comes after a pause may find a cooler, faster processor.
        order = list(running)[number % len(running) :] + list(running)[: number % len(running)]
        for contender in order:
            seconds[contender].append(next(running[contender])[0])
    medians = {contender: median(times[1:]) for contender, times in seconds.items()}
    return [
        {
            "net": name,
            "contender": contender,
            "images/s": round(len(problem.train[0]) / medians[contender], 1),
            "s/epoch": round(medians[contender], 4),
            "min..max": f"{min(times[1:]):.3f}..{max(times[1:]):.3f}",
            "first epoch s": round(times[0], 2),
            "ratio to keras": round(medians["keras float32"] / medians[contender], 2),
        }
        for contender, times in seconds.items()
    ]


def accuracy_rows(name: str, problem: Problem, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every contender over the seeds: mean of the last epochs."""
    spec = NETS[name].model_copy(update={"image_size": options.accuracy_size})
    rows = []
    for contender, start in CONTENDERS.items():
        by_seed = []
        for seed in range(options.seeds):
            curve = [
                accuracy for _, accuracy in start(spec, problem, seed, options.accuracy_epochs)
            ]
            by_seed.append(mean(curve[-LAST_EPOCHS:]))
            keras.utils.clear_session(free_memory=False)
        error = stdev(by_seed) / len(by_seed) ** 0.5 if len(by_seed) > 1 else float("nan")
        rows.append(
            {
                "net": name,
                "contender": contender,
                "val_accuracy": round(mean(by_seed), 4),
                "standard error": round(error, 4),
                "by seed": " ".join(f"{accuracy:.4f}" for accuracy in by_seed),
                "epochs": options.accuracy_epochs,
            }
        )
    return rows


if __name__ == "__main__":
    main()
