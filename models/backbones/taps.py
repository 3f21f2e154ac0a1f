"""Features of a backbone from the outputs of its blocks: what a head can see of it.

    taps = tap_model(fold_backbone(backbone, policy))  # all of them in one pass
    ends = find_block_ends(backbone)
    columns = choose_taps("top_moments", ends)

Of each block's output a head can have the average over all places and, below the last block, the
standard deviation, which says how much a channel differs from place to place. Features from all
blocks are the idea of Head2Toe (Evci et al., ICML 2022, arXiv:2201.03529); mean and deviation as
what describes a texture in a network's maps is that of Huang and Belongie (ICCV 2017,
arXiv:1703.06868).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

import keras
import numpy as np

from pawtune.models.backbones.backbone_graph import (
    BlockEnd,
    cut_by_share,
    find_block_ends,
    output_of,
)

Statistic = Literal["average", "deviation", "maximum"]
Taps = Literal["average", "maximum", "both", "all", "top_moments", "all_moments"]

# Of the backbone's arithmetic, the part whose blocks `top_moments` sees: six of MobileNetV2's.
TOP_SHARE = 0.35
# Added to a variance: below it a channel counts as the same everywhere, and roots have a slope.
_SMALLEST_VARIANCE = 1e-6


@dataclass(frozen=True)
class Tap:
    """One statistic of one block's output, over its places.

    Attributes:
        statistic: "average", "deviation" or "maximum".
        block: number of the block, see `BlockEnd`.
        width: features it gives: the block's channels.
    """

    statistic: Statistic
    block: int
    width: int


def tap_arrays(ends: Sequence[BlockEnd]) -> dict[str, tuple[Tap, ...]]:
    """The arrays in which features are kept, by name, and the taps in each from left to right.

    Returns:
        "inner" and "deviations": of the blocks below the last, from bottom to top; "average" and
        "maximum": of the last.
    """
    *inner, last = ends
    return {
        "inner": tuple(_tap("average", end) for end in inner),
        "deviations": tuple(_tap("deviation", end) for end in inner),
        "average": (_tap("average", last),),
        "maximum": (_tap("maximum", last),),
    }


def _tap(statistic: Statistic, end: BlockEnd) -> Tap:
    return Tap(statistic, end.number, end.shape[-1])


def choose_taps(taps: Taps, ends: Sequence[BlockEnd]) -> tuple[Tap, ...]:
    """What a head with this setting sees, in the order of its columns."""
    if taps == "top_moments":
        return moments_above(cut_by_share(ends, TOP_SHARE).number if ends[1:] else 0, ends)
    if taps == "all_moments":
        return moments_above(0, ends)
    names = {
        "average": ("average",),
        "maximum": ("maximum",),
        "both": ("average", "maximum"),
        "all": ("inner", "average"),
    }[taps]
    return tuple(tap for name in names for tap in tap_arrays(ends)[name])


def moments_above(number: int, ends: Sequence[BlockEnd]) -> tuple[Tap, ...]:
    """Averages of the blocks above one, from bottom to top, then their deviations.

    Args:
        number: number of the block, or 0 for all.
        ends: ends of all blocks of the backbone.
    """
    above = [end for end in ends if end.number > number]
    averages = (_tap("average", end) for end in above)
    return (*averages, *(_tap("deviation", end) for end in above[:-1]))


def gather(
    features: Mapping[str, np.ndarray], taps: Iterable[Tap], ends: Sequence[BlockEnd]
) -> np.ndarray:
    """(N, F) columns of some taps.

    Args:
        features: (N, width) arrays by name, as in `tap_arrays`.
        taps: features to take, in this order.
        ends: ends of all blocks of the backbone that made the features.
    """
    columns = {
        tap: features[name][:, part]
        for name, inside in tap_arrays(ends).items()
        for tap, part in zip(inside, _slices(tap.width for tap in inside), strict=True)
    }
    return np.concatenate([columns[tap] for tap in taps], axis=1)


def tap_columns(ends: Sequence[BlockEnd]) -> dict[str, slice]:
    """The columns of each array of `tap_arrays` among the features of a `tap_model`."""
    arrays = tap_arrays(ends)
    widths = (sum(tap.width for tap in inside) for inside in arrays.values())
    return dict(zip(arrays, _slices(widths), strict=True))


def _slices(widths: Iterable[int]) -> list[slice]:
    return [slice(*edges) for edges in pairwise(accumulate(widths, initial=0))]


def tap_model(backbone: keras.Model) -> keras.Model:
    """One pass for all taps.

    Args:
        backbone: usually of `fold_backbone`; its layers are shared, not copied.

    Returns:
        (N, S, S, 3) preprocessed pixels → (N, F) float32, in the order of `tap_arrays`.
    """
    tensors = tap_tensors(backbone)
    order = [tap for inside in tap_arrays(find_block_ends(backbone)).values() for tap in inside]
    features = keras.layers.Concatenate(dtype="float32", name="features")
    return keras.Model(backbone.input, features([tensors[tap] for tap in order]), name="taps")


def tap_tensors(backbone: keras.Model) -> dict[Tap, keras.KerasTensor]:
    """(N, width) float32 of every tap, of layers that save without code."""
    ends = find_block_ends(backbone)
    tensors = {}
    for end in ends:
        maps = output_of(backbone, end)
        tensors[_tap("average", end)] = average_of(maps, f"average_{end.number}")
        if end is not ends[-1]:
            tensors[_tap("deviation", end)] = deviation_of(maps, f"deviation_{end.number}")
        else:
            maximum = keras.layers.GlobalMaxPooling2D(dtype="float32", name="maximum")
            tensors[_tap("maximum", end)] = maximum(maps)
    return tensors


def average_of(maps: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """(N, C) averages of (N, h, w, C) over all places, float32 under every policy.

    An average over thousands of places loses bits in bfloat16. By a pooling: for the gradient of a
    mean, as GlobalAveragePooling2D takes it, a GPU puts the batch's shape together, and the host
    waits for it in every step.
    """
    return _flat(_pooled(maps, name), name)


def deviation_of(maps: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """(N, C) standard deviations of (N, h, w, C) over all places, float32 under every policy."""
    centred = keras.ops.cast(maps, "float32") - _pooled(maps, f"{name}_centre")
    variance = _pooled(centred * centred, name)
    return _flat(keras.ops.sqrt(variance + _SMALLEST_VARIANCE), name)


def _pooled(maps: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """(N, 1, 1, C)."""
    return keras.layers.AveragePooling2D(maps.shape[1:3], dtype="float32", name=name)(maps)


def _flat(pooled: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.layers.Flatten(dtype="float32", name=f"{name}_flat")(pooled)
