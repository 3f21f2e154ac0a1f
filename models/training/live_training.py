"""Train a network on pixels, one epoch at a time.

    network = build_network(spec.model, core, seed=spec.train.seed)
    for result in train_live(network, images, labels, val_images, val_labels, spec.train):
        print(result.epoch, result.metrics["val_accuracy"])

An epoch depends on the seed, its number, and the state before it (weights, optimizer) alone:
a trial that `training_state` continues equals one that was never interrupted.

Keras' `fit` is not used: on small images it takes 0.4 to 0.65 s to begin and 0.07 s for each
epoch, where the compiled step below takes 0.12 s and 0.006.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import cast

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pawtune.models.build import Network, make_optimizer
from pawtune.models.model_spec import TrainSpec
from pawtune.models.random_streams import Stream, random_numbers, seed_sequence
from pawtune.models.training.epoch_metrics import EpochResult, balancing_weights, epoch_result
from pawtune.models.training.fused_batch_norm import BatchNormMeasurement

Images = NDArray[np.uint8]
Labels = NDArray[np.int32]
Logits = NDArray[np.float32]
# (B, ...) inputs, (B,) labels → losses of the batch, summed, and how many it had right
Step = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


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
    """Train epoch by epoch; the caller may stop, save or prune between them.

    The image arrays are only ever sliced by batch, so they may be read-only and shared.

    Args:
        network: result of `build_network`, with restored weights where it continues.
        train_images: (N, S, S, 3).
        train_labels: (N,) class indices.
        val_images: (M, S, S, 3).
        val_labels: (M,) class indices.
        spec: batch size, optimizer, its schedule, label smoothing, epochs, those on images of
            half the side (validation images are whole in all of them), seed, class weights.
        optimizer: one that was restored; by default a new one of the spec.
        start_epoch: the first epoch to train, from 1.

    Yields:
        The result of each epoch from `start_epoch` to `spec.epochs`.

    Raises:
        DivergedError: the loss became NaN or infinite.
    """
    optimizer = optimizer or make_optimizer(spec, len(train_labels))
    optimizer.build(network.core.trainable_variables)
    class_weights = None
    if spec.class_weights:
        class_weights = balancing_weights(train_labels, network.core.output_shape[-1])

    def compiled(model: keras.Model) -> tuple[keras.Model, Step]:
        return model, compile_step(model, optimizer, class_weights, spec.label_smoothing)

    whole = compiled(network.model)
    small = compiled(network.half) if network.half is not None else whole
    batch_norms = BatchNormMeasurement(network.core)
    validate = _validator(network, val_images)
    for epoch in range(start_epoch, spec.epochs + 1):
        start = perf_counter()
        model, step = small if epoch <= spec.half_size_epochs else whole
        reset_randomness(model, spec.seed, epoch)
        order = epoch_order(len(train_images), spec.seed, epoch)
        loss_sum = hits = 0.0
        for first in range(0, len(order), spec.batch_size):
            # By index: the images stay where all trials read them, but for one batch.
            chosen = order[first : first + spec.batch_size]
            batch_loss, batch_hits = step(train_images[chosen], train_labels[chosen])
            loss_sum, hits = loss_sum + batch_loss, hits + batch_hits
        # Numbers only now: a GPU that is asked for each batch's waits for each batch.
        loss, accuracy = float(loss_sum) / len(order), float(hits) / len(order)
        trained = perf_counter()
        batch_norms.measure(train_images, order, spec.batch_size)
        val_logits = validate()
        yield epoch_result(
            epoch,
            loss=loss,
            accuracy=accuracy,
            val_logits=val_logits,
            val_labels=val_labels,
            learning_rate=float(optimizer.learning_rate),
            num_images=len(train_images),
            train_seconds=trained - start,
            seconds=perf_counter() - start,
        )


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of the images in an epoch: it depends on seed and epoch alone."""
    return random_numbers(Stream.EPOCH_ORDER, seed, epoch).permutation(count)


def reset_randomness(model: keras.Model, seed: int, epoch: int) -> None:
    """Set dropout and augmentation to where they start in this epoch of this seed."""
    states = [v for v in model.non_trainable_variables if v.name == "seed_generator_state"]
    words = seed_sequence(Stream.LAYERS, seed, epoch).generate_state(2 * max(len(states), 1))
    for state, pair in zip(states, words.reshape(-1, 2), strict=False):
        state.assign(pair >> 1)  # the state is int32 in TensorFlow


def compile_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    class_weights: NDArray[np.float32] | None,
    label_smoothing: float = 0.0,
) -> Step:
    """One graph that trains a model on a batch of images.

    Args:
        model: (B, S, S, 3) pixels → (B, C) logits.
        optimizer: built for the model's trainable weights.
        class_weights: (C,) factors of the loss; None weighs all alike.
        label_smoothing: share of a label that is spread over all classes.
    """
    size = model.input_shape[1:]
    signature = [tf.TensorSpec((None, *size), "uint8"), tf.TensorSpec((None,), "int32")]

    # Autograph would rewrite all of Keras in search of loops. XLA would compile for seconds in
    # each trial, and again for the smaller last batch.
    @tf.function(autograph=False, input_signature=signature)  # type: ignore[untyped-decorator]
    def step(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return train_batch(model, optimizer, images, labels, class_weights, label_smoothing)

    return cast(Step, step)


def train_batch(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    inputs: tf.Tensor,
    labels: tf.Tensor,
    class_weights: NDArray[np.float32] | None,
    label_smoothing: float = 0.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """One step of training as Keras' `fit` makes it: mean cross-entropy over the batch.

    Returns:
        Losses of the batch, summed, and how many it had right; float32 scalars.
    """
    # A GPU compares int64, but int32 in the host's memory: each step would wait for it.
    labels = tf.cast(labels, "int64")
    with tf.GradientTape() as tape:
        logits = model(inputs, training=True)
        if label_smoothing:
            classes = logits.shape[-1]
            targets = (
                tf.one_hot(labels, classes) * (1 - label_smoothing) + label_smoothing / classes
            )
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
        else:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        if class_weights is not None:
            losses *= tf.gather(class_weights, labels)
        loss = optimizer.scale_loss(tf.reduce_mean(losses))
    weights = model.trainable_variables
    optimizer.apply(tape.gradient(loss, [weight.value for weight in weights]), weights)
    right = tf.cast(tf.argmax(logits, axis=1) == labels, "float32")
    return tf.reduce_sum(losses), tf.reduce_sum(right)


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
