"""What a view of the feature bank costs, by variant; all in one run, on random pixels.

    python benchmarks/bank_speed.py --weights mobilenet_v2_1.0_224_no_top.h5 --out speed.json

Needs trained weights: under random ones activations fade to denormal numbers, on which a CPU is
several times slower. Prints milliseconds a view: of CPU time (little moved by other programs) and
of wall time. The first rows are Keras' own layers; the last compare one process of several
threads with as many processes of one thread, which run at the same time. Takes about two minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from pawtune.models.backbones.backbone_weights import find_weights
from pawtune.models.backbones.batch_norm_folding import fold_backbone
from pawtune.models.backbones.frozen_backbone import load_backbone, preprocess
from pawtune.models.features.augmented_views import DEFAULT_NUM_VIEWS, make_view_table
from pawtune.models.features.view_encoder import ViewEncoder
from pawtune.models.features.view_rendering import render_views
from pawtune.models.features.view_transforms import view_transforms
from pawtune.models.precision import limit_threads, precision

# Keeps every process busy for some seconds, so that all of them overlap.
PARALLEL_IMAGES = 120


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, help="backbone weights without the top")
    parser.add_argument("--backbone", default="MobileNetV2")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--cpus", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)  # threads of a child
    options = parser.parse_args()
    options.weights = find_weights(options.backbone, options.image_size, options.weights)
    if options.process:
        limit_threads(options.process)
        print(json.dumps(encode_in_process(options)))
        return
    limit_threads(1)
    rows = [
        {"variant": name, **measure(run, options.images * DEFAULT_NUM_VIEWS)}
        for name, run in variants(options)
    ]
    rows += parallel_rows(options)
    print(f"{'variant':62}  cpu ms/view  wall ms/view")
    for row in rows:
        print(f"{row['variant']:62}  {row['cpu_ms']:11.2f}  {row['wall_ms']:12.2f}")
    if options.out:
        report = {"command": " ".join(sys.argv), "rows": rows}
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def measure(run: Callable[[], object], views: int, repeats: int = 3) -> dict[str, float]:
    """The least of some repetitions, after one to warm up."""
    run()
    times = []
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        run()
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    cpu_ms, wall_ms = (1000 * min(column) / views for column in zip(*times, strict=True))
    return {"cpu_ms": round(cpu_ms, 3), "wall_ms": round(wall_ms, 3)}


def variants(options: argparse.Namespace) -> list[tuple[str, Callable[[], object]]]:
    """Names and functions that each make all views of all images."""
    size, count = options.image_size, options.images
    images = random_images(count, size)
    table = make_view_table(count)
    transforms = view_transforms(table.angles, table.mirrored, size)
    backbones = {}
    for policy in ("float32", "mixed_bfloat16"):
        with precision(policy):
            backbones[policy] = load_backbone(options.backbone, size, options.weights)
    backbone = backbones["float32"]

    def keras_way(augment: bool, model: keras.Model | None) -> Callable[[], object]:
        inputs = keras.Input((size, size, 3))
        x: Any = inputs
        if augment:
            x = keras.layers.RandomFlip("horizontal", dtype="float32")(x, training=True)
            x = keras.layers.RandomRotation(0.2, dtype="float32")(x, training=True)
        if model is not None:
            maps = model(preprocess(options.backbone, x), training=False)
            pools = (keras.layers.GlobalAveragePooling2D(), keras.layers.GlobalMaxPooling2D())
            x = [pool(maps) for pool in pools]
        call = tf.function(keras.Model(inputs, x))
        batch = tf.constant(np.repeat(images[:1], 16, axis=0), tf.float32)
        batches = round(count * table.num_views / 16)
        return lambda: [call(batch) for _ in range(batches)]

    def render(compiled: bool) -> Callable[[], object]:
        call = tf.function(render_views, jit_compile=compiled)
        return lambda: [call(images[i : i + 1], transforms[i : i + 1]) for i in range(count)]

    def encode(policy: str) -> Callable[[], object]:
        encoder = ViewEncoder(backbone, options.backbone, policy)
        return lambda: encoder.encode(images, table)

    return [
        ("Keras: flip and rotation", keras_way(True, None)),
        ("Keras: backbone, float32", keras_way(False, backbone)),
        ("Keras: backbone, mixed_bfloat16", keras_way(False, backbones["mixed_bfloat16"])),
        ("Keras: all, float32", keras_way(True, backbone)),
        ("rendering, operation by operation", render(False)),
        ("rendering, compiled", render(True)),
        ("folded backbone, float32", keras_way(False, fold_backbone(backbone))),
        (
            "folded backbone, mixed_bfloat16",
            keras_way(False, fold_backbone(backbone, "mixed_bfloat16")),
        ),
        ("bank: all, float32", encode("float32")),
        ("bank: all, mixed_bfloat16", encode("mixed_bfloat16")),
    ]


def random_images(count: int, size: int) -> np.ndarray:
    """(count, size, size, 3) uint8; what a view costs does not depend on what it shows."""
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


def encode_in_process(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of CPU and wall time for the views of some images, in this process."""
    backbone = load_backbone(options.backbone, options.image_size, options.weights)
    encoder = ViewEncoder(backbone, options.backbone, "mixed_bfloat16")
    table = make_view_table(PARALLEL_IMAGES)
    images = random_images(PARALLEL_IMAGES, options.image_size)
    encoder.encode(images[:1], table.rows(0, 1))
    cpu, wall = time.process_time(), time.perf_counter()
    encoder.encode(images, table)
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def parallel_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One process of all threads against a process of one thread on each CPU."""
    rows = []
    for processes, threads in ((1, options.cpus), (options.cpus, 1)):
        command = [
            sys.executable, __file__, "--backbone", options.backbone,
            "--weights", str(options.weights), "--image-size", str(options.image_size),
            "--process", str(threads),
        ]  # fmt: skip
        children = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)
        ]
        outputs = [json.loads(child.communicate()[0].splitlines()[-1]) for child in children]
        views = PARALLEL_IMAGES * DEFAULT_NUM_VIEWS * processes
        rows.append(
            {
                "variant": f"bank, mixed_bfloat16: {processes} process(es) of {threads} thread(s)",
                "cpu_ms": round(1000 * sum(item["cpu"] for item in outputs) / views, 3),
                "wall_ms": round(1000 * max(item["wall"] for item in outputs) / views, 3),
            }
        )
    return rows


if __name__ == "__main__":
    main()
