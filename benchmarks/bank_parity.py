"""Do heads trained from the feature bank reach what heads trained live reach?

    python benchmarks/bank_parity.py --data cats_and_dogs_filtered.zip \
        --weights mobilenet_v2_1.0_224_no_top.h5 --live-cache live.json --out parity.json

Live: every epoch, Keras' own `RandomFlip` and `RandomRotation` make a fresh view of every
training image, and the backbone runs in float32 (its batch norms folded, equal to 1e-6, which
halves the time). With `--live fast`, numpy draws the flips and angles, and views are rendered and
encoded as the bank's are: the difference is then the reuse of views alone.
Bank: views drawn from one bank, made in the precision that a search would use.
Everything else is the same: heads, optimizer, seeds, order, validation features (float32).

A setting passes where |bank - live| ≤ 0.01 in validation accuracy (mean of the last five epochs,
mean over the seeds), and where the angles of each of its epochs are within a Kolmogorov-Smirnov
distance of 0.05 of Keras' uniform (for 2,000 images; of fewer, the distance is scaled).

2,000 images on one core: the bank takes about 80 s, a live run of 20 epochs 4 minutes (fast: 100
s). Live runs are kept in --live-cache and not repeated. Short:
`--settings horizontal:0.2 --seeds 1 --epochs 5 --images 400`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pawtune.data_pipeline.cache import cache_dir
from pawtune.data_pipeline.images.decode import decode_split
from pawtune.data_pipeline.sources.resolve import resolve_source
from pawtune.data_pipeline.splitting.build import build_manifest
from pawtune.models.augmentation import augmentation_layers
from pawtune.models.backbones.backbone_weights import find_weights
from pawtune.models.backbones.batch_norm_folding import fold_backbone
from pawtune.models.backbones.frozen_backbone import load_backbone, preprocess
from pawtune.models.families.transfer import TransferSpec, build_head
from pawtune.models.features.augmented_views import (
    DEFAULT_NUM_VIEWS,
    TURN,
    ViewSampler,
    ViewTable,
    make_view_table,
    median_effective_views,
)
from pawtune.models.features.feature_bank import FeatureBank
from pawtune.models.features.view_encoder import ViewEncoder
from pawtune.models.model_spec import Flip, TrainSpec
from pawtune.models.precision import limit_threads, resolve_precision
from pawtune.models.training.head_training import train_head

SETTINGS = (
    "horizontal:0.2,horizontal_and_vertical:0.9,none:0.05,none:0.5,horizontal:0.05,horizontal:0"
)
ALLOWED_DIFFERENCE = 0.01
ALLOWED_DISTANCE = 0.05
KS_IMAGES = 2000
LAST_EPOCHS = 5
POOLINGS = ("average", "max")

Features = dict[str, NDArray[np.floating]]


@dataclass(frozen=True)
class Problem:
    """Decoded images, the backbone, and what identifies a live run of them."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    val_images: NDArray[np.uint8]
    val_labels: NDArray[np.int32]
    backbone: keras.Model
    name: str
    identity: str


def main() -> int:
    """Compare, print, write; 1 where a setting fails."""
    options = parse_options()
    limit_threads(options.threads)
    problem = load_problem(options)
    policy = (
        resolve_precision("auto", has_gpu=False) if options.policy == "auto" else options.policy
    )

    start = time.perf_counter()
    encoder = ViewEncoder(problem.backbone, problem.name, policy)
    table = make_view_table(len(problem.images), options.views, seed=0)
    shard = encoder.encode(problem.images, table)
    bank = FeatureBank(shard.average, shard.maximum, table)
    bank_seconds = time.perf_counter() - start
    print(
        f"bank: {table.num_images} images x {table.num_views} views in {policy}, "
        f"{bank_seconds:.0f} s, {1000 * bank_seconds / table.angles.size:.2f} ms a view",
        flush=True,
    )
    validation = validation_features(problem)
    rows = []
    for flip, factor in options.settings:
        curves: dict[str, dict[str, list[list[float]]]] = {"live": {}, "bank": {}}
        distances = []
        for seed in range(options.seeds):
            live = live_curves(problem, encoder, validation, flip, factor, seed, options)
            sampler = ViewSampler(table, flip, factor, seed)
            for pooling in POOLINGS:
                features = bank.features(pooling)
                served = train(
                    lambda epoch, s=sampler, f=features: s.features_for_epoch(f, epoch),
                    problem, validation, pooling, seed, options,
                )  # fmt: skip
                curves["bank"].setdefault(pooling, []).append(served)
                curves["live"].setdefault(pooling, []).append(live[pooling])
            distances += [
                ks_distance(table.angles, sampler.views_for_epoch(epoch), flip, factor)
                for epoch in range(1, options.epochs + 1)
            ]
        for pooling in POOLINGS:
            # Random angles differ more from uniform the fewer they are.
            distance = max(distances) * min(1, np.sqrt(table.num_images / KS_IMAGES))
            row = summarise(flip, factor, pooling, curves, options.views, float(distance))
            rows.append(row)
            print_row(row, header=len(rows) == 1)
    report = {
        "command": " ".join(sys.argv),
        "policy": policy,
        "bank_seconds": round(bank_seconds, 1),
        "options": {k: v for k, v in vars(options).items() if not isinstance(v, Path)},
        "rows": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if all(row["passes"] for row in rows) else 1


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder or archive of images")
    parser.add_argument("--weights", type=Path, help="backbone weights without the top")
    parser.add_argument("--backbone", default="MobileNetV2")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--settings", type=parse_settings, default=SETTINGS)
    parser.add_argument("--views", type=int, default=DEFAULT_NUM_VIEWS)
    parser.add_argument("--policy", default="auto", help="of the bank; auto as in a search")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--images", type=int, help="train on the first so many only")
    parser.add_argument("--dense-width", type=int, default=0)
    parser.add_argument("--live", choices=("keras", "fast"), default="keras")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--live-cache", type=Path, help="JSON file of live runs, read and added to")
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    return parser.parse_args()


def parse_settings(text: str) -> list[tuple[Flip, float]]:
    """`flip:factor,flip:factor`."""
    pairs = [item.split(":") for item in text.split(",")]
    return [(flip, float(factor)) for flip, factor in pairs]  # type: ignore[misc]


def load_problem(options: argparse.Namespace) -> Problem:
    """Decode the training and validation images and load the backbone."""
    cache = cache_dir()
    root = resolve_source(options.data, cache=cache)
    manifest = build_manifest(root, cache=cache)
    size = options.image_size
    train, validation = manifest.split("train"), manifest.split("validation")
    labels = manifest.labels("train")
    if options.images:
        train, labels = train[: options.images], labels[: options.images]
    weights = find_weights(options.backbone, size, options.weights)
    return Problem(
        images=decode_split(root, train, size),
        labels=labels,
        val_images=decode_split(root, validation, size),
        val_labels=manifest.labels("validation"),
        backbone=load_backbone(options.backbone, size, weights),
        name=options.backbone,
        identity=f"{manifest.fingerprint[:16]} {len(train)} {options.backbone} {size}px "
        f"{options.epochs} epochs, dense {options.dense_width}",
    )


def validation_features(problem: Problem) -> Features:
    """Float32 features of the plain validation images, under both poolings."""
    table = make_view_table(len(problem.val_images), num_views=1)
    shard = ViewEncoder(problem.backbone, problem.name, "float32").encode(problem.val_images, table)
    return {"average": shard.average[:, 0], "max": shard.maximum[:, 0]}


def live_curves(
    problem: Problem,
    encoder: ViewEncoder,
    validation: Features,
    flip: Flip,
    factor: float,
    seed: int,
    options: argparse.Namespace,
) -> dict[str, list[float]]:
    """Validation accuracy by epoch of heads trained live, from the cache where it knows them."""
    key = f"{problem.identity}: {flip} {factor} seed {seed}, {options.live}"
    known: dict[str, dict[str, list[float]]] = {}
    if options.live_cache and options.live_cache.exists():
        known = json.loads(options.live_cache.read_text())
    if key not in known:
        start = time.perf_counter()
        if options.live == "fast":
            epochs = fast_live_epochs(problem, encoder, flip, factor, seed, options.epochs)
        else:
            epochs = live_epochs(problem, flip, factor, seed, options.epochs)
        known[key] = {
            pooling: train(
                lambda epoch, p=pooling: epochs[epoch - 1][p],
                problem, validation, pooling, seed, options,
            )
            for pooling in POOLINGS
        }  # fmt: skip
        print(f"live: {key} in {time.perf_counter() - start:.0f} s", flush=True)
        if options.live_cache:
            options.live_cache.write_text(json.dumps(known, indent=1) + "\n")
    return known[key]


def live_epochs(
    problem: Problem, flip: Flip, factor: float, seed: int, epochs: int
) -> list[Features]:
    """Features of each epoch's fresh views, drawn and rendered by Keras' own layers."""
    inputs = keras.Input(problem.images.shape[1:])
    x = inputs
    for layer in augmentation_layers(TransferSpec(flip=flip, rotation_factor=factor), seed):
        x = layer(x, training=True)
    maps = fold_backbone(problem.backbone)(preprocess(problem.name, x), training=False)
    average = keras.layers.GlobalAveragePooling2D()(maps)
    maximum = keras.layers.GlobalMaxPooling2D()(maps)
    extract = tf.function(keras.Model(inputs, [average, maximum]))

    def epoch_features() -> Features:
        starts = range(0, len(problem.images), 16)
        parts = [extract(problem.images[start : start + 16]) for start in starts]
        pooled = (np.concatenate([np.asarray(p[k], np.float16) for p in parts]) for k in (0, 1))
        return dict(zip(POOLINGS, pooled, strict=True))

    return [epoch_features() for _ in range(epochs)]


def fast_live_epochs(
    problem: Problem, encoder: ViewEncoder, flip: Flip, factor: float, seed: int, epochs: int
) -> list[Features]:
    """Features of each epoch's fresh views, rendered and encoded as those of the bank."""
    rng = np.random.default_rng((seed, 100))
    features = []
    for _ in range(epochs):
        coins = rng.random(len(problem.images)) < 0.5
        angles = TURN * rng.uniform(-factor, factor, len(problem.images))
        pixels = problem.images
        if flip == "horizontal":
            pixels = np.where(coins[:, None, None, None], pixels[:, :, ::-1], pixels)
        elif flip == "horizontal_and_vertical":  # Keras' one coin for both axes: half a turn
            angles += np.pi * coins
        shard = encoder.encode(pixels, ViewTable(angles[:, None].astype(np.float32), ()))
        features.append({"average": shard.average[:, 0], "max": shard.maximum[:, 0]})
    return features


def train(
    features: Callable[[int], NDArray[np.floating]],
    problem: Problem,
    validation: Features,
    pooling: str,
    seed: int,
    options: argparse.Namespace,
) -> list[float]:
    """Validation accuracy of a head after each epoch."""
    spec = TransferSpec(pooling=pooling, dense_width=options.dense_width)  # type: ignore[arg-type]
    width = validation[pooling].shape[1]
    head = build_head(spec, int(problem.labels.max()) + 1, width, seed=seed)
    results = train_head(
        head,
        features,
        problem.labels,
        validation[pooling],
        problem.val_labels,
        TrainSpec(epochs=options.epochs, seed=seed),
    )
    return [result.metrics["val_accuracy"] for result in results]


def ks_distance(
    angles: NDArray[np.float32], views: NDArray[np.int64], flip: Flip, factor: float
) -> float:
    """Kolmogorov-Smirnov distance of an epoch's angles to Keras' (two flips: half a turn)."""
    if factor == 0:
        return 0.0
    seen = np.sort(angles[np.arange(len(angles)), views].astype(float))
    target = np.linspace(-factor, factor, 100_001) * TURN
    if flip == "horizontal_and_vertical":
        target = np.concatenate([target, target + np.pi])
    target = np.sort((target + np.pi) % TURN - np.pi)
    expected = np.searchsorted(target, seen, side="right") / len(target)
    steps = np.arange(len(seen) + 1) / len(seen)
    return float(max((steps[1:] - expected).max(), (expected - steps[:-1]).max()))


def summarise(
    flip: Flip,
    factor: float,
    pooling: str,
    curves: dict[str, dict[str, list[list[float]]]],
    views: int,
    distance: float,
) -> dict[str, Any]:
    """One line of the table."""
    accuracy = {
        side: np.array([np.mean(curve[-LAST_EPOCHS:]) for curve in curves[side][pooling]])
        for side in ("live", "bank")
    }
    difference = float(accuracy["bank"].mean() - accuracy["live"].mean())
    return {
        "flip": flip,
        "rotation_factor": factor,
        "pooling": pooling,
        "effective_views": round(median_effective_views(flip, factor, views), 1),
        "live": round(float(accuracy["live"].mean()), 4),
        "bank": round(float(accuracy["bank"].mean()), 4),
        "difference": round(difference, 4),
        "live_seeds": accuracy["live"].round(4).tolist(),
        "bank_seeds": accuracy["bank"].round(4).tolist(),
        "best_live": round(float(np.mean([max(c) for c in curves["live"][pooling]])), 4),
        "best_bank": round(float(np.mean([max(c) for c in curves["bank"][pooling]])), 4),
        "ks_distance": round(distance, 3),
        "passes": abs(difference) <= ALLOWED_DIFFERENCE and distance < ALLOWED_DISTANCE,
    }


def print_row(row: dict[str, Any], header: bool) -> None:
    """The table grows as settings finish."""
    columns = (
        "flip", "rotation_factor", "pooling", "effective_views", "live", "bank", "difference",
        "best_live", "best_bank", "ks_distance", "passes",
    )  # fmt: skip
    widths = [max(len(name), 23 if name == "flip" else 7) for name in columns]
    if header:
        print("  ".join(name.ljust(width) for name, width in zip(columns, widths, strict=True)))
    values = (str(row[name]).ljust(width) for name, width in zip(columns, widths, strict=True))
    print("  ".join(values), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
