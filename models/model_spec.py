"""What every trial's specification is made of: fields that families share, and how to train.

Plain pydantic, no Keras. `spec` puts a `ModelSpec` and a `TrainSpec` together to a `TrialSpec`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Flip = Literal["none", "horizontal", "horizontal_and_vertical"]
Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["constant", "cosine"]
Resizing = Literal["bilinear", "area"]
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
Params = dict[str, str | int | float | bool]

# Each description finishes the sentence "give …": `spec.explain` prints it as the remedy.
LEAST_SIDE = 32
ImageSize = Annotated[
    int, Field(ge=LEAST_SIDE, le=1024, description="an image side of 32 to 1024 px")
]
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


class PixelNetSpec(ModelSpec):
    """What the specification of a net on augmented pixels has besides; all of it is off by default.

    Attributes:
        zoom_factor: random sizes, from 1 - it to 1 + it times the image's.
        shift_factor: random shifts along both axes, up to it times the image's side.
        brightness_factor: random brightness, up to ±255 times it.
        contrast_factor: random contrast, from 1 - it to 1 + it times the image's.
    """

    zoom_factor: Annotated[
        float, Field(ge=0, le=0.5, description="a number from 0 to 0.5 (sizes of 1 ± it)")
    ] = 0.0
    shift_factor: Annotated[
        float, Field(ge=0, le=0.5, description="a number from 0 to 0.5 (parts of the side)")
    ] = 0.0
    brightness_factor: Annotated[
        float, Field(ge=0, le=1, description="a number from 0 to 1 (up to ±255 times it)")
    ] = 0.0
    contrast_factor: Annotated[
        float, Field(ge=0, lt=1, description="a number from 0 to below 1 (contrasts of 1 ± it)")
    ] = 0.0


# The published tutorial's "both flips, 0.9" of its models 2 to 5.
TUTORIAL_VIEWS: dict[str, Any] = {"flip": "horizontal_and_vertical", "rotation_factor": 0.9}
# What decides on the views of an image in training.
AUGMENTATION_FIELDS = {"flip", "rotation_factor", *PixelNetSpec.__annotations__}


class TrainSpec(FrozenSpec):
    """How a model is trained. `sgd` has momentum 0.9, Nesterov's.

    Attributes:
        learning_rate: the optimizer's step, at its highest.
        batch_size: images of one step.
        optimizer: its name.
        weight_decay: part of a kernel that a step of adamw takes away, times its rate.
        schedule: constant, or cosine: it rises from 0 over the first twentieth of all steps and
            falls to 0 by the last.
        label_smoothing: share of a label that is spread over all classes in the training loss.
        epochs: passes over the training images.
        half_size_share: share of the epochs, the first ones, on images of half the side.
        seed: seed of weights, order, dropout and augmentation.
        precision: arithmetic; auto: the fastest that the hardware has.
        class_weights: whether all classes count alike, however many images they have.
    """

    learning_rate: Annotated[float, Field(gt=0, description="a number above 0")] = 1e-3
    batch_size: Annotated[int, Field(ge=1, le=4096, description="1 to 4096 images")] = 32
    optimizer: Annotated[Optimizer, Field(description="adam, adamw or sgd")] = "adam"
    weight_decay: Annotated[float, Field(ge=0, le=1, description="a number from 0 to 1")] = 0.004
    schedule: Annotated[Schedule, Field(description="constant or cosine")] = "constant"
    label_smoothing: Annotated[float, Field(ge=0, le=0.9, description="a number from 0 to 0.9")] = (
        0.0
    )
    epochs: Annotated[int, Field(ge=1, description="1 epoch or more")] = 20
    half_size_share: Annotated[
        float, Field(ge=0, lt=1, description="a number from 0 to below 1")
    ] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**31, description="a whole number from 0")] = 0
    precision: Annotated[
        Precision, Field(description="auto, float32, mixed_bfloat16 or mixed_float16")
    ] = "auto"
    class_weights: Annotated[bool, Field(description="true or false")] = False

    @property
    def half_size_epochs(self) -> int:
        """Epochs on images of half the side; at least one is left for whole ones."""
        return min(round(self.half_size_share * self.epochs), self.epochs - 1)

    def over(self, epochs: int) -> TrainSpec:
        """The same recipe over fewer epochs: as many of them on images of half the side, if so many
        are left beside a whole one; a schedule ends with the last."""
        half = min(self.half_size_epochs, epochs - 1)
        return self.model_copy(update={"epochs": epochs, "half_size_share": half / epochs})
