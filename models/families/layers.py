"""Layers of a model in words and numbers, without Keras: what families have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pawtune.models.families.family import Layer


def reported_weights(facts: Mapping[str, Any]) -> tuple[int, int]:
    """Numbers of frozen and of trained weights; 0 until a worker has reported them."""
    trained = int(facts.get("trainable_weights", 0))
    return int(facts.get("num_weights", trained)) - trained, trained


def dense_outline(features: int, dense_width: int, num_classes: int) -> Iterator[Layer]:
    """The layers of `build.dense_layers`.

    Args:
        features: number of inputs.
        dense_width: units of the dense ReLU layer; 0: none.
        num_classes: number of logits.
    """
    if dense_width:
        weights = (features + 1) * dense_width
        yield Layer("dense", "Dense", "ReLU", (dense_width,), weights)
        features = dense_width
    yield Layer("logits", "Dense", "", (num_classes,), (features + 1) * num_classes)
