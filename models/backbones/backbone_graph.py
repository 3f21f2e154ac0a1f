"""Block outputs of a backbone, found from its graph: where to take features and where to cut.

    fast = fold_backbone(backbone, policy)
    below, above = split_at(fast, cut_by_share(find_block_ends(fast), 0.4).number)

A tensor separates a network where every path from input to output goes through it (an
articulation point of the graph). Of these, a block's output is the last one before new features
are computed, and not one inside a bottleneck: see `_keep_block_ends`. Nothing here knows the name
of a model, so any `keras.applications` backbone is served, folded or not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import keras

from pawtune.models.errors import ModelError

# Backbones of 50 blocks would give 15,000 features an image; above, the cheapest steps are left
# out. MobileNetV2 has 18 block ends, EfficientNetV2B0 22, ResNet50 17.
MAX_TAPS = 24


@dataclass(frozen=True)
class BlockEnd:
    """The output of a block, through which everything flows.

    Attributes:
        number: place from 1, bottom to top, the same in every process and in a folded copy.
        layer: whose output it is. Keras numbers some names (`add_21`) by what the process built
            before, and folding removes layers: for people only.
        shape: (h, w, c) of an image's activations there.
        share_above: share of the backbone's multiply-adds that comes after it, 0 to 1.
    """

    number: int
    layer: str
    shape: tuple[int, int, int]
    share_above: float


@dataclass(frozen=True)
class _Step:
    """What lies between one separating tensor and the next.

    operation: it computes the tensor. is_merge: several paths end in it. multiply_adds: of all
    operations of the step.
    """

    operation: Any
    is_merge: bool
    multiply_adds: int


def find_block_ends(backbone: keras.Model, max_taps: int = MAX_TAPS) -> tuple[BlockEnd, ...]:
    """Ends of a backbone's blocks from bottom to top; the last is the backbone's output.

    Args:
        backbone: a functional model, (N, S, S, 3) → (N, h, w, F), folded or as Keras builds it.
        max_taps: where there are more, those are left out that follow an earlier one after the
            least arithmetic.

    Returns:
        At least one. NASNet's cells each read the two before them: of it only the ends of the
        stem and of the network separate anything.

    Raises:
        ModelError: not a functional model with one input and one output.
    """
    steps = _separating_steps(backbone)
    done = list(accumulate(step.multiply_adds for step in steps))
    shares = {
        id(step): 1 - below / max(done[-1], 1) for step, below in zip(steps, done, strict=True)
    }
    ends = [
        BlockEnd(number, step.operation.name, step.operation.output.shape[1:], shares[id(step)])
        for number, step in enumerate(_keep_block_ends(steps), start=1)
    ]
    return tuple(_thin_out(ends, max_taps))


def cut_by_share(ends: Sequence[BlockEnd], share: float) -> BlockEnd:
    """The block end with the part of arithmetic above it that is nearest to a share.

    Never the last one, above which is nothing.
    """
    return min(ends[:-1] or ends, key=lambda end: abs(end.share_above - share))


def split_at(backbone: keras.Model, number: int) -> tuple[keras.Model, keras.Model]:
    """Two models whose composition is the backbone, with layers and weights of their own.

    Args:
        backbone: a functional model, usually of `fold_backbone`.
        number: number of the block end to cut at, from 1; 0 leaves everything above.

    Returns:
        below: (N, S, S, 3) → (N, h, w, c); above: (N, h, w, c) → (N, H, W, F). Trainable as the
        backbone's layers are.

    Raises:
        ModelError: no block has that number, or nothing is above it.
    """
    # Of its own layers: a model that begins in the middle adds connections to those it is made of.
    copy = _clone(backbone)
    ends = find_block_ends(copy, max_taps=len(copy.operations))
    if not 0 <= number < len(ends):
        raise ModelError(
            f"a cut is the number of a block with another above it, 1 to {len(ends) - 1}, or 0 "
            f"for the whole backbone, received {number}"
        )
    if number == 0:
        pixels = keras.Input(copy.input_shape[1:])
        return keras.Model(pixels, keras.layers.Identity(dtype="float32")(pixels)), copy
    middle = output_of(copy, ends[number - 1])
    return _clone(keras.Model(copy.input, middle)), _clone(keras.Model(middle, copy.output))


def _clone(model: keras.Model) -> keras.Model:
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def output_of(backbone: keras.Model, end: BlockEnd) -> keras.KerasTensor:
    """The tensor of a block's end in a backbone that has it."""
    return next(item.output for item in backbone.operations if item.name == end.layer)


def _separating_steps(backbone: keras.Model) -> list[_Step]:
    """The steps between separating tensors, in order; each tensor depends on the one before."""
    if not isinstance(backbone, keras.Model) or len(getattr(backbone, "outputs", ())) != 1:
        raise ModelError(
            "a backbone must be a functional model with one output, received "
            f"{type(backbone).__name__}: give one of keras.applications"
        )
    operations = backbone.operations  # in topological order
    last_use = {
        id(tensor): place
        for place, operation in enumerate(operations)
        if not isinstance(operation, keras.layers.InputLayer)
        for tensor in keras.tree.flatten(operation.input)
    }
    steps = []
    begin = reach = 0
    for place, operation in enumerate(operations):
        # Nothing that was computed before this operation is read after it: it separates. In a
        # topological order that is the same as lying on every path.
        if reach <= place and not isinstance(operation, keras.layers.InputLayer):
            members = operations[begin : place + 1]
            is_merge = len(keras.tree.flatten(operation.input)) > 1
            steps.append(_Step(operation, is_merge, sum(map(_multiply_adds, members))))
            begin = place + 1
        reach = max(reach, last_use.get(id(operation.output), place))
    return steps


def _multiply_adds(operation: Any) -> int:
    """Of an image: each kernel is applied at every place of the output."""
    if isinstance(operation, keras.Model):
        return sum(_multiply_adds(layer) for layer in operation.layers)
    places = math.prod(operation.output.shape[1:-1])
    weights = getattr(operation, "weights", ())  # a bare operation has none
    return sum(places * math.prod(w.shape) for w in weights if len(w.shape) > 1)


def _keep_block_ends(steps: Sequence[_Step]) -> list[_Step]:
    """The steps that end a block.

    A block is a step that computes new features with what only reshapes them afterwards
    (activation, normalisation, pooling). It is no block of its own where it is the inside of a
    bottleneck (the next convolution has fewer channels) or where a concatenation only adds to
    it (dense blocks: the transition has all).
    """
    blocks: list[tuple[_Step, _Step]] = []  # the step with new features, the last of its block
    is_open = False
    for step in steps:
        if isinstance(step.operation, keras.layers.DepthwiseConv2D):
            is_open = False  # spatial filtering in mid-block: the projection after it ends it
        elif _only_reshapes(step):
            if is_open and not isinstance(step.operation, keras.layers.ZeroPadding2D):
                blocks[-1] = (blocks[-1][0], step)
        else:
            blocks.append((step, step))
            is_open = True
    if not blocks or blocks[-1][1] is not steps[-1]:
        blocks.append((steps[-1], steps[-1]))
    followers = [first for first, _ in blocks[1:]]
    kept = [
        end
        for (_, end), follower in zip(blocks, followers, strict=False)
        if not _narrows(end, follower) and not _is_extended(end, follower)
    ]
    return [*kept, blocks[-1][1]]


def _only_reshapes(step: _Step) -> bool:
    if step.is_merge:  # a gate: squeeze-and-excitation, or x * sigmoid(x)
        return "multiply" in type(step.operation).__name__.lower()
    return step.multiply_adds == 0


def _narrows(end: _Step, follower: _Step) -> bool:
    channels = end.operation.output.shape[-1], follower.operation.output.shape[-1]
    return not follower.is_merge and channels[1] < channels[0]


def _is_extended(end: _Step, follower: _Step) -> bool:
    both = isinstance(end.operation, keras.layers.Concatenate) and isinstance(
        follower.operation, keras.layers.Concatenate
    )
    return both and any(part is end.operation.output for part in follower.operation.input)


def _thin_out(ends: Sequence[BlockEnd], count: int) -> list[BlockEnd]:
    ends = list(ends)
    while len(ends) > max(count, 1):
        steps = [
            below.share_above - end.share_above
            for below, end in zip(ends, ends[1:-1], strict=False)
        ]
        del ends[1 + steps.index(min(steps)) if steps else 0]
    return ends
