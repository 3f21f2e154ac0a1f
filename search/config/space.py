"""What the search varies: a domain for each parameter, checked against the models' own rules."""

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from pawtune.models.spec import ConvSpec, TrainSpec, TransferSpec
from pawtune.search.config.domains import (
    Choices,
    Domain,
    FloatDomain,
    FloatRange,
    IntDomain,
    IntRange,
    Scalar,
    Strict,
    corners,
)
from pawtune.search.config.settings import Setting, setting_of


def _tuned(owner: type[BaseModel], field: str, meaning: str) -> Setting:
    """A parameter of the space that becomes a field of a spec: the spec's rule holds."""
    required = {"filters": (32,)} if owner is ConvSpec else {}
    description = owner.model_fields[field].description
    assert description is not None
    return Setting(
        description,
        meaning,
        lambda value: owner.model_validate({**required, field: value}, strict=True),
    )


def _widths(value: Scalar) -> object:
    return ConvSpec.model_validate({"filters": (value,)}, strict=True)


_DEPTH: TypeAdapter[int] = TypeAdapter(Annotated[int, Field(strict=True, ge=1, le=5)])
_GROWTH: TypeAdapter[float] = TypeAdapter(Annotated[float, Field(strict=True, ge=1, le=4)])


class SpaceConfig(Strict):
    """What the search varies. Each is a range, a list of choices, or one fixed value."""

    flip: Annotated[Choices, _tuned(ConvSpec, "flip", "Random flips of training images.")] = (
        Choices(choices=("none", "horizontal", "horizontal_and_vertical"))
    )
    rotation_factor: Annotated[
        FloatDomain, _tuned(ConvSpec, "rotation_factor", "Random rotations of training images.")
    ] = FloatRange(low=0.0, high=0.9, step=0.05)
    learning_rate: Annotated[
        FloatDomain, _tuned(TrainSpec, "learning_rate", "The optimizer's step.")
    ] = FloatRange(low=1e-4, high=1e-2, log=True)
    batch_size: Annotated[IntDomain, _tuned(TrainSpec, "batch_size", "Images of one step.")] = (
        Choices(choices=(16, 32, 64, 128))
    )
    optimizer: Annotated[
        Choices, _tuned(TrainSpec, "optimizer", "The optimizer (sgd: Nesterov momentum 0.9).")
    ] = Choices(choices=("adam", "adamw", "sgd"))

    conv_depth: Annotated[
        IntDomain, Setting("1 to 5 blocks", "conv: blocks of the net.", _DEPTH.validate_python)
    ] = IntRange(low=2, high=5)
    filters: Annotated[
        IntDomain,
        Setting("4 to 512 filters", "conv: filters of the first block.", _widths),
    ] = Choices(choices=(16, 32, 64))
    filter_growth: Annotated[
        FloatDomain,
        Setting(
            "a number from 1 to 4",
            "conv: filters of a block over those of the block before, in powers of two.",
            _GROWTH.validate_python,
        ),
    ] = Choices(choices=(1.0, 1.5, 2.0))
    kernel_size: Annotated[
        IntDomain, _tuned(ConvSpec, "kernel_size", "conv: side of the convolutions.")
    ] = Choices(choices=(3, 5))
    padding: Annotated[
        Choices, _tuned(ConvSpec, "padding", "conv: whether convolutions shrink the image.")
    ] = Choices(choices=("valid", "same"))
    batch_norm: Annotated[
        Choices, _tuned(ConvSpec, "batch_norm", "conv: batch normalisation in each block.")
    ] = Choices(choices=(True, False))
    conv_pooling: Annotated[
        Choices, _tuned(ConvSpec, "pooling", "conv: what follows the blocks.")
    ] = Choices(choices=("flatten", "global_average"))
    conv_dense_width: Annotated[
        IntDomain, _tuned(ConvSpec, "dense_width", "conv: units of the dense layer.")
    ] = Choices(choices=(0, 32, 64, 128, 256, 512))
    conv_dropout: Annotated[
        FloatDomain, _tuned(ConvSpec, "dropout", "conv: dropout after the blocks.")
    ] = FloatRange(low=0.0, high=0.6, step=0.1)
    scaling: Annotated[
        Choices, _tuned(ConvSpec, "scaling", "conv: pixels as they are, or in [-1, 1].")
    ] = Choices(choices=("none", "minus_one_to_one"))

    backbone: Annotated[
        Choices, _tuned(TransferSpec, "backbone", "transfer: the frozen network.")
    ] = Choices(choices=("MobileNetV2",))
    head_pooling: Annotated[
        Choices, _tuned(TransferSpec, "pooling", "transfer: how its features are pooled.")
    ] = Choices(choices=("average", "max"))
    head_dense_width: Annotated[
        IntDomain, _tuned(TransferSpec, "dense_width", "transfer: units of the dense layer.")
    ] = Choices(choices=(0, 64, 128, 256, 512))
    head_dropout: Annotated[
        FloatDomain, _tuned(TransferSpec, "dropout", "transfer: dropout on the features.")
    ] = FloatRange(low=0.0, high=0.6, step=0.1)

    @model_validator(mode="before")
    @classmethod
    def _complete_ranges(cls, given: Any) -> Any:
        """{high: 4} changes the default range's end: what is left out keeps its default."""
        if not isinstance(given, dict):
            return given
        return {name: _complete(value, cls.model_fields.get(name)) for name, value in given.items()}

    @field_validator("*")
    @classmethod
    def _models_can_have_it(cls, domain: Domain, info: ValidationInfo) -> Domain:
        assert info.field_name is not None
        setting = setting_of(cls.model_fields[info.field_name])
        assert setting.check is not None
        for value in corners(domain):
            try:
                setting.check(value)
            except ValidationError:
                raise ValueError(
                    f"no model may have {value!r} here; give {setting.accepts}"
                ) from None
        return domain


def _complete(given: Any, field: FieldInfo | None) -> Any:
    default = field.default if field else None
    if isinstance(given, dict) and isinstance(default, IntRange | FloatRange):
        return given if "choices" in given else {**default.model_dump(), **given}
    return given
