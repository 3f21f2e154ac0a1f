"""What an expert writes by hand to train a net from scratch: one net, the recipe of today.

    python benchmarks/modern_recipe.py FOLDER --image-size 96 --epochs 36

Four blocks with batch norm and a global average in plain Keras; mirror, shifts and brightness;
AdamW with warm-up and a cosine, label smoothing; `fit` on arrays in memory. Nothing here is
pawtune's. Prints a line of JSON for each epoch, and one with the test accuracy of the best.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

BATCH = 32


def main() -> None:
    """Read, train, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="with train, validation and test")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=36)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256])
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    splits = {name: read(options.folder / name, options.image_size) for name in SPLITS}
    images, labels = splits["train"]
    classes = int(labels.max()) + 1
    net = build(options.image_size, options.widths, classes)
    steps = options.epochs * -(-len(images) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - steps // 20, warmup_target=2e-3, warmup_steps=steps // 20
    )
    net.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.02),
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        metrics=["accuracy"],
    )
    best: tuple[float, float] = (0.0, float("nan"))

    def show(epoch: int, logs: dict[str, float]) -> None:
        nonlocal best
        if logs["val_accuracy"] > best[0]:
            test_images, test_labels = splits["test"]
            guesses = net.predict(test_images, verbose=0).argmax(axis=1)
            best = (logs["val_accuracy"], float((guesses == test_labels).mean()))
        print(json.dumps({"epoch": epoch + 1, "validation": logs["val_accuracy"]}), flush=True)

    val_images, val_labels = splits["validation"]
    net.fit(
        images,
        np.eye(classes)[labels],
        batch_size=BATCH,
        epochs=options.epochs,
        validation_data=(val_images, np.eye(classes)[val_labels]),
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=show)],
        verbose=0,
    )
    print(json.dumps({"validation": best[0], "test": best[1]}), flush=True)


SPLITS = ("train", "validation", "test")


def read(folder: Path, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, S, S, 3) uint8 and (N,) class indices."""
    dataset = keras.utils.image_dataset_from_directory(
        folder, shuffle=False, image_size=(image_size, image_size), verbose=False
    )
    batches = [(images.numpy().astype("uint8"), found.numpy()) for images, found in dataset]
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def build(image_size: int, widths: list[int], classes: int) -> keras.Model:
    """(N, S, S, 3) pixels 0..255 → (N, C) logits, augmented in training."""
    layers = keras.layers
    inputs = keras.Input((image_size, image_size, 3))
    x = layers.RandomFlip("horizontal")(inputs)
    x = layers.RandomTranslation(0.1, 0.1)(x)
    x = layers.RandomBrightness(0.2)(x)
    x = layers.Rescaling(1 / 127.5, -1.0)(x)
    for width in widths:
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.MaxPooling2D()(x)
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(classes)(x))


if __name__ == "__main__":
    main()
