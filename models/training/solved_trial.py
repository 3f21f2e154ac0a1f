"""A trial whose head is solved: one step instead of epochs, on features that trials share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Literal

import numpy as np

from pawtune.models.families.family import BuiltTrial, PlainFeatures, TrialData
from pawtune.models.training.solved_heads import (
    Decomposition,
    decompose,
    solve_logistic,
    solve_ridge,
)

if TYPE_CHECKING:
    import keras

    from pawtune.models.backbones.backbone_graph import BlockEnd
    from pawtune.models.backbones.taps import Tap, Taps
    from pawtune.models.model_spec import TrainSpec
    from pawtune.models.training.epoch_metrics import EpochResult


def build_linear(width: int, num_classes: int) -> keras.Model:
    """(N, width) features → (N, num_classes) logits: one dense layer, float32."""
    import keras

    from pawtune.models.precision import precision

    with precision("float32"):
        inputs = keras.Input((width,), name="features")
        outputs = keras.layers.Dense(num_classes, name="logits")(inputs)
        return keras.Model(inputs, outputs, name="head")


def solved_trial(
    kind: Literal["ridge", "logistic"],
    taps: Taps,
    regularisation: float,
    train: TrainSpec,
    data: TrialData,
    request: PlainFeatures,
) -> BuiltTrial:
    """A trial that solves a head on features of the plain images.

    Args:
        kind: ridge on one-hot targets, or multinomial logistic regression.
        taps: the features, see `choose_taps`. Of moments every block weighs alike in a ridge: the
            last block would else outweigh all others by its width. A logistic regression does
            not shrink directions by their variance, and loses by that.
        regularisation: λ, see `solve_ridge` and `solve_logistic`.
        train: says whether classes are weighted.
        data: the features, and decompositions that trials share.
        request: the backbone's features.
    """
    from pawtune.models.backbones.taps import choose_taps
    from pawtune.models.build import make_optimizer

    decomposition = shared_decomposition(
        taps,
        lambda ends: choose_taps(taps, ends),
        train.class_weights,
        data,
        request,
        blocks_alike=kind == "ridge" and taps in ("top_moments", "all_moments"),
    )
    head = build_linear(len(decomposition.mean), data.num_classes)
    solve = {"ridge": solve_ridge, "logistic": solve_logistic}[kind]

    def solve_once(start_epoch: int) -> Iterator[EpochResult]:
        from pawtune.models.training.epoch_metrics import epoch_result, score

        if start_epoch > 1:
            return
        start = perf_counter()
        solved = solve(decomposition, data.train_labels, data.num_classes, regularisation)
        head.set_weights([solved.kernel, solved.bias])
        trained = perf_counter()
        seen, _ = score(solved.train_logits, data.train_labels)
        yield epoch_result(
            1,
            loss=seen["val_loss"],
            accuracy=seen["val_accuracy"],
            val_logits=solved.val_logits,
            val_labels=data.val_labels,
            learning_rate=0.0,
            num_images=len(data.train_labels),
            train_seconds=trained - start,
            seconds=perf_counter() - start,
        )

    return BuiltTrial(
        "solved",
        head,
        make_optimizer(train, len(data.train_labels)),
        solve_once,
        (request.backbone,),
    )


def shared_decomposition(
    name: str,
    choose: Callable[[Sequence[BlockEnd]], Sequence[Tap]],
    class_weights: bool,
    data: TrialData,
    request: PlainFeatures,
    *,
    blocks_alike: bool = False,
) -> Decomposition:
    """Made by the first trial that asks, then shared by all with the same features.

    Args:
        name: name of the features, the same for the same ones.
        choose: function that picks them by the ends of the backbone's blocks.
        class_weights: whether all classes count alike.
        data: the features, and decompositions that trials share.
        request: the backbone's features.
        blocks_alike: whether each statistic of each block weighs alike, see `decompose`.
    """

    def make() -> dict[str, np.ndarray]:
        from pawtune.models.backbones.taps import gather
        from pawtune.models.training.epoch_metrics import balancing_weights

        weights = None
        if class_weights:
            weights = balancing_weights(data.train_labels, data.num_classes)[data.train_labels]
        # Features first: whoever helps to make them has found the ends.
        features = data.features(request)
        ends = data.block_ends(request)
        taps = choose(ends)
        train, validation = (gather(part, taps, ends) for part in features)
        groups = [tap.width for tap in taps] if blocks_alike else None
        return decompose(train, validation, weights, groups).as_arrays()

    parts = [name]
    if blocks_alike:
        parts.append("blocks alike")
    if class_weights:  # they depend on the labels, which features do not
        digest = hashlib.sha256(np.ascontiguousarray(data.train_labels).tobytes()).hexdigest()
        parts.append(f"classes weighted, {digest[:8]}")
    what = f"decomposition ({', '.join(parts)})"
    return Decomposition.from_arrays(data.derived(request, what, make))
