"""The interface of an architecture family: what it provides, and what it is given.

A family is one object with the attributes and methods of `Family`: it needs no base class. The
space of the search, the configuration, the workers, the report and TensorBoard read it; none of
them knows a family by name. `conv` and `transfer` are the examples to follow, and
docs/extending.md has a short one.

Importing a family must stay cheap: Keras and what needs it are imported inside the methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from pawtune.models.families.domains import Domain
from pawtune.models.families.parameters import Parameter
from pawtune.models.model_spec import ModelSpec, Params, TrainSpec

if TYPE_CHECKING:
    import keras

    from pawtune.models.backbones.backbone_graph import BlockEnd
    from pawtune.models.backbones.taps import Taps
    from pawtune.models.features.augmented_views import ViewTable
    from pawtune.models.training.epoch_metrics import EpochResult

Labels = np.ndarray[tuple[int], np.dtype[np.int32]]
Images = np.ndarray[tuple[int, int, int, int], np.dtype[np.uint8]]
FeatureArrays = Mapping[str, np.ndarray[Any, Any]]


class Backbone(NamedTuple):
    """Request for a frozen network of `keras.applications`, without its top.

    Attributes:
        name: name of the network in `keras.applications`.
        image_size: side of its square input in pixels.
    """

    name: str
    image_size: int


def backbone_of(model: Any) -> Backbone:
    """The frozen network of a model whose specification names one."""
    return Backbone(model.backbone, model.image_size)


def backbone_among(loaded: Mapping[Backbone, keras.Model], wanted: Backbone) -> keras.Model:
    """The backbone that a model's core is built on.

    Raises:
        ValueError: It is not among those that are loaded.
    """
    if wanted not in loaded:
        raise ValueError(f"the model needs its backbone, {wanted.name}, received none")
    return loaded[wanted]


@dataclass(frozen=True)
class Pixels:
    """Request for the decoded images at one side in pixels."""

    image_size: int


@dataclass(frozen=True)
class ViewBank:
    """Request for features of weighted augmented views, see `augmented_views`."""

    backbone: Backbone
    pooling: Literal["average", "max"]


@dataclass(frozen=True)
class PlainFeatures:
    """Request for features of the plain images from all blocks of a backbone."""

    backbone: Backbone


@dataclass(frozen=True)
class Activations:
    """Request for activations of the images at a cut of a backbone.

    Attributes:
        backbone: the frozen network.
        share_above: about the share of its multiply-adds above the cut, see `cut_by_share`.
        rounds: views of a training image, the plain one included.
    """

    backbone: Backbone
    share_above: float
    rounds: int


# What trials may share. A further kind of shared work is a frozen class here, a method of
# `TrialData`, and the place where the search makes it.
Request = Backbone | Pixels | ViewBank | PlainFeatures | Activations


@dataclass(frozen=True)
class Bank:
    """The arrays of a `ViewBank`.

    Attributes:
        table: the V views of each training image.
        train: (N, V, F) float16.
        validation: (M, F) float16, of the plain images.
    """

    table: ViewTable
    train: np.ndarray[Any, Any]
    validation: np.ndarray[Any, Any]


@dataclass(frozen=True)
class CutActivations:
    """What an `Activations` request gives.

    Attributes:
        kind: "kept" in arrays, or computed "live" where they do not fit.
        source: gives the activations of (B,) images and the rounds beside them.
        validation: (M, h, w, c) float16, of the plain images.
    """

    kind: Literal["kept", "live"]
    source: Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], np.ndarray[Any, Any]]
    validation: np.ndarray[Any, Any]


class TrialData(Protocol):
    """What a running trial is given: labels, and the arrays it asked for in `Family.needs`."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""

    @property
    def train_labels(self) -> Labels:
        """(N,) class indices of the training images."""

    @property
    def val_labels(self) -> Labels:
        """(M,) class indices of the validation images."""

    @property
    def bank_views(self) -> int:
        """Views of an image in the feature banks; 0 where there are none."""

    def pixels(self, request: Pixels) -> tuple[Images, Images]:
        """Training images (N, S, S, 3) and validation images (M, S, S, 3), read-only."""

    def bank(self, request: ViewBank) -> Bank:
        """Features of augmented views, read-only."""

    def features(self, request: PlainFeatures) -> tuple[FeatureArrays, FeatureArrays]:
        """Features of the training and of the validation images, by name, see `TapEncoder`."""

    def derived(
        self, request: PlainFeatures, what: str, make: Callable[[], FeatureArrays]
    ) -> FeatureArrays:
        """Something computed of features, made once for all trials.

        Args:
            request: the features.
            what: names it, with all that it depends on besides features and labels.
            make: computes it.
        """

    def block_ends(self, request: PlainFeatures) -> Sequence[BlockEnd]:
        """Ends of the backbone's blocks from bottom to top, without their layers' names."""

    def activations(self, request: Activations, cut: BlockEnd) -> CutActivations:
        """Activations of training and validation images at a cut.

        Args:
            request: backbone and views.
            cut: the block end that `request.share_above` stands for.
        """

    def load_backbone(self, request: Backbone) -> keras.Model:
        """A frozen backbone: (N, S, S, 3) preprocessed pixels → (N, h, w, F), float32."""


@dataclass(frozen=True)
class BuiltTrial:
    """A trial that is ready to be trained.

    Attributes:
        kind: how it is trained, one word for the trial's facts: `bank`, `live`.
        core: the trained part, all that a checkpoint holds.
        optimizer: built for the core's trainable weights.
        train: called with the first epoch to train, from 1; yields the result of each epoch up to
            `spec.train.epochs`, with the core's weights as that epoch left them.
        backbones: the frozen networks below the core.
        frozen_weights: numbers of weights below the core that belong to no such network.
    """

    kind: str
    core: keras.Model
    optimizer: keras.optimizers.Optimizer
    train: Callable[[int], Iterator[EpochResult]]
    backbones: tuple[Backbone, ...] = ()
    frozen_weights: int = 0


@dataclass(frozen=True)
class Price:
    """What a trial's own net costs, without the frozen backbone.

    Attributes:
        weights: number of weights, those included that are never trained.
        multiply_adds: multiply-adds of one image's forward pass.
    """

    weights: int
    multiply_adds: int


@dataclass(frozen=True)
class Layer:
    """One layer of a model, in words and numbers, for TensorBoard.

    Attributes:
        name: unique in its model; parts of a block share a prefix, "block_1/conv".
        kind: Keras' name for such a layer, where there is one.
        detail: settings, in words.
        shape: shape of the output, without the batch.
        weights: number of weights, those included that are never trained.
    """

    name: str
    kind: str
    detail: str
    shape: tuple[int, ...]
    weights: int = 0


@dataclass(frozen=True)
class CoreShape:
    """What is equal for trained cores whose weights may be averaged.

    Attributes:
        parts: family, what the cores take, and what they consist of.
        is_linear: whether logits are linear in the weights: those of the mean weights are then the
            mean of the logits.
    """

    parts: tuple[object, ...]
    is_linear: bool


@runtime_checkable
class Averageable(Protocol):
    """What a family has besides, where weights of several trials may be averaged (`--soup`).

    `Family` does not ask for it: weights trained from different random ones are no average.
    """

    def core_shape(
        self, model: Any, load_backbone: Callable[[Backbone], keras.Model]
    ) -> CoreShape | None:
        """Equal for models whose trained cores may be averaged, all weights alike in number, order
        and shape; None where a core is averaged with none.

        Args:
            model: the model.
            load_backbone: gives a backbone that `needs` names.
        """


class PixelGraph(Protocol):
    """What a complete model offers a core as inputs; made once for all cores of a soft vote."""

    def pixels(self, image_size: int) -> keras.KerasTensor:
        """(N, S, S, 3) float32 pixels 0..255, resized as in training."""

    def maps(self, backbone: Backbone) -> keras.KerasTensor:
        """(N, h, w, F) feature maps of a frozen backbone."""

    def activations(self, backbone: Backbone, share_above: float) -> keras.KerasTensor:
        """(N, h, w, c) activations at the cut that a share of the arithmetic stands for."""

    def taps(self, backbone: Backbone, taps: Taps) -> keras.KerasTensor:
        """(N, F) features of a frozen backbone, see `choose_taps`."""


S = TypeVar("S", bound=ModelSpec)


class Family(Protocol[S]):
    """An architecture family.

    Attributes:
        name: name for people and in specifications.
        spec_type: its frozen specification, see `ModelSpec`.
        parameters: parameters of a search, in the order in which they are proposed. Those that
            several families share are the same object.
        baselines: models that are trained before the first proposal where a search asks for
            them, by name.
        portfolio: points that are good almost everywhere, proposed first, the most telling first:
            those after the fifth wait until the other families have had their turn, and are
            proposed while half of the trials are left. `image_size` is left out.
    """

    @property
    def name(self) -> str: ...
    @property
    def spec_type(self) -> type[S]: ...
    @property
    def parameters(self) -> Sequence[Parameter]: ...
    @property
    def baselines(self) -> Mapping[str, S]: ...
    @property
    def portfolio(self) -> Sequence[Params]: ...

    def to_spec(self, params: Params, train: TrainSpec) -> tuple[S, TrainSpec]:
        """The specification that a point of the space stands for.

        Args:
            params: `image_size` and the proposed parameters, by name.
            train: epochs, seed, precision and class weights of the search; the rest are defaults.

        Raises:
            pydantic.ValidationError: the point is no valid model.
        """

    def to_params(self, model: S, train: TrainSpec) -> Params | None:
        """The point of the space for a specification; None where there is none."""

    def columns(self, model: S) -> Params:
        """The model as flat values for tables and TensorBoard."""

    def price(self, model: S, num_classes: int) -> Price | None:
        """What the trained net costs; None for a head, which is always small."""

    def needs(self, model: S, bank_views: int) -> tuple[Request, ...]:
        """The shared work of a trial of this model.

        Args:
            model: the model.
            bank_views: views of an image in a feature bank; 0: the search makes none.
        """

    def may_need(
        self, space: Mapping[str, Domain], image_sizes: Sequence[int], bank_views: int
    ) -> set[Request]:
        """The shared work of all models that may be proposed.

        Args:
            space: the domain of each of the family's parameters, by name.
            image_sizes: sides in pixels.
            bank_views: views of each image in a feature bank, as for `needs`.
        """

    def build(self, model: S, train: TrainSpec, data: TrialData) -> BuiltTrial:
        """A trial with new weights, under the current precision policy.

        All randomness derives from `train.seed`: a trial must be the same again.
        """

    def build_core(
        self,
        model: S,
        num_classes: int,
        backbones: Mapping[Backbone, keras.Model],
        *,
        seed: int = 0,
        plain: bool = False,
    ) -> keras.Model:
        """The trained part of a model, which gives logits.

        Args:
            model: the model.
            num_classes: number of logits.
            backbones: networks that `needs` names.
            seed: initial weights and dropout derive from it alone.
            plain: whether only Keras' own layers are used, to be passed on; training may be slower.

        Returns:
            inputs as `inputs` gives them → (N, num_classes) logits, float32.
        """

    def inputs(self, model: S, graph: PixelGraph) -> keras.KerasTensor:
        """What the core takes in a complete model, computed from raw pixels."""

    def layers(self, model: S, num_classes: int, facts: Mapping[str, Any]) -> Iterator[Layer]:
        """The layers after augmentation, from the specification alone: no Keras needed.

        Args:
            model: the model.
            num_classes: number of logits.
            facts: record of the trial's worker (`num_weights`, `trainable_weights`); empty
                where it has not begun.
        """
