"""A model's layers in words and numbers, from its specification alone: no Keras needed."""

from collections.abc import Iterator, Mapping
from typing import Any

from pawtune.models.families.family import Layer
from pawtune.models.families.table import family_of
from pawtune.models.model_spec import ModelSpec, PixelNetSpec


def outline(
    spec: ModelSpec, num_classes: int, facts: Mapping[str, Any] | None = None
) -> list[Layer]:
    """The layers from pixels to logits.

    Args:
        spec: The model.
        num_classes: Logits.
        facts: Record of the trial's worker: a backbone's width and weights follow from
            `trainable_weights` and `num_weights`; without them they are shown as 0.
    """
    family = family_of(spec)
    return [*_augmentation_layers(spec), *family.layers(spec, num_classes, facts or {})]


def _augmentation_layers(spec: ModelSpec) -> Iterator[Layer]:
    image = (spec.image_size, spec.image_size, 3)
    yield Layer("image", "Input", "pixels, 0 to 255", image)
    if spec.flip != "none":
        yield Layer("augmentation/flip", "RandomFlip", spec.flip.replace("_", " "), image)
    if spec.rotation_factor:
        detail = f"up to ±{360 * spec.rotation_factor:g}°"
        yield Layer("augmentation/rotation", "RandomRotation", detail, image)
    if not isinstance(spec, PixelNetSpec):
        return
    for name, layer, factor in (
        ("zoom", "RandomZoom", spec.zoom_factor),
        ("shift", "RandomTranslation", spec.shift_factor),
        ("brightness", "RandomBrightness", spec.brightness_factor),
        ("contrast", "RandomContrast", spec.contrast_factor),
    ):
        if factor:
            yield Layer(f"augmentation/{name}", layer, f"up to ±{100 * factor:g}%", image)
