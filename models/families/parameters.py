"""Parameters of a search space: their names, default domains and rules, and those all share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from pawtune.models.families.domains import Choices, Domain, FloatRange, corners
from pawtune.models.model_spec import ModelSpec, Params, PixelNetSpec, TrainSpec

Section = Literal["model", "train"]
S = TypeVar("S", bound=ModelSpec)


@dataclass(frozen=True, eq=False)
class Parameter:
    """One parameter of the search space.

    Attributes:
        name: name in the space, unique among all families.
        default: the domain that is searched by default.
        meaning: a sentence on the parameter.
        rule: the rule that a value must keep, with a description that finishes "give …".
        section: the part of the specification that holds it; None: the family computes with it.
        field: its field there.
        only_if: an earlier parameter and its values at which this one is proposed; None: always.
    """

    name: str
    default: Domain
    meaning: str
    rule: FieldInfo
    section: Section | None = None
    field: str = ""
    only_if: tuple[str, Sequence[str | int | float | bool]] | None = None

    @property
    def accepts(self) -> str:
        """What it takes, to follow "give"."""
        return self.rule.description or ""

    @property
    def kind(self) -> type:
        """Type of its values: int, float, or object for choices that are not all numbers."""
        values = corners(self.default)
        whole = all(type(value) is int for value in values)
        numbers = all(type(value) in (int, float) for value in values)
        return int if whole else float if numbers else object

    def check(self, value: Any) -> None:
        """Raises pydantic.ValidationError for a value that no model may have."""
        rule: Any = Annotated[self.rule.annotation, self.rule]
        TypeAdapter(rule).validate_python(value, strict=True)

    def means_the_same(self, other: Parameter) -> bool:
        """Whether two families may share the name: one field, one rule, one domain.

        When it is proposed may differ.
        """
        same_field = (self.section, self.field) == (other.section, other.field)
        return same_field and self.rule is other.rule and self.default == other.default

    def applies(self, params: Mapping[str, Any]) -> bool:
        """Whether it is proposed after these parameters."""
        return self.only_if is None or params.get(self.only_if[0]) in self.only_if[1]


def of_model(
    spec: type[ModelSpec],
    field: str,
    default: Domain,
    meaning: str,
    *,
    name: str = "",
    only_if: tuple[str, Sequence[str | int | float | bool]] | None = None,
) -> Parameter:
    """A parameter that is a field of the model's specification, under its rule.

    Args:
        spec: the family's specification.
        field: its name there.
        default: the domain that is searched by default.
        meaning: a sentence on the parameter.
        name: name in the space; by default the field's name.
        only_if: see `Parameter`.
    """
    rule = spec.model_fields[field]
    return Parameter(name or field, default, meaning, rule, "model", field, only_if)


def of_training(field: str, default: Domain, meaning: str, *, name: str = "") -> Parameter:
    """A parameter that is a field of `TrainSpec`, by default under its name."""
    rule = TrainSpec.model_fields[field]
    return Parameter(name or field, default, meaning, rule, "train", field)


def computed(name: str, default: Domain, meaning: str, rule: Any) -> Parameter:
    """A parameter from which the family computes fields of its specification.

    Args:
        name: name in the space.
        default: the domain that is searched by default.
        meaning: a sentence on the parameter.
        rule: an annotated type, such as Annotated[int, Field(ge=1, description="1 or more")].
    """
    return Parameter(name, default, meaning, FieldInfo.from_annotation(rule))


FLIP = of_model(
    ModelSpec,
    "flip",
    Choices(choices=("none", "horizontal", "horizontal_and_vertical")),
    "Random flips of training images.",
)
ROTATION = of_model(
    ModelSpec,
    "rotation_factor",
    FloatRange(low=0.0, high=0.05, step=0.05),
    "Random rotations of training images, as a part of a turn to either side.",
)
LEARNING_RATE = of_training(
    "learning_rate", FloatRange(low=1e-4, high=1e-2, log=True), "The optimizer's step."
)
BATCH_SIZE = of_training("batch_size", Choices(choices=(16, 32, 64, 128)), "Images of one step.")
OPTIMIZER = of_training(
    "optimizer",
    Choices(choices=("adam", "adamw", "sgd")),
    "The optimizer (sgd: Nesterov momentum 0.9).",
)
WEIGHT_DECAY = replace(
    of_training(
        "weight_decay",
        FloatRange(low=1e-3, high=0.2, log=True),
        "Decoupled weight decay of kernels, with adamw.",
    ),
    only_if=("optimizer", ("adamw",)),
)
SCHEDULE = of_training(
    "schedule",
    Choices(choices=("cosine", "constant")),
    "The learning rate as it is, or with a warm-up and along a cosine to 0.",
)
LABEL_SMOOTHING = of_training(
    "label_smoothing",
    FloatRange(low=0.0, high=0.1, step=0.05),
    "Share of a label that is spread over all classes.",
)
HALF_SIZE_SHARE = of_training(
    "half_size_share",
    Choices(choices=(0.0, 0.5)),
    "Share of the epochs, the first ones, on images of half the side, in a third of their time.",
)
TRAINING = (LEARNING_RATE, BATCH_SIZE, OPTIMIZER, WEIGHT_DECAY, SCHEDULE, LABEL_SMOOTHING)
# Of every family that trains epoch by epoch.
SHARED = (FLIP, ROTATION, *TRAINING)
# Of a family whose specification is a `PixelNetSpec`.
PIXEL_NET = (
    *SHARED,
    of_model(
        PixelNetSpec,
        "zoom_factor",
        FloatRange(low=0.0, high=0.2, step=0.1),
        "Random sizes of training images, from 1 - it to 1 + it.",
    ),
    of_model(
        PixelNetSpec,
        "shift_factor",
        FloatRange(low=0.0, high=0.15, step=0.05),
        "Random shifts of training images, as a part of the side.",
    ),
    of_model(
        PixelNetSpec,
        "brightness_factor",
        FloatRange(low=0.0, high=0.2, step=0.1),
        "Random brightness of training images, as a part of 255.",
    ),
    of_model(
        PixelNetSpec,
        "contrast_factor",
        FloatRange(low=0.0, high=0.2, step=0.1),
        "Random contrast of training images, from 1 - it to 1 + it.",
    ),
)


def spec_of(
    spec_type: type[S],
    parameters: Sequence[Parameter],
    params: Params,
    train: TrainSpec,
    **computed_fields: Any,
) -> tuple[S, TrainSpec]:
    """`Family.to_spec` for parameters that are fields of the specification.

    Args:
        spec_type: the family's specification.
        parameters: the family's.
        params: `image_size` and the proposed values; those that were not proposed keep the
            specification's default.
        train: see `Family.to_spec`.
        computed_fields: fields of the model that no single parameter holds.
    """
    given = [(p, params[p.name]) for p in parameters if p.section and p.name in params]
    model = {p.field: value for p, value in given if p.section == "model"}
    training = {p.field: value for p, value in given if p.section == "train"}
    return (
        spec_type(image_size=params["image_size"], **model, **computed_fields),
        TrainSpec(**{**train.model_dump(), **training}),
    )


def params_of(parameters: Sequence[Parameter], model: BaseModel, train: TrainSpec) -> Params:
    """`Family.to_params` for parameters that are fields of the specification."""
    sections = {"model": model, "train": train}
    params: Params = {}
    for parameter in parameters:
        if parameter.section and parameter.applies(params):
            params[parameter.name] = getattr(sections[parameter.section], parameter.field)
    return params


def first_point(parameters: Sequence[Parameter], given: Mapping[str, Any]) -> Params:
    """The first value of every parameter's default domain, or the one that is given."""
    params: Params = {}
    for parameter in parameters:
        if parameter.applies(params):
            params[parameter.name] = given.get(parameter.name, corners(parameter.default)[0])
    return params
