"""Block ends of backbones: where they are, that they separate, and what is pooled there."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from pawtune.models.backbones.backbone_graph import (
    cut_by_share,
    find_block_ends,
    split_at,
)
from pawtune.models.backbones.batch_norm_folding import fold_backbone
from pawtune.models.backbones.frozen_backbone import load_backbone
from pawtune.models.errors import ModelError

# Ends of blocks by what the published architectures have: the stem where it is a block of its
# own, then residual blocks, dense transitions, convolutions or mixed blocks.
QUICK = {
    "MobileNetV2": (18, 2784),  # 17 bottlenecks and the last convolution
    "VGG16": (13, 4224),  # its convolutions, pooled where they are
}
SLOW = {
    "MobileNetV3Small": (13, 1160),  # stem, 11 bottlenecks, last convolution
    "ResNet50": (17, 15168),  # stem, 16 residual blocks
    "DenseNet121": (5, 1984),  # stem, 3 transitions, the last dense block
    "EfficientNetV2B0": (22, 3840),
    "Xception": (16, 11640),
    "ConvNeXtTiny": (22, 8064),
    "InceptionV3": (16, 10448),
    "NASNetMobile": (2, 1088),  # every cell reads the two before it
    "ResNet152": (24, 22848),  # of 51, thinned out
}
SIZES = {"InceptionV3": 96, "Xception": 96, "VGG16": 32}


def pixels(model: keras.Model, count: int = 3) -> NDArray[np.float32]:
    shape = (count, *model.input_shape[1:])
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def random_backbone(name: str) -> keras.Model:
    """Random weights; batch norms whose averages are not those of a new layer."""
    keras.utils.set_random_seed(0)
    backbone = load_backbone(name, SIZES.get(name, 64), None)
    rng = np.random.default_rng(1)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([w + 0.2 * rng.random(w.shape) for w in layer.get_weights()])
    return backbone


@pytest.fixture(scope="module")
def mobilenet() -> keras.Model:
    return random_backbone("MobileNetV2")


def assert_blocks(name: str, expected: tuple[int, int]) -> None:
    backbone = random_backbone(name)
    ends = find_block_ends(backbone)
    assert (len(ends), sum(end.shape[-1] for end in ends)) == expected
    assert ends[-1].layer == backbone.operations[-1].name
    shares = [end.share_above for end in ends]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0
    folded = fold_backbone(backbone)
    assert [(e.number, e.shape) for e in find_block_ends(folded)] == [
        (end.number, end.shape) for end in ends
    ]
    batch = pixels(backbone)
    whole = folded(batch, training=False)
    for number in {0, 1, cut_by_share(ends[:-1], 0.3).number}:
        below, above = split_at(folded, number)
        middle = below(batch, training=False)
        shapes = {end.number: end.shape for end in ends} | {0: batch.shape[1:]}
        assert middle.shape[1:] == shapes[number]
        # What is above has the same blocks, so that it can be told how deep each of them lies.
        assert len(find_block_ends(above, 999)) == len(find_block_ends(folded, 999)) - number
        scale = np.abs(whole).max()
        np.testing.assert_allclose(above(middle, training=False), whole, atol=1e-5 * scale)


@pytest.mark.parametrize("name", QUICK)
def test_blocks_end_where_the_architecture_says(name: str) -> None:
    assert_blocks(name, QUICK[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_blocks_end_where_larger_architectures_say(name: str) -> None:
    assert_blocks(name, SLOW[name])


def test_shares_are_those_of_the_multiply_adds() -> None:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="stem")(inputs)  # 64 * 9 * 3 * 4 = 6912
    y = keras.layers.Conv2D(4, 1)(keras.layers.ReLU()(x))  # 64 * 4 * 4 = 1024
    x = keras.layers.Add(name="block")([x, y])
    x = keras.layers.DepthwiseConv2D(3, strides=2, padding="same")(x)  # 16 * 9 * 4 = 576
    x = keras.layers.Conv2D(8, 1, name="top")(x)  # 16 * 4 * 8 = 512
    ends = find_block_ends(keras.Model(inputs, x))
    assert [(end.number, end.layer, end.shape) for end in ends] == [
        (1, "stem", (8, 8, 4)),
        (2, "block", (8, 8, 4)),
        (3, "top", (4, 4, 8)),
    ]
    total = 6912 + 1024 + 576 + 512
    expected = [(1024 + 576 + 512) / total, (576 + 512) / total, 0]
    np.testing.assert_allclose([end.share_above for end in ends], expected, atol=1e-12)
    assert cut_by_share(ends, 0.1).layer == "block"


def bottleneck(x: Any) -> Any:
    wide = keras.layers.Conv2D(16, 1, name="expand")(x)
    return keras.layers.Conv2D(4, 1, name="project")(keras.layers.ReLU()(wide))


def gated(x: Any) -> Any:
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = keras.layers.Conv2D(4, 1, activation="sigmoid")(gate)
    return keras.layers.Multiply(name="gate")([x, gate])


def dense_block(x: Any) -> Any:
    for number in range(3):
        new = keras.layers.Conv2D(2, 3, padding="same")(x)
        x = keras.layers.Concatenate(name=f"join_{number}")([x, new])
    return x


@pytest.mark.parametrize(
    ("block", "names"),
    [
        (bottleneck, ["stem", "project", "last"]),
        (gated, ["gate", "last"]),
        (dense_block, ["stem", "join_2", "last"]),
        (lambda x: keras.layers.ZeroPadding2D()(x), ["stem", "last"]),
        (lambda x: keras.layers.MaxPooling2D(name="pool")(x), ["pool", "last"]),
    ],
)
def test_the_inside_of_a_block_is_no_end(block: Callable[[Any], Any], names: list[str]) -> None:
    inputs = keras.Input((8, 8, 3))
    x = block(keras.layers.Conv2D(4, 3, name="stem")(inputs))
    outputs = keras.layers.Conv2D(32, 1, name="last")(x)
    assert [end.layer for end in find_block_ends(keras.Model(inputs, outputs))] == names


def test_too_many_blocks_are_thinned_out_but_for_the_last(mobilenet: keras.Model) -> None:
    every = find_block_ends(mobilenet)
    few = find_block_ends(mobilenet, max_taps=5)
    assert len(few) == 5
    assert set(few) < set(every)
    assert few[-1] == every[-1]
    assert find_block_ends(mobilenet, max_taps=1) == every[-1:]


def test_the_halves_have_weights_of_their_own(mobilenet: keras.Model) -> None:
    folded = fold_backbone(mobilenet)
    _, above = split_at(folded, 12)
    before = folded.get_weights()
    above.set_weights([0 * weight for weight in above.get_weights()])
    for old, new in zip(before, folded.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert len(find_block_ends(folded)) == 18  # the cut left no trace in its graph


def test_a_cut_that_is_none_is_refused(mobilenet: keras.Model) -> None:
    for number in (-1, 18):
        with pytest.raises(ModelError, match=f"1 to 17, or 0 .* received {number}$"):
            split_at(mobilenet, number)


def test_what_is_no_graph_is_refused() -> None:
    inputs = keras.Input((8, 8, 3))
    two = keras.Model(inputs, [keras.layers.ReLU()(inputs), keras.layers.ReLU()(inputs)])
    with pytest.raises(ModelError, match="functional model with one output, received Functional"):
        find_block_ends(two)
