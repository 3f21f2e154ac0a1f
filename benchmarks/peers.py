"""The same work as its users do it without pawtune: plain Keras, plain Ray Tune, KerasTuner.

Nothing here is pawtune's: each peer is written as its own examples are, and given what helps it
(prefetching, two trials at once, no checkpoints). Run as a script it measures one peer:

    python benchmarks/peers.py ray-tune --images FOLDER --weights FILE --epochs 1,3
    python benchmarks/peers.py ray-tune --images FOLDER --epochs 1,3

with a backbone's weights a search over heads, without them one over convolutional nets. FOLDER
holds train/<class>/ and validation/<class>/. Prints one line of JSON: for each number of epochs the
seconds that two trials took, and their validation accuracies.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

Point = dict[str, Any]

# Two points of a space that both peers are timed on: costs differ little between points.
HEADS: tuple[Point, Point] = (
    {
        "flip": "horizontal",
        "rotation_factor": 0.2,
        "learning_rate": 1e-3,
        "batch_size": 32,
        "optimizer": "adam",
        "pooling": "average",
        "dense_width": 0,
        "dropout": 0.2,
    },
    {
        "flip": "horizontal_and_vertical",
        "rotation_factor": 0.5,
        "learning_rate": 5e-4,
        "batch_size": 64,
        "optimizer": "adamw",
        "pooling": "max",
        "dense_width": 128,
        "dropout": 0.4,
    },
)
# The tutorial's third net; its space varies what does not change an epoch's cost.
NETS: tuple[Point, Point] = (
    {"flip": "horizontal_and_vertical", "rotation_factor": 0.9, "dropout": 0.2},
    {"flip": "horizontal", "rotation_factor": 0.2, "dropout": 0.4},
)
NET_SHAPE: dict[str, Any] = {"filters": (32, 32, 64), "dense_width": 128, "batch_norm": False}
NET_BATCH, NET_RATE = 32, 1e-3
CONCURRENCY = 2


def augmentation(flip: str, rotation_factor: float) -> list[Any]:
    """Keras' own layers."""
    import keras

    layers = []
    if flip != "none":
        layers.append(keras.layers.RandomFlip(flip))
    if rotation_factor:
        layers.append(keras.layers.RandomRotation(rotation_factor))
    return layers


def optimizer(name: str, learning_rate: float) -> Any:
    """A Keras optimizer as it comes."""
    import keras

    if name == "sgd":
        return keras.optimizers.SGD(learning_rate, momentum=0.9, nesterov=True)
    kinds = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}
    return kinds[name](learning_rate)


def compile_model(model: Any, name: str, learning_rate: float) -> Any:
    """Logits, cross-entropy, accuracy."""
    import keras

    model.compile(
        optimizer(name, learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def transfer_model(point: Point, image_size: int, weights: str, num_classes: int) -> Any:
    """A frozen MobileNetV2 under a head, augmentation first, as Keras' tutorial builds it."""
    import keras

    shape = (image_size, image_size, 3)
    backbone = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=shape)
    backbone.load_weights(weights)
    backbone.trainable = False
    inputs = x = keras.Input(shape)
    for layer in augmentation(point["flip"], point["rotation_factor"]):
        x = layer(x)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = backbone(x, training=False)
    if point["pooling"] == "average":
        x = keras.layers.GlobalAveragePooling2D()(x)
    else:
        x = keras.layers.GlobalMaxPooling2D()(x)
    x = keras.layers.Dropout(point["dropout"])(x)
    if point["dense_width"]:
        x = keras.layers.Dense(point["dense_width"], activation="relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(num_classes)(x))
    return compile_model(model, point["optimizer"], point["learning_rate"])


def conv_model(
    *,
    image_size: int,
    num_classes: int,
    filters: tuple[int, ...],
    dense_width: int,
    batch_norm: bool,
    dropout: float,
    flip: str,
    rotation_factor: float,
    learning_rate: float,
) -> Any:
    """A convolutional net as Keras' tutorials write it, in float32, trained by Adam."""
    import keras

    layers = [keras.Input((image_size, image_size, 3)), *augmentation(flip, rotation_factor)]
    layers.append(keras.layers.Rescaling(1 / 127.5, offset=-1))
    for width in filters:
        if batch_norm:
            layers += [
                keras.layers.Conv2D(width, 3, use_bias=False),
                keras.layers.BatchNormalization(),
                keras.layers.Activation("relu"),
            ]
        else:
            layers.append(keras.layers.Conv2D(width, 3, activation="relu"))
        layers.append(keras.layers.MaxPooling2D())
    layers += [keras.layers.Dropout(dropout), keras.layers.Flatten()]
    if dense_width:
        layers.append(keras.layers.Dense(dense_width, activation="relu"))
    layers.append(keras.layers.Dense(num_classes))
    return compile_model(keras.Sequential(layers), "adam", learning_rate)


def read_images(folder: str, split: str, image_size: int, batch_size: int) -> Any:
    """A split from its files, decoded in every epoch."""
    import keras
    import tensorflow as tf

    dataset = keras.utils.image_dataset_from_directory(
        f"{folder}/{split}",
        image_size=(image_size, image_size),
        batch_size=batch_size,
        shuffle=split == "train",
        verbose=False,
    )
    return dataset.prefetch(tf.data.AUTOTUNE)


def build(task: dict[str, Any], point: Point) -> Any:
    """The model of a point: a head where there are a backbone's weights, else a net."""
    if task["weights"]:
        return transfer_model(point, task["image_size"], task["weights"], task["classes"])
    return conv_model(
        image_size=task["image_size"],
        num_classes=task["classes"],
        learning_rate=NET_RATE,
        **NET_SHAPE,
        **{name: point[name] for name in ("flip", "rotation_factor", "dropout")},
    )


def points(task: dict[str, Any]) -> tuple[Point, Point]:
    """What is trained."""
    return HEADS if task["weights"] else NETS


def train_in_ray(config: dict[str, Any]) -> None:
    """A function trainable: data, model, `fit`, and a report from a callback after each epoch."""
    import keras
    from ray import tune

    class Report(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            tune.report({"val_accuracy": (logs or {})["val_accuracy"]})

    task = config["task"]
    size, batch_size = task["image_size"], int(config.get("batch_size", NET_BATCH))
    train = read_images(task["images"], "train", size, batch_size)
    validation = read_images(task["images"], "validation", size, batch_size)
    model = build(task, config)
    model.fit(
        train,
        validation_data=validation,
        epochs=task["epochs"],
        callbacks=[Report()],
        verbose=0,
    )


def measure_ray_tune(task: dict[str, Any]) -> dict[str, Any]:
    """Plain Ray Tune with OptunaSearch: two trials, at once, each in a fresh process."""
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    space = {
        "flip": tune.choice(["none", "horizontal", "horizontal_and_vertical"]),
        "rotation_factor": tune.quniform(0.0, 0.9, 0.05),
        "dropout": tune.quniform(0.0, 0.6, 0.1),
        "task": task,
    }
    of_heads = {
        "learning_rate": tune.loguniform(1e-4, 1e-2),
        "batch_size": tune.choice([16, 32, 64, 128]),
        "optimizer": tune.choice(["adam", "adamw", "sgd"]),
        "pooling": tune.choice(["average", "max"]),
        "dense_width": tune.choice([0, 64, 128, 256, 512]),
    }
    given = [dict(point) for point in points(task)]
    search = OptunaSearch(metric="val_accuracy", mode="max", points_to_evaluate=given)
    with tempfile.TemporaryDirectory() as storage:
        tuner = tune.Tuner(
            tune.with_resources(train_in_ray, {"cpu": 1}),
            param_space={**space, **(of_heads if task["weights"] else {})},
            tune_config=tune.TuneConfig(
                search_alg=search,
                num_samples=len(given),
                max_concurrent_trials=CONCURRENCY,
            ),
            run_config=tune.RunConfig(storage_path=storage, verbose=0),
        )
        started = time.perf_counter()
        results = tuner.fit()
        seconds = time.perf_counter() - started
        if results.errors:
            raise results.errors[0]
        accuracies = [result.metrics["val_accuracy"] for result in results]
    return {"seconds": seconds, "val_accuracies": accuracies}


def measure_keras_tuner(task: dict[str, Any]) -> dict[str, Any]:
    """KerasTuner's random search in this process: two trials, one after the other."""
    import keras_tuner

    class HyperModel(keras_tuner.HyperModel):  # type: ignore[misc]
        def build(self, hp: Any) -> Any:
            return build(task, points(task)[hp.Choice("point", [0, 1])])

        def fit(self, hp: Any, model: Any, **options: Any) -> Any:
            batch_size = points(task)[hp.get("point")].get("batch_size", NET_BATCH)
            train, validation = (
                read_images(task["images"], split, task["image_size"], batch_size)
                for split in ("train", "validation")
            )
            return model.fit(train, validation_data=validation, **options)

    with tempfile.TemporaryDirectory() as storage:
        tuner = keras_tuner.RandomSearch(
            HyperModel(),
            objective="val_accuracy",
            max_trials=2,
            directory=storage,
            overwrite=True,
        )
        started = time.perf_counter()
        tuner.search(epochs=task["epochs"], verbose=0)
        seconds = time.perf_counter() - started
        trials = tuner.oracle.get_best_trials(2)
    return {"seconds": seconds, "val_accuracies": [trial.score for trial in trials]}


def main() -> None:
    """Measure one peer and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peer", choices=["ray-tune", "keras-tuner"])
    parser.add_argument("--images", required=True, help="train/<class>/, validation/<class>/")
    parser.add_argument("--weights", help="MobileNetV2 without its top; left out: nets")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--epochs", default="1,3", help="two numbers: start-up and slope follow")
    options = parser.parse_args()
    classes = len([path for path in Path(options.images, "train").iterdir() if path.is_dir()])
    task = {
        "images": str(Path(options.images).resolve()),
        "weights": str(Path(options.weights).resolve()) if options.weights else None,
        "image_size": options.image_size,
        "classes": classes,
    }
    measure: Callable[[dict[str, Any]], dict[str, Any]]
    if options.peer == "ray-tune":
        import ray

        ray.init(num_cpus=CONCURRENCY, include_dashboard=False, log_to_driver=False)
        measure = measure_ray_tune
    else:
        measure = measure_keras_tuner
        # What TensorFlow does once in a process is no trial's: else it would look like start-up.
        train = read_images(task["images"], "train", options.image_size, 32)
        build(task, points(task)[0]).fit(train.take(1), verbose=0)
    measured = {int(e): measure({**task, "epochs": int(e)}) for e in options.epochs.split(",")}
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
