"""What an expert writes by hand instead of using pawtune: features once, then logistic heads.

    python benchmarks/expert.py FOLDER WEIGHTS --image-size 160

Every image goes once through the frozen MobileNetV2, unaugmented; Optuna then proposes the pooling
and the regularisation of logistic regressions. Nothing here is pawtune's. Prints a line of JSON for
each head: its validation accuracy, and its test accuracy where FOLDER has test images.

Needs scikit-learn, see `time_to_accuracy.py`.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import optuna
import tensorflow as tf
from sklearn.linear_model import LogisticRegression

BATCH = 64


def encode(folder: Path, weights: str, image_size: int) -> dict[str, tuple[np.ndarray, ...]]:
    """By split: average and maximum of the last feature map, and labels."""
    backbone = keras.applications.MobileNetV2(
        include_top=False, weights=weights, input_shape=(image_size, image_size, 3)
    )

    @tf.function(reduce_retracing=True)
    def pooled(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        maps = backbone(images / 127.5 - 1, training=False)
        return tf.reduce_mean(maps, (1, 2)), tf.reduce_max(maps, (1, 2))

    encoded = {}
    for split in ("train", "validation", "test"):
        if (folder / split).is_dir():
            dataset = keras.utils.image_dataset_from_directory(
                folder / split,
                shuffle=False,
                batch_size=BATCH,
                image_size=(image_size, image_size),
                verbose=False,
            )
            batches = [(*pooled(images), labels) for images, labels in dataset.prefetch(2)]
            encoded[split] = tuple(
                np.concatenate([batch[part].numpy() for batch in batches]) for part in range(3)
            )
    return encoded


def main() -> None:
    """Encode, then fit head after head."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="train/, validation/ and perhaps test/")
    parser.add_argument("weights", help="MobileNetV2 without its top")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--heads", type=int, default=32)
    options = parser.parse_args()
    encoded = encode(options.folder, options.weights, options.image_size)
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: optuna.Trial) -> float:
        pooling = ("average", "maximum").index(
            trial.suggest_categorical("pooling", ["average", "maximum"])
        )
        inverse_penalty = trial.suggest_float("C", 1e-4, 10, log=True)
        features, labels = encoded["train"][pooling], encoded["train"][2]
        mean, deviation = features.mean(0), features.std(0) + 1e-6
        head = LogisticRegression(C=inverse_penalty, max_iter=200)
        head.fit((features - mean) / deviation, labels)

        def accuracy(split: str) -> float:
            predicted = head.predict((encoded[split][pooling] - mean) / deviation)
            return float((predicted == encoded[split][2]).mean())

        scores: dict[str, Any] = {split: accuracy(split) for split in encoded if split != "train"}
        print(json.dumps(scores), flush=True)
        return float(scores["validation"])

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=options.heads)


if __name__ == "__main__":
    main()
