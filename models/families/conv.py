"""The family `conv`: convolutional nets trained from scratch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pawtune.models.families import pixel_nets
from pawtune.models.families.domains import Choices, FloatRange, IntRange
from pawtune.models.families.family import (
    Backbone,
    Layer,
    Price,
)
from pawtune.models.families.layers import dense_outline
from pawtune.models.families.parameters import (
    HALF_SIZE_SHARE,
    PIXEL_NET,
    Parameter,
    computed,
    of_model,
    params_of,
    spec_of,
)
from pawtune.models.model_spec import (
    LEAST_SIDE,
    TUTORIAL_VIEWS,
    Dropout,
    Params,
    PixelNetSpec,
    TrainSpec,
)

if TYPE_CHECKING:
    import keras

Width = Annotated[int, Field(ge=4, le=512, description="4 to 512 filters for each block")]
GROWTHS = (1.0, 1.5, 2.0)


class ConvSpec(PixelNetSpec):
    """A convolutional net trained from scratch.

    A block is convolution, ReLU, 2x2 max pooling; with `batch_norm`, normalisation comes
    between convolution and ReLU. After the blocks: dropout, flatten or global average,
    a dense ReLU layer where `dense_width` > 0, logits.
    """

    family: Literal["conv"] = "conv"
    scaling: Annotated[
        Literal["none", "minus_one_to_one"], Field(description="none or minus_one_to_one")
    ] = "minus_one_to_one"
    filters: Annotated[
        tuple[Width, ...],
        Field(min_length=1, max_length=5, description="1 to 5 widths, one for each block"),
    ]
    kernel_size: Annotated[int, Field(ge=1, le=7, description="a kernel of 1 to 7 px")] = 3
    padding: Annotated[Literal["valid", "same"], Field(description="valid or same")] = "valid"
    batch_norm: Annotated[bool, Field(description="true or false")] = False
    pooling: Annotated[
        Literal["flatten", "global_average"], Field(description="flatten or global_average")
    ] = "flatten"
    dense_width: Annotated[
        int, Field(ge=0, le=512, description="0 (no dense layer) to 512 units")
    ] = 0
    dropout: Dropout = 0.2

    @model_validator(mode="after")
    def _image_survives_the_blocks(self) -> Self:
        sizes = block_sizes(self)
        if min(sizes) < 1:
            raise ValueError(
                f"an image must be at least 1 px wide after every block, but {self.image_size} px "
                f"shrinks to {', '.join(str(max(side, 0)) for side in sizes)} px over "
                f"{len(sizes)} blocks (kernel_size {self.kernel_size}, padding {self.padding}): "
                "give fewer blocks, padding 'same' or a larger image_size"
            )
        return self


def block_sizes(spec: ConvSpec, image_size: int | None = None) -> tuple[int, ...]:
    """Side of the square feature map after each block, in pixels (below 1: nothing is left).

    Args:
        spec: the net.
        image_size: another side of the images than the net's.
    """
    sizes = []
    side = image_size or spec.image_size
    for _ in spec.filters:
        side = (side if spec.padding == "same" else side - spec.kernel_size + 1) // 2
        sizes.append(side)
    return tuple(sizes)


def _survives_at_half(spec: ConvSpec) -> bool:
    side = spec.image_size // 2
    return side >= LEAST_SIDE and min(block_sizes(spec, side)) >= 1


def block_widths(filters: int, growth: float, depth: int) -> tuple[int, ...]:
    """Filters of each block: the first, times the largest power of two within growth^k.

    >>> block_widths(32, 1.5, 5)
    (32, 32, 64, 64, 128)
    """
    return tuple(filters * 2 ** math.floor(math.log2(growth**k) + 1e-9) for k in range(depth))


PARAMETERS = (
    *PIXEL_NET,
    computed(
        "conv_depth",
        IntRange(low=2, high=5),
        "Blocks of the net.",
        Annotated[int, Field(ge=1, le=5, description="1 to 5 blocks")],
    ),
    computed(
        "filters",
        Choices(choices=(16, 32, 64)),
        "Filters of the first block.",
        Annotated[int, Field(ge=4, le=512, description="4 to 512 filters")],
    ),
    computed(
        "filter_growth",
        Choices(choices=GROWTHS),
        "Filters of a block over those of the block before, in powers of two.",
        Annotated[float, Field(ge=1, le=4, description="a number from 1 to 4")],
    ),
    of_model(ConvSpec, "kernel_size", Choices(choices=(3, 5)), "Side of the convolutions."),
    of_model(
        ConvSpec,
        "padding",
        Choices(choices=("valid", "same")),
        "Whether convolutions shrink the image.",
    ),
    of_model(
        ConvSpec, "batch_norm", Choices(choices=(True, False)), "Batch normalisation in each block."
    ),
    of_model(
        ConvSpec,
        "pooling",
        Choices(choices=("flatten", "global_average")),
        "What follows the blocks.",
        name="conv_pooling",
    ),
    # Weights behind a flattened map fit one size of images.
    replace(HALF_SIZE_SHARE, only_if=("conv_pooling", ("global_average",))),
    of_model(
        ConvSpec,
        "dense_width",
        Choices(choices=(0, 32, 64, 128, 256, 512)),
        "Units of the dense layer.",
        name="conv_dense_width",
    ),
    of_model(
        ConvSpec,
        "dropout",
        FloatRange(low=0.0, high=0.6, step=0.1),
        "Dropout after the blocks.",
        name="conv_dropout",
    ),
    of_model(
        ConvSpec,
        "scaling",
        Choices(choices=("none", "minus_one_to_one")),
        "Pixels as they are, or in [-1, 1].",
    ),
)


class ConvFamily:
    """The family `conv`, see `Family`."""

    name = "conv"
    spec_type = ConvSpec
    parameters: Sequence[Parameter] = PARAMETERS
    baselines: Mapping[str, ConvSpec] = {
        "tutorial_1": ConvSpec(filters=(32, 32), scaling="none"),
        "tutorial_2": ConvSpec(filters=(32, 32), scaling="none", dense_width=64, **TUTORIAL_VIEWS),
        "tutorial_3": ConvSpec(filters=(32, 32, 64), dense_width=128, **TUTORIAL_VIEWS),
    }
    needs, may_need = pixel_nets.needs, pixel_nets.may_need
    inputs, build = pixel_nets.inputs, pixel_nets.build
    # After whatever is cheaper: a plain net of five blocks.
    portfolio: Sequence[Params] = (
        {
            "flip": "horizontal",
            "rotation_factor": 0.0,
            "zoom_factor": 0.0,
            "shift_factor": 0.1,
            "brightness_factor": 0.2,
            "contrast_factor": 0.0,
            "learning_rate": 0.002,
            "batch_size": 32,
            "optimizer": "adamw",
            "weight_decay": 0.02,
            "schedule": "cosine",
            "label_smoothing": 0.1,
            "conv_depth": 5,
            "filters": 16,
            "filter_growth": 2.0,
            "kernel_size": 3,
            "padding": "same",
            "batch_norm": True,
            "conv_pooling": "global_average",
            "half_size_share": 0.0,
            "conv_dense_width": 0,
            "conv_dropout": 0.3,
            "scaling": "minus_one_to_one",
        },
    )

    def to_spec(self, params: Params, train: TrainSpec) -> tuple[ConvSpec, TrainSpec]:
        """The specification that a point of the space stands for."""
        first, growth, depth = (params[k] for k in ("filters", "filter_growth", "conv_depth"))
        widths = block_widths(int(first), float(growth), int(depth))
        model, train = spec_of(ConvSpec, PARAMETERS, params, train, filters=widths)
        if train.half_size_share and not _survives_at_half(model):
            train = train.model_copy(update={"half_size_share": 0.0})
        return model, train

    def to_params(self, model: ConvSpec, train: TrainSpec) -> Params | None:
        """The point of the space; None where the widths fit no growth."""
        first, depth = model.filters[0], len(model.filters)
        growth = next((g for g in GROWTHS if block_widths(first, g, depth) == model.filters), None)
        if growth is None:
            return None
        widths: Params = {"conv_depth": depth, "filters": first, "filter_growth": growth}
        return params_of(PARAMETERS, model, train) | widths

    def columns(self, model: ConvSpec) -> Params:
        """Flat values; widths are joined, "32-32-64"."""
        params: Params = {}
        for key, value in model.model_dump().items():
            if key == "filters":
                params["conv_depth"] = len(value)
                value = "-".join(map(str, value))
            params[key] = value
        return params

    def price(self, model: ConvSpec, num_classes: int) -> Price:
        """Weights and multiply-adds of convolutions and dense layers."""
        weights = multiply_adds = 0
        side, channels = model.image_size, 3
        for width, pooled in zip(model.filters, block_sizes(model), strict=True):
            kernel = model.kernel_size**2 * channels * width
            convolved = side if model.padding == "same" else side - model.kernel_size + 1
            # Convolutions under batch norm have no bias; gamma, beta, mean and variance instead.
            weights += kernel + (4 if model.batch_norm else 1) * width
            multiply_adds += convolved**2 * kernel
            side, channels = pooled, width
        dense = _dense_sizes(model, num_classes)
        return Price(
            weights + sum((inputs + 1) * outputs for inputs, outputs in dense),
            multiply_adds + sum(inputs * outputs for inputs, outputs in dense),
        )

    def build_core(
        self,
        model: ConvSpec,
        num_classes: int,
        backbones: Mapping[Backbone, keras.Model],
        *,
        seed: int = 0,
        plain: bool = False,
    ) -> keras.Model:
        """(N, S, S, 3) pixels 0..255 → (N, num_classes) logits, under the current policy."""
        import keras

        from pawtune.models.build import dense_layers
        from pawtune.models.training.fused_batch_norm import FusedBatchNormalization

        seeds = iter(range(seed, seed + 100))
        batch_norm = keras.layers.BatchNormalization if plain else FusedBatchNormalization
        inputs = keras.Input((model.image_size, model.image_size, 3), name="pixels")
        x = inputs
        if model.scaling == "minus_one_to_one":
            x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scaling")(x)
        for number, width in enumerate(model.filters, start=1):
            x = keras.layers.Conv2D(
                width,
                model.kernel_size,
                padding=model.padding,
                use_bias=not model.batch_norm,  # batch norm has its own offset
                kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds)),
                name=f"conv_{number}",
            )(x)
            if model.batch_norm:
                x = batch_norm(name=f"norm_{number}")(x)
            # max(relu(x)) = relu(max(x)), in value and gradient: on a quarter of the pixels. In
            # bfloat16 ReLU's gradient before the first pooling took a sixth of a step on a CPU.
            x = keras.layers.MaxPooling2D(2, name=f"pool_{number}")(x)
            x = keras.layers.ReLU(name=f"relu_{number}")(x)
        x = keras.layers.Dropout(model.dropout, seed=next(seeds), name="dropout")(x)
        if model.pooling == "flatten":
            x = keras.layers.Flatten(name="flatten")(x)
        else:
            x = keras.layers.GlobalAveragePooling2D(name="global_average")(x)
        outputs = dense_layers(x, model.dense_width, num_classes, seed=next(seeds))
        return keras.Model(inputs, outputs, name="conv_core")

    def layers(
        self, model: ConvSpec, num_classes: int, facts: Mapping[str, Any]
    ) -> Iterator[Layer]:
        """Scaling, blocks, pooling and dense layers."""
        side, channels = model.image_size, 3
        if model.scaling != "none":
            yield Layer("scaling", "Rescaling", "to [-1, 1]", (side, side, 3))
        for number, (width, pooled) in enumerate(
            zip(model.filters, block_sizes(model), strict=True), start=1
        ):
            block, kernel = f"block_{number}", model.kernel_size
            if model.padding == "valid":
                side -= kernel - 1
            shape = (side, side, width)
            weights = kernel**2 * channels * width + (0 if model.batch_norm else width)
            detail = f"{width} filters, {kernel} x {kernel}, {model.padding}"
            yield Layer(f"{block}/conv", "Conv2D", detail, shape, weights)
            if model.batch_norm:
                yield Layer(f"{block}/norm", "BatchNormalization", "", shape, 4 * width)
            side, channels = pooled, width
            yield Layer(f"{block}/pool", "MaxPooling2D", "2 x 2", (side, side, width))
            yield Layer(f"{block}/relu", "ReLU", "", (side, side, width))
        if model.dropout:
            yield Layer("dropout", "Dropout", f"{model.dropout:g}", (side, side, channels))
        flat = model.pooling == "flatten"
        features = side * side * channels if flat else channels
        yield Layer("pooling", "Flatten" if flat else "GlobalAveragePooling2D", "", (features,))
        yield from dense_outline(features, model.dense_width, num_classes)


def _dense_sizes(model: ConvSpec, num_classes: int) -> list[tuple[int, int]]:
    """(inputs, outputs) of each dense layer after the blocks."""
    area = block_sizes(model)[-1] ** 2 if model.pooling == "flatten" else 1
    widths = [area * model.filters[-1], *([model.dense_width] if model.dense_width else [])]
    return list(zip(widths, [*widths[1:], num_classes], strict=True))


CONV = ConvFamily()
