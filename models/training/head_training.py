"""Train a head on features of a frozen backbone: an epoch is one compiled call.

An epoch of a head is milliseconds of arithmetic, and Keras' `fit` spends 0.2 to 0.3 s on
leading it from batch to batch in Python. Here TensorFlow runs all batches of an epoch by
itself: same loss, same Keras optimizer, same order, dropout and last smaller batch as `fit`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import cast

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pawtune.models.build import make_optimizer
from pawtune.models.model_spec import TrainSpec
from pawtune.models.training.epoch_metrics import EpochResult, balancing_weights, epoch_result
from pawtune.models.training.live_training import (
    Labels,
    Logits,
    epoch_order,
    reset_randomness,
    train_batch,
)

Features = NDArray[np.floating]
# (features, labels, order) → (loss, accuracy), both means over the epoch
Epoch = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def train_head(
    head: keras.Model,
    next_epoch_features: Callable[[int], Features],
    train_labels: Labels,
    val_features: Features,
    val_labels: Labels,
    spec: TrainSpec,
    *,
    optimizer: keras.optimizers.Optimizer | None = None,
    start_epoch: int = 1,
) -> Iterator[EpochResult]:
    """Train epoch by epoch; the caller may stop, save or prune between them.

    Args:
        head: result of `build_head`, with restored weights where it continues.
        next_epoch_features: epoch (from 1) → (N, F) features of the training images, in the
            order of their labels; float16 or float32.
        train_labels: (N,) class indices.
        val_features: (M, F).
        val_labels: (M,) class indices.
        spec: batch size, optimizer, its schedule, label smoothing, epochs, seed, class weights.
        optimizer: one that was restored; by default a new one of the spec.
        start_epoch: the first epoch to train, from 1.

    Yields:
        The result of each epoch from `start_epoch` to `spec.epochs`.

    Raises:
        DivergedError: the loss became NaN or infinite.
    """
    optimizer = optimizer or make_optimizer(spec, len(train_labels))
    optimizer.build(head.trainable_variables)
    class_weights = None
    if spec.class_weights:
        class_weights = balancing_weights(train_labels, head.output_shape[-1])
    train_epoch = compile_epoch(
        head, optimizer, spec.batch_size, class_weights, spec.label_smoothing
    )
    labels = tf.constant(train_labels, "int32")
    for epoch in range(start_epoch, spec.epochs + 1):
        start = perf_counter()
        reset_randomness(head, spec.seed, epoch)
        order = epoch_order(len(train_labels), spec.seed, epoch)
        loss, accuracy = train_epoch(
            tf.constant(next_epoch_features(epoch)), labels, tf.constant(order, "int32")
        )
        loss, accuracy = float(loss), float(accuracy)
        trained = perf_counter()
        val_logits = apply_head(head, val_features)
        yield epoch_result(
            epoch,
            loss=loss,
            accuracy=accuracy,
            val_logits=val_logits,
            val_labels=val_labels,
            learning_rate=float(optimizer.learning_rate),
            num_images=len(train_labels),
            train_seconds=trained - start,
            seconds=perf_counter() - start,
        )


def compile_epoch(
    head: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    batch_size: int,
    class_weights: NDArray[np.float32] | None,
    label_smoothing: float = 0.0,
) -> Epoch:
    """One graph that trains the head on every batch of an epoch.

    Tracing takes 0.1 to 0.3 s for each trial. Sharing graphs between trials would need
    hand-written optimizers and save less than that.

    Args:
        head: (B, F) features → (B, C) logits.
        optimizer: built for the head's trainable weights.
        batch_size: size of all batches but the last.
        class_weights: (C,) factors of the loss; None weighs all alike.
        label_smoothing: share of a label that is spread over all classes.
    """

    # Autograph would rewrite all of Keras to find loops, of which there is this one.
    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def epoch(
        features: tf.Tensor, labels: tf.Tensor, order: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        labels = tf.cast(labels, "int64")  # as `train_batch` takes them

        def train_next(
            start: tf.Tensor, loss_sum: tf.Tensor, hits: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            chosen = order[start : start + batch_size]
            inputs = tf.cast(tf.gather(features, chosen), "float32")
            targets = tf.gather(labels, chosen)
            losses, right = train_batch(
                head, optimizer, inputs, targets, class_weights, label_smoothing
            )
            return start + batch_size, loss_sum + losses, hits + right

        count = tf.size(order)
        _, loss_sum, hits = tf.while_loop(
            lambda start, *_: start < count, train_next, (0, 0.0, 0.0)
        )
        return loss_sum / tf.cast(count, "float32"), hits / tf.cast(count, "float32")

    return cast(Epoch, epoch)


def apply_head(head: keras.Model, features: Features, batch_size: int = 4096) -> Logits:
    """Logits (N, C) of features (N, F). Eager: a graph would cost more than it saves here."""
    parts = [
        head(features[start : start + batch_size], training=False)
        for start in range(0, len(features), batch_size)
    ]
    return np.concatenate([np.asarray(part) for part in parts])
