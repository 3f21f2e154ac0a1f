"""Batch norm's averages: followed with Keras' momentum of 0.99, or measured at an epoch's end.

    python benchmarks/batch_norm_averages.py --data cats_and_dogs_filtered.zip

The same net is trained twice from the same seed and in the same order, once with Keras' layer and
once with pawtune's, which sets its averages at the end of each epoch. In training both normalize
by the batch, so their weights agree up to rounding: what differs is how an epoch is scored.

Takes about 3 minutes on a core.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from conv_nets import Problem
from measuring import machine, print_table, write_report

from pawtune.models.augmentation import augmentation_layers
from pawtune.models.build import Network
from pawtune.models.families.conv import CONV, ConvSpec
from pawtune.models.model_spec import TrainSpec
from pawtune.models.training.live_training import train_live


def scored_epochs(spec: ConvSpec, train: TrainSpec, problem: Problem, plain: bool) -> str:
    """Validation accuracy of each epoch."""
    core = CONV.build_core(spec, problem.num_classes, {}, seed=train.seed, plain=plain)
    pixels = keras.Input((spec.image_size, spec.image_size, 3))
    x = pixels
    for layer in augmentation_layers(spec, train.seed):
        x = layer(x)
    network = Network(keras.Model(pixels, core(x)), core, None)
    results = train_live(network, *problem.train, *problem.validation, train)
    return " ".join(f"{result.metrics['val_accuracy']:.3f}" for result in results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="photos; by default random images")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    spec = ConvSpec(
        image_size=options.image_size,
        filters=(32, 64, 128),
        batch_norm=True,
        padding="same",
        pooling="global_average",
        flip="horizontal",
    )
    problem = Problem(options.data, options.image_size, options.images)
    rows = []
    for batch_size in options.batch_sizes:
        train = TrainSpec(
            epochs=options.epochs, batch_size=batch_size, learning_rate=options.learning_rate
        )
        rows.append(
            {
                "batch": batch_size,
                "steps an epoch": -(-len(problem.train[0]) // batch_size),
                "momentum 0.99": scored_epochs(spec, train, problem, plain=True),
                "measured": scored_epochs(spec, train, problem, plain=False),
            }
        )
    print_table(rows)
    write_report(options.out, {"machine": machine(), "epochs": rows})


if __name__ == "__main__":
    main()
