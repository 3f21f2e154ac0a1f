"""What a trial trains: frozen specs with their rules, JSON in and out, and the five baselines.

Plain pydantic, no Keras: a search proposes, checks and lists specs without loading TensorFlow.
`spec.model_dump_json()` and `TrialSpec.model_validate_json(text)` round-trip exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pawtune.models.errors import ModelError

Flip = Literal["none", "horizontal", "horizontal_and_vertical"]
Optimizer = Literal["adam", "adamw", "sgd"]
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
Params = dict[str, str | int | float | bool]

MAX_WEIGHTS = 20_000_000
MAX_COST_RATIO = 5  # multiply-adds of an image's forward pass, against tutorial_3 at 160 px


class _Spec(BaseModel):
    # protected_namespaces: a field called `model` is the natural name here.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )


# Each description finishes the sentence "give …": `explain` prints it as the remedy.
_ImageSize = Annotated[int, Field(ge=32, le=1024, description="an image side of 32 to 1024 px")]
_Flip = Annotated[Flip, Field(description="none, horizontal or horizontal_and_vertical")]
_Rotation = Annotated[
    float, Field(ge=0, le=1, description="a number from 0 to 1 (angles up to ±2π times it)")
]
_Dropout = Annotated[float, Field(ge=0, le=0.9, description="a number from 0 to 0.9")]
_Width = Annotated[int, Field(ge=4, le=512, description="4 to 512 filters for each block")]


class ConvSpec(_Spec):
    """A convolutional net trained from scratch.

    A block is convolution, ReLU, 2x2 max pooling; with `batch_norm`, normalisation comes
    between convolution and ReLU. After the blocks: dropout, flatten or global average,
    a dense ReLU layer where `dense_width` > 0, logits.
    """

    family: Literal["conv"] = "conv"
    image_size: _ImageSize = 160
    flip: _Flip = "none"
    rotation_factor: _Rotation = 0.0
    scaling: Annotated[
        Literal["none", "minus_one_to_one"], Field(description="none or minus_one_to_one")
    ] = "minus_one_to_one"
    filters: Annotated[
        tuple[_Width, ...],
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
    dropout: _Dropout = 0.2

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


class TransferSpec(_Spec):
    """A frozen `keras.applications` backbone with a small trained head.

    The head: pooled features, dropout, a dense ReLU layer where `dense_width` > 0, logits.
    """

    family: Literal["transfer"] = "transfer"
    image_size: _ImageSize = 160
    flip: _Flip = "none"
    rotation_factor: _Rotation = 0.0
    backbone: Annotated[
        str, Field(min_length=1, description="the name of a keras.applications model")
    ] = "MobileNetV2"
    pooling: Annotated[Literal["average", "max"], Field(description="average or max")] = "average"
    dense_width: Annotated[
        int, Field(ge=0, le=2048, description="0 (no dense layer) to 2048 units")
    ] = 0
    dropout: _Dropout = 0.2


ModelSpec = Annotated[
    ConvSpec | TransferSpec, Field(discriminator="family", description="family conv or transfer")
]


class TrainSpec(_Spec):
    """How a model is trained. `sgd` has momentum 0.9, Nesterov's."""

    learning_rate: Annotated[float, Field(gt=0, description="a number above 0")] = 1e-3
    batch_size: Annotated[int, Field(ge=1, le=4096, description="1 to 4096 images")] = 32
    optimizer: Annotated[Optimizer, Field(description="adam, adamw or sgd")] = "adam"
    epochs: Annotated[int, Field(ge=1, description="1 epoch or more")] = 20
    seed: Annotated[int, Field(ge=0, lt=2**31, description="a whole number from 0")] = 0
    precision: Annotated[
        Precision, Field(description="auto, float32, mixed_bfloat16 or mixed_float16")
    ] = "auto"
    class_weights: Annotated[bool, Field(description="true or false")] = False


class TrialSpec(_Spec):
    """A whole trial: the model and how it is trained, under a name for people."""

    name: Annotated[str, Field(min_length=1, description="a name")]
    model: ModelSpec
    train: TrainSpec = TrainSpec()

    def params(self) -> Params:
        """Flat parameters for tables and TensorBoard: what a search may vary, no more.

        Widths are joined ("32-32-64"); `class_weights` appears only where set.
        """
        params: Params = {}
        for key, value in self.model.model_dump().items():
            if key == "filters":
                params["conv_depth"] = len(value)
                params["filters"] = "-".join(str(width) for width in value)
            else:
                params[key] = value
        params["learning_rate"] = self.train.learning_rate
        params["batch_size"] = self.train.batch_size
        params["optimizer"] = self.train.optimizer
        if self.train.class_weights:
            params["class_weights"] = True
        return params


def block_sizes(spec: ConvSpec) -> tuple[int, ...]:
    """Side of the square feature map after each block, in pixels (below 1: nothing is left)."""
    sizes = []
    side = spec.image_size
    for _ in spec.filters:
        side = (side if spec.padding == "same" else side - spec.kernel_size + 1) // 2
        sizes.append(side)
    return tuple(sizes)


def count_weights(spec: ConvSpec, num_classes: int) -> int:
    """Weights of the net, those of batch normalisation that are not trained included."""
    total = 0
    channels = 3
    for width in spec.filters:
        # Convolutions under batch norm have no bias; gamma, beta, mean and variance instead.
        total += spec.kernel_size**2 * channels * width + (4 if spec.batch_norm else 1) * width
        channels = width
    return total + sum((inputs + 1) * outputs for inputs, outputs in _dense(spec, num_classes))


def count_multiply_adds(spec: ConvSpec, num_classes: int) -> int:
    """Multiply-adds of one image's forward pass through convolutions and dense layers."""
    total = 0
    side, channels = spec.image_size, 3
    for width, pooled in zip(spec.filters, block_sizes(spec), strict=True):
        convolved = side if spec.padding == "same" else side - spec.kernel_size + 1
        total += convolved**2 * spec.kernel_size**2 * channels * width
        side, channels = pooled, width
    return total + sum(inputs * outputs for inputs, outputs in _dense(spec, num_classes))


def _dense(spec: ConvSpec, num_classes: int) -> list[tuple[int, int]]:
    """(inputs, outputs) of each dense layer after the blocks."""
    area = block_sizes(spec)[-1] ** 2 if spec.pooling == "flatten" else 1
    widths = [area * spec.filters[-1], *([spec.dense_width] if spec.dense_width else [])]
    return list(zip(widths, [*widths[1:], num_classes], strict=True))


def check_limits(spec: ConvSpec | TransferSpec, num_classes: int) -> None:
    """Refuse a net too large or too slow for a search; heads on backbones are always small.

    Raises:
        ModelError: more than 20 million weights, or more than five times the multiply-adds
            of tutorial_3 at 160 px.
    """
    if isinstance(spec, TransferSpec):
        return
    weights = count_weights(spec, num_classes)
    if weights > MAX_WEIGHTS:
        raise ModelError(
            f"a net may have at most {MAX_WEIGHTS:,} weights, this one has {weights:,}: give "
            "fewer filters, a smaller dense_width or pooling 'global_average'"
        )
    reference = BASELINES["tutorial_3"].model
    assert isinstance(reference, ConvSpec)
    ratio = count_multiply_adds(spec, num_classes) / count_multiply_adds(reference, num_classes)
    if ratio > MAX_COST_RATIO:
        raise ModelError(
            f"a net may cost at most {MAX_COST_RATIO} times the multiply-adds of tutorial_3 at "
            f"160 px, this one costs {ratio:.1f} times: give fewer filters, a smaller "
            "kernel_size or a smaller image_size"
        )


# The published tutorial's "both flips, 0.9" of models 2 to 5.
_AUGMENTED: dict[str, Any] = {"flip": "horizontal_and_vertical", "rotation_factor": 0.9}

_TUTORIALS: tuple[ConvSpec | TransferSpec, ...] = (
    ConvSpec(filters=(32, 32), scaling="none"),
    ConvSpec(filters=(32, 32), scaling="none", dense_width=64, **_AUGMENTED),
    ConvSpec(filters=(32, 32, 64), dense_width=128, **_AUGMENTED),
    TransferSpec(pooling="max", **_AUGMENTED),
    TransferSpec(pooling="max", dense_width=128, **_AUGMENTED),
)

BASELINES: Mapping[str, TrialSpec] = {
    f"tutorial_{number}": TrialSpec(name=f"tutorial_{number}", model=model)
    for number, model in enumerate(_TUTORIALS, start=1)
}


def baseline(name: str, epochs: int = 20, seed: int = 0) -> TrialSpec:
    """The named tutorial model at 160 px, batch 32, adam 1e-3.

    Raises:
        ModelError: no baseline has that name.
    """
    if name not in BASELINES:
        raise ModelError(
            f"a baseline is one of {', '.join(BASELINES)}, received {name!r}"
            + did_you_mean(name, BASELINES)
        )
    trial = BASELINES[name]
    train = TrainSpec(**{**trial.train.model_dump(), "epochs": epochs, "seed": seed})
    return trial.model_copy(update={"train": train})


def did_you_mean(word: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    """'; did you mean X?' for the nearest known word, case ignored; '' where none is near."""
    by_lower = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), by_lower, n=1)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


def explain(error: ValidationError) -> str:
    """All errors of a refused spec in one line: where, rule, value received, remedy."""
    items = error.errors()
    # A tuple whose items were refused is also called too short: that says nothing new.
    told = [item for item in items if item["type"] != "too_short" or not item["input"]]
    return "; ".join(_explain_one(dict(item)) for item in told)


_FIELDS = {
    name: field.description or ""
    for owner in (ConvSpec, TransferSpec, TrainSpec, TrialSpec)
    for name, field in owner.model_fields.items()
}


def _explain_one(item: dict[str, Any]) -> str:
    # Pydantic puts the union's tag into the place ("model.conv.dropout"): nobody typed it.
    parts = [str(part) for part in item["loc"] if part not in ("conv", "transfer")]
    prefix = f"{'.'.join(parts)}: " if parts else ""
    field = next((part for part in reversed(parts) if part in _FIELDS), "")
    remedy = f"; give {_FIELDS[field]}" if _FIELDS.get(field) else ""
    if item["type"] == "value_error":  # ours: rule, value and remedy are in it already
        return prefix + str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return f"{prefix}no such setting{did_you_mean(parts[-1], _FIELDS) or '; leave it out'}"
    if item["type"] in ("missing", "union_tag_not_found"):
        name = field if item["type"] == "missing" else "family"
        return f"{prefix}{name} is required, but missing{remedy}"
    if item["type"] == "union_tag_invalid":
        return f"{prefix}family must be conv or transfer, received {item['ctx']['tag']!r}"
    return f"{prefix}{item['msg'].removeprefix('Input ')}, received {item['input']!r}{remedy}"
