"""What every trial's specification is made of: fields that families share, and how to train.

Plain pydantic, no Keras. `spec` puts a `ModelSpec` and a `TrainSpec` together to a `TrialSpec`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Flip = Literal["none", "horizontal", "horizontal_and_vertical"]
Optimizer = Literal["adam", "adamw", "sgd"]
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
Params = dict[str, str | int | float | bool]

# Each description finishes the sentence "give …": `spec.explain` prints it as the remedy.
ImageSize = Annotated[int, Field(ge=32, le=1024, description="an image side of 32 to 1024 px")]
FlipMode = Annotated[Flip, Field(description="none, horizontal or horizontal_and_vertical")]
Rotation = Annotated[
    float, Field(ge=0, le=1, description="a number from 0 to 1 (angles up to ±2π times it)")
]
Dropout = Annotated[float, Field(ge=0, le=0.9, description="a number from 0 to 0.9")]


class FrozenSpec(BaseModel):
    """A frozen specification that takes no unknown field and no NaN."""

    # protected_namespaces: a field called `model` is the natural name here.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )


class ModelSpec(FrozenSpec):
    """What the specification of every family's model has; a family's own adds its fields.

    A family's specification declares `family: Literal["its name"] = "its name"`, a description of
    each field (it finishes the sentence "give …"), and validators for what fields have to agree on.

    Attributes:
        family: the name of the family.
        image_size: side of the square images in pixels.
        flip: random flips of training images.
        rotation_factor: random rotations of training images, up to ±2π times it.
        is_scheduled: whether the learning rate follows a schedule over all of a trial's epochs:
            before half of them its accuracy says little.
    """

    is_scheduled: ClassVar[bool] = False

    family: str
    image_size: ImageSize = 160
    flip: FlipMode = "none"
    rotation_factor: Rotation = 0.0


class TrainSpec(FrozenSpec):
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
