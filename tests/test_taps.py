"""models.backbones.taps: averages and deviations of blocks, and which of them a head sees."""

from typing import Any

import keras
import numpy as np
import pytest

from pawtune.models.backbones.backbone_graph import find_block_ends
from pawtune.models.backbones.batch_norm_folding import fold_backbone
from pawtune.models.backbones.frozen_backbone import load_backbone
from pawtune.models.backbones.taps import (
    Tap,
    Taps,
    choose_taps,
    gather,
    tap_arrays,
    tap_columns,
    tap_model,
)
from tests.processor import skip_without


@pytest.fixture(scope="module")
def mobilenet() -> keras.Model:
    keras.utils.set_random_seed(3)
    return load_backbone("MobileNetV2", 64, None)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_one_pass_gives_what_separate_passes_give(mobilenet: keras.Model, policy: str) -> None:
    skip_without(policy)
    folded = fold_backbone(mobilenet, policy)
    ends = find_block_ends(folded)
    batch = np.random.default_rng(0).uniform(-1, 1, (3, 64, 64, 3)).astype("float32")
    features = tap_model(folded)(batch, training=False).numpy()
    columns = tap_columns(ends)
    assert {name: part.stop - part.start for name, part in columns.items()} == {
        "inner": 1504,
        "deviations": 1504,
        "average": 1280,
        "maximum": 1280,
    }
    assert features.shape == (3, 2 * 1504 + 2 * 1280)
    assert features.dtype == np.float32
    arrays = {name: features[:, part] for name, part in columns.items()}

    def of(statistic: Any, number: int) -> np.ndarray:
        return gather(arrays, [Tap(statistic, number, ends[number - 1].shape[-1])], ends)

    for number in (1, 9, 17, 18):
        part = keras.Model(folded.input, folded.get_layer(ends[number - 1].layer).output)
        maps = np.asarray(keras.ops.cast(part(batch, training=False), "float32"))
        np.testing.assert_allclose(of("average", number), maps.mean((1, 2)), rtol=1e-4, atol=1e-6)
        if number < 18:
            expected = np.sqrt(maps.var((1, 2)) + 1e-6)
            np.testing.assert_allclose(of("deviation", number), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(of("maximum", 18), maps.max((1, 2)))


@pytest.mark.parametrize(
    ("taps", "averages", "deviations"),
    [
        ("average", [18], []),
        ("all", [*range(1, 19)], []),
        ("top_moments", [*range(13, 19)], [*range(13, 18)]),
        ("all_moments", [*range(1, 19)], [*range(1, 18)]),
    ],
)
def test_a_setting_stands_for_blocks(
    taps: Taps, averages: list[int], deviations: list[int]
) -> None:
    ends = find_block_ends(load_backbone("MobileNetV2", 224, None))
    chosen = choose_taps(taps, ends)
    assert [tap.block for tap in chosen if tap.statistic == "average"] == averages
    assert [tap.block for tap in chosen if tap.statistic == "deviation"] == deviations


def test_a_backbone_of_one_block_has_its_average(mobilenet: keras.Model) -> None:
    last = find_block_ends(mobilenet, max_taps=1)
    assert choose_taps("top_moments", last) == choose_taps("average", last)


def test_columns_are_found_in_the_order_asked_for(mobilenet: keras.Model) -> None:
    ends = find_block_ends(mobilenet)
    arrays = {
        name: np.concatenate([np.full((2, tap.width), tap.block) for tap in inside], axis=1)
        for name, inside in tap_arrays(ends).items()
    }
    taps = choose_taps("all_moments", ends)[::-1]
    blocks = np.repeat([tap.block for tap in taps], [tap.width for tap in taps])
    np.testing.assert_array_equal(gather(arrays, taps, ends), np.tile(blocks, (2, 1)))
