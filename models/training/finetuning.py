"""Fine-tune the top of a backbone on activations below a cut, from a solved head.

    network = build_tuned(above, kernel, bias, dropout, recipe.seed)
    for result in finetune(network, source, labels, val_activations, val_labels, recipe):
        print(result.epoch, result.metrics["val_accuracy"])
    complete = compose_complete(spec, num_classes, network, backbones)  # models.complete_model

The head is solved first, on the features as they are, and trained on with what is below it:
that distorts the features less than a random head does (LP-FT; Kumar et al., ICLR 2022,
arXiv:2202.10054). An epoch depends on the seed, its number, and the state before it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, prod
from time import perf_counter
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pawtune.models.backbones.backbone_graph import find_block_ends
from pawtune.models.errors import ModelError
from pawtune.models.features.activations import Activations, ActivationSource
from pawtune.models.training.epoch_metrics import (
    EpochResult,
    balancing_weights,
    epoch_result,
    score,
)
from pawtune.models.training.fused_optimizers import FusedAdamW, warmup_cosine
from pawtune.models.training.live_training import Labels, Logits, epoch_order, reset_randomness

_CHUNK_BYTES = 64 * 2**20  # of activations, handed to TensorFlow at once
_VIEWS_NAMESPACE = 0xF17E  # keeps these random numbers apart from others of the same seed

# (n, h, w, c) activations, (n, C) targets, (n,) factors of the loss → losses, summed, and how
# many images it had right
TrainChunk = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


@dataclass(frozen=True)
class TuningRecipe:
    """How a top is fine-tuned.

    Attributes:
        learning_rate: highest learning rate of the head.
        layer_decay: factor of the rate from one block to the next below it.
        weight_decay: decoupled decay of kernels alone.
        label_smoothing: share of a label that is spread over all classes.
        epochs: number of epochs of the whole schedule.
        warmup_share: share of all steps in which the rate rises to its highest.
        batch_size: images a step.
        num_rounds: views of each image that are used: the plain one and the augmented ones.
        seed: seed of order, views and dropout.
        class_weights: whether all classes count alike, however many images they have.
    """

    learning_rate: float = 3e-4
    layer_decay: float = 0.8
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    epochs: int = 8
    warmup_share: float = 0.1
    batch_size: int = 32
    num_rounds: int = 5
    seed: int = 0
    class_weights: bool = False

    def __post_init__(self) -> None:
        for name in ("layer_decay", "label_smoothing", "warmup_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ModelError(f"{name} is a number from 0 to 1, received {getattr(self, name)}")
        for name in ("epochs", "batch_size", "num_rounds"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} is at least 1, received {getattr(self, name)}")
        if not self.learning_rate > 0 or not self.weight_decay >= 0:
            raise ModelError(
                "learning_rate is above 0 and weight_decay at least 0, received "
                f"{self.learning_rate} and {self.weight_decay}"
            )


def rate_factors(network: keras.Model, layer_decay: float) -> list[float]:
    """Of each trainable weight of `build_tuned`: layer_decay to the number of blocks above it.

    The head has 1, the topmost block layer_decay, and so on downwards.
    """
    tapped = next(layer for layer in network.layers if isinstance(layer, keras.Model))
    above = keras.Model(tapped.input, tapped.outputs[-1])
    ends = {end.layer for end in find_block_ends(above, max_taps=len(above.operations))}
    depth = 0
    depths: dict[int, int] = {}
    for operation in reversed(above.operations):
        depth += operation.name in ends
        depths.update((id(weight), depth) for weight in getattr(operation, "weights", ()))
    return [layer_decay ** depths.get(id(weight), 0) for weight in network.trainable_variables]


def make_optimizer(
    network: keras.Model, recipe: TuningRecipe, num_images: int
) -> keras.optimizers.Optimizer:
    """AdamW with the recipe's schedule over all its epochs, built for the network's weights."""
    steps = recipe.epochs * ceil(num_images / recipe.batch_size)
    schedule = warmup_cosine(recipe.learning_rate, steps, round(recipe.warmup_share * steps))
    factors = rate_factors(network, recipe.layer_decay)
    optimizer = FusedAdamW(schedule, recipe.weight_decay, factors)
    if keras.config.dtype_policy().name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(network.trainable_variables)
    return optimizer


def finetune(
    network: keras.Model,
    source: ActivationSource,
    train_labels: Labels,
    val_activations: Activations,
    val_labels: Labels,
    recipe: TuningRecipe,
    *,
    optimizer: keras.optimizers.Optimizer | None = None,
    start_epoch: int = 1,
    epochs_before: int = 0,
) -> Iterator[EpochResult]:
    """Train epoch by epoch; the caller may stop, save or prune between them.

    Args:
        network: result of `build_tuned`, with restored weights where it continues.
        source: gives the activations of a batch: `KeptActivations` or `LiveActivations`, of as
            many rounds as the recipe has.
        train_labels: (N,) class indices.
        val_activations: (M, h, w, c), plain; only batches are read.
        val_labels: (M,) class indices.
        recipe: how.
        optimizer: one of `make_optimizer` that was restored; a new one by default.
        start_epoch: the first epoch to train, from 1.
        epochs_before: epochs of the trial before the first of the recipe, for its numbers.

    Yields:
        The result of each epoch from `start_epoch` to `recipe.epochs`; its loss is that of
        smoothed labels.

    Raises:
        DivergedError: the loss became NaN or infinite.
    """
    count = len(train_labels)
    optimizer = optimizer or make_optimizer(network, recipe, count)
    num_classes = network.output_shape[-1]
    targets = _smoothed(train_labels, num_classes, recipe.label_smoothing)
    image_weights = np.ones(count, "float32")
    if recipe.class_weights:
        image_weights = balancing_weights(train_labels, num_classes)[train_labels]
    train_chunk = compile_chunk(network, optimizer, recipe.batch_size)
    steps = max(1, _CHUNK_BYTES // (2 * prod(network.input_shape[1:]) * recipe.batch_size))
    predict = compile_predict(network)
    for epoch in range(start_epoch, recipe.epochs + 1):
        start = perf_counter()
        reset_randomness(network, recipe.seed, epoch)
        order = epoch_order(count, recipe.seed, epoch)
        views = views_of_epoch(count, recipe, epoch)
        loss_sum = hits = 0.0
        for first in range(0, count, steps * recipe.batch_size):
            chosen = order[first : first + steps * recipe.batch_size]
            maps = source(chosen, views[chosen])
            losses, right = train_chunk(maps, targets[chosen], image_weights[chosen])
            loss_sum, hits = loss_sum + losses, hits + right
        loss, accuracy = float(loss_sum) / count, float(hits) / count
        trained = perf_counter()
        val_logits = predict(val_activations)
        yield epoch_result(
            epochs_before + epoch,
            loss=loss,
            accuracy=accuracy,
            val_logits=val_logits,
            val_labels=val_labels,
            learning_rate=float(optimizer.learning_rate),
            num_images=count,
            train_seconds=trained - start,
            seconds=perf_counter() - start,
        )


def score_start(
    network: keras.Model,
    train_logits: NDArray[np.floating],
    train_labels: Labels,
    val_activations: Activations,
    val_labels: Labels,
) -> EpochResult:
    """The network of `build_tuned` as it is before training, as a first epoch.

    Args:
        network: network with the solved head.
        train_logits: (N, C) of that head.
        train_labels: (N,) class indices.
        val_activations: (M, h, w, c), plain.
        val_labels: (M,) class indices.
    """
    start = perf_counter()
    val_logits = compile_predict(network)(val_activations)
    seconds = perf_counter() - start
    seen, _ = score(train_logits, train_labels)
    return epoch_result(
        1,
        loss=seen["val_loss"],
        accuracy=seen["val_accuracy"],
        val_logits=val_logits,
        val_labels=val_labels,
        learning_rate=0.0,
        num_images=len(train_labels),
        train_seconds=seconds,
        seconds=seconds,
    )


def views_of_epoch(count: int, recipe: TuningRecipe, epoch: int) -> NDArray[np.int64]:
    """(N,) the round of each image in an epoch: all in turn, from a start that is random."""
    starts = np.random.default_rng((_VIEWS_NAMESPACE, recipe.seed)).permutation(count)
    return np.asarray((starts + epoch) % recipe.num_rounds)


def _smoothed(labels: Labels, num_classes: int, smoothing: float) -> NDArray[np.float32]:
    """(N, C) targets of labels."""
    hot = np.eye(num_classes, dtype="float32")[labels]
    return hot * np.float32(1 - smoothing) + np.float32(smoothing / num_classes)


def compile_chunk(
    network: keras.Model, optimizer: keras.optimizers.Optimizer, batch_size: int
) -> TrainChunk:
    """One graph that trains the network on every batch of a chunk of activations.

    On a GPU nothing in it waits for the host: it has no arithmetic of integers but the loop's.
    """
    signature = [
        tf.TensorSpec((None, *network.input_shape[1:]), "float16"),
        tf.TensorSpec((None, network.output_shape[-1]), "float32"),
        tf.TensorSpec((None,), "float32"),
    ]

    def train_batch(maps: tf.Tensor, targets: tf.Tensor, factors: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            logits = network(tf.cast(maps, "float32"), training=True)
            losses = factors * tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            loss = optimizer.scale_loss(tf.reduce_mean(losses))
        weights = network.trainable_variables
        optimizer.apply(tape.gradient(loss, [weight.value for weight in weights]), weights)
        right = tf.equal(tf.argmax(logits, axis=1), tf.argmax(targets, axis=1))
        return tf.reduce_sum(losses), tf.reduce_sum(tf.cast(right, "float32"))

    # Autograph would rewrite all of Keras in search of loops, of which there is this one.
    @tf.function(autograph=False, input_signature=signature)  # type: ignore[untyped-decorator]
    def train_chunk(maps: tf.Tensor, targets: tf.Tensor, factors: tf.Tensor) -> Any:
        def train_next(start: tf.Tensor, loss_sum: tf.Tensor, hits: tf.Tensor) -> Any:
            batch = slice(start, start + batch_size)
            losses, right = train_batch(maps[batch], targets[batch], factors[batch])
            return start + batch_size, loss_sum + losses, hits + right

        count = tf.shape(maps)[0]
        return tf.while_loop(lambda start, *_: start < count, train_next, (0, 0.0, 0.0))[1:]

    return cast(TrainChunk, train_chunk)


def compile_predict(network: keras.Model, batch_size: int = 64) -> Callable[[Activations], Logits]:
    """A function that gives (N, C) logits of (N, h, w, c) activations, weights as they are then."""
    signature = [tf.TensorSpec((None, *network.input_shape[1:]), "float16")]

    @tf.function(autograph=False, input_signature=signature)  # type: ignore[untyped-decorator]
    def predict_batch(maps: tf.Tensor) -> tf.Tensor:
        return network(tf.cast(maps, "float32"), training=False)

    def predict(activations: Activations) -> Logits:
        starts = range(0, len(activations), batch_size)
        parts = [predict_batch(activations[start : start + batch_size]) for start in starts]
        return np.concatenate([part.numpy() for part in parts])

    return predict
