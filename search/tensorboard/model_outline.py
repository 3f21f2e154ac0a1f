"""A model's layers in words and numbers, from its specification alone: no Keras needed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pawtune.models.spec import ConvSpec, TransferSpec, block_sizes


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        name: Unique in its model; parts of a block share a prefix.
        kind: What it does, in Keras' word where it has one.
        detail: Its settings, in words.
        shape: Of its output, without the batch.
        weights: Those that are never trained included.
    """

    name: str
    kind: str
    detail: str
    shape: tuple[int, ...]
    weights: int = 0


def outline(
    spec: ConvSpec | TransferSpec, num_classes: int, facts: Mapping[str, Any] | None = None
) -> list[Layer]:
    """The layers from pixels to logits.

    Args:
        spec: The model.
        num_classes: Logits.
        facts: What the trial's worker found out: a backbone's width and weights follow from
            `trainable_weights` and `num_weights`; without them they are shown as 0.
    """
    layers = list(_augmentation_layers(spec))
    if isinstance(spec, ConvSpec):
        return layers + list(_conv_layers(spec, num_classes))
    return layers + list(_transfer_layers(spec, num_classes, facts or {}))


def _augmentation_layers(spec: ConvSpec | TransferSpec) -> Iterator[Layer]:
    image = (spec.image_size, spec.image_size, 3)
    yield Layer("image", "Input", "pixels, 0 to 255", image)
    if spec.flip != "none":
        yield Layer("augmentation/flip", "RandomFlip", spec.flip.replace("_", " "), image)
    if spec.rotation_factor:
        detail = f"up to ±{360 * spec.rotation_factor:g}°"
        yield Layer("augmentation/rotation", "RandomRotation", detail, image)


def _conv_layers(spec: ConvSpec, num_classes: int) -> Iterator[Layer]:
    side, channels = spec.image_size, 3
    if spec.scaling != "none":
        yield Layer("scaling", "Rescaling", "to [-1, 1]", (side, side, 3))
    for number, (width, pooled) in enumerate(
        zip(spec.filters, block_sizes(spec), strict=True), start=1
    ):
        block, kernel = f"block_{number}", spec.kernel_size
        if spec.padding == "valid":
            side -= kernel - 1
        shape = (side, side, width)
        bias = 0 if spec.batch_norm else width
        detail = f"{width} filters, {kernel} x {kernel}, {spec.padding}"
        yield Layer(f"{block}/conv", "Conv2D", detail, shape, kernel**2 * channels * width + bias)
        if spec.batch_norm:
            yield Layer(f"{block}/norm", "BatchNormalization", "", shape, 4 * width)
        side, channels = pooled, width
        yield Layer(f"{block}/pool", "MaxPooling2D", "2 x 2", (side, side, width))
        yield Layer(f"{block}/relu", "ReLU", "", (side, side, width))
    if spec.dropout:
        yield Layer("dropout", "Dropout", f"{spec.dropout:g}", (side, side, channels))
    flat = spec.pooling == "flatten"
    features = side * side * channels if flat else channels
    yield Layer("pooling", "Flatten" if flat else "GlobalAveragePooling2D", "", (features,))
    yield from _dense_layers(features, spec.dense_width, num_classes)


def _transfer_layers(
    spec: TransferSpec, num_classes: int, facts: Mapping[str, Any]
) -> Iterator[Layer]:
    trained = int(facts.get("trainable_weights", 0))
    frozen = int(facts.get("num_weights", trained)) - trained
    # The head's first layer has (features + 1) weights for each of its outputs.
    after = (spec.dense_width + 1) * num_classes if spec.dense_width else 0
    features = max(0, (trained - after) // (spec.dense_width or num_classes) - 1)
    yield Layer("backbone", spec.backbone, "frozen, with its preprocessing", (features,), frozen)
    yield Layer("pooling", f"Global{spec.pooling.capitalize()}Pooling2D", "", (features,))
    if spec.dropout:
        yield Layer("dropout", "Dropout", f"{spec.dropout:g}", (features,))
    yield from _dense_layers(features, spec.dense_width, num_classes)


def _dense_layers(features: int, dense_width: int, num_classes: int) -> Iterator[Layer]:
    if dense_width:
        weights = (features + 1) * dense_width
        yield Layer("dense", "Dense", "ReLU", (dense_width,), weights)
        features = dense_width
    weights = (features + 1) * num_classes
    yield Layer("logits", "Dense", "", (num_classes,), weights)
