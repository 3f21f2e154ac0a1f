"""Train a network on pixels, one epoch at a time.

    network = build_network(spec.model, num_classes, seed=spec.train.seed)
    for result in train_live(network, images, labels, val_images, val_labels, spec.train):
        print(result.epoch, result.metrics["val_accuracy"])

An epoch depends on the seed, its number, and the state before it (weights, optimizer) alone:
a trial that `models.state` continues equals one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter

import keras
import numpy as np
from numpy.typing import NDArray

from models.build import Network, make_optimizer
from models.scoring import EpochResult, balancing_weights, epoch_result
from models.spec import TrainSpec

Images = NDArray[np.uint8]
Labels = NDArray[np.int32]
Logits = NDArray[np.float32]


def train_live(
    network: Network,
    train_images: Images,
    train_labels: Labels,
    val_images: Images,
    val_labels: Labels,
    spec: TrainSpec,
    *,
    optimizer: keras.optimizers.Optimizer | None = None,
    start_epoch: int = 1,
) -> Iterator[EpochResult]:
    """Keras' own `fit`, epoch by epoch; the caller may stop, save or prune between them.

    The image arrays are only ever sliced by batch, so they may be read-only and shared.

    Args:
        network: from `build_network`, with restored weights where it continues.
        train_images: (N, S, S, 3).
        train_labels: (N,) class indices.
        val_images: (M, S, S, 3).
        val_labels: (M,) class indices.
        spec: batch size, optimizer, epochs, seed and class weights.
        optimizer: one that was restored; by default a new one of the spec.
        start_epoch: the first epoch to train, from 1.

    Yields:
        The result of each epoch from `start_epoch` to `spec.epochs`.

    Raises:
        DivergedError: the loss became NaN or infinite.
    """
    optimizer = optimizer or make_optimizer(spec)
    optimizer.build(network.core.trainable_variables)  # first built inside fit: 0.15 s longer
    network.model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # On a GPU Keras would compile by XLA: seconds in each trial, for each size of batch.
        jit_compile=False,
    )
    batches = ShuffledBatches(train_images, train_labels, spec.batch_size)
    class_weight = None
    if spec.class_weights:
        weights = balancing_weights(train_labels, network.core.output_shape[-1])
        class_weight = dict(enumerate(weights.tolist()))
    validate = _validator(network, val_images)
    for epoch in range(start_epoch, spec.epochs + 1):
        start = perf_counter()
        reset_randomness(network.model, spec.seed, epoch)
        batches.shuffle(spec.seed, epoch)
        # shuffle=False: else Keras shuffles the batches again, by Python's global random state.
        fitted = network.model.fit(batches, class_weight=class_weight, shuffle=False, verbose=0)
        trained = perf_counter()
        val_logits = validate()
        yield epoch_result(
            epoch,
            loss=float(fitted.history["loss"][-1]),
            accuracy=float(fitted.history["accuracy"][-1]),
            val_logits=val_logits,
            val_labels=val_labels,
            learning_rate=float(optimizer.learning_rate),
            num_images=len(train_images),
            train_seconds=trained - start,
            seconds=perf_counter() - start,
        )


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of the images in an epoch: it depends on seed and epoch alone."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def reset_randomness(model: keras.Model, seed: int, epoch: int) -> None:
    """Set dropout and augmentation to where they start in this epoch of this seed."""
    states = [v for v in model.non_trainable_variables if v.name == "seed_generator_state"]
    words = np.random.SeedSequence((seed, epoch)).generate_state(2 * max(len(states), 1))
    for state, pair in zip(states, words.reshape(-1, 2), strict=False):
        state.assign(pair >> 1)  # the state is int32 in TensorFlow


class ShuffledBatches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras is untyped
    """Batches gathered by index, the last one smaller; 36 MB on top of a 230 MB array.

    `fit(array)` would copy the whole array in every trial (+303 MB).
    """

    def __init__(self, images: Images, labels: Labels, batch_size: int) -> None:
        super().__init__()
        self.images = images
        self.labels = labels
        self.batch_size = batch_size
        self.order = np.arange(len(images))

    def shuffle(self, seed: int, epoch: int) -> None:
        """Take the images in the order of this epoch."""
        self.order = epoch_order(len(self.images), seed, epoch)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[Images, Labels]:
        """The batch at `index`: (B, S, S, 3) images, (B,) labels."""
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.images[chosen], self.labels[chosen]


def _validator(network: Network, images: Images) -> Callable[[], Logits]:
    """A function that scores the validation images with the weights of the moment."""
    if network.extractor is None:
        return lambda: predict_in_batches(network.core, images)
    # Nothing below the head changes in training: compute its features once.
    features = predict_in_batches(network.extractor, images)
    return lambda: predict_in_batches(network.core, features, batch_size=1024)


def predict_in_batches(
    model: keras.Model, inputs: NDArray[np.generic], batch_size: int = 64
) -> NDArray[np.float32]:
    """Outputs of a model for an array, of which no copy larger than a batch is made.

    Args:
        model: (B, ...) → (B, K) float32.
        inputs: (N, ...).

    Returns:
        (N, K).
    """
    return np.concatenate(
        [
            model.predict_on_batch(inputs[start : start + batch_size])
            for start in range(0, len(inputs), batch_size)
        ]
    )
