"""The family `transfer`: a trained head on pooled features of a frozen backbone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from pawtune.models.families.domains import Choices, Domain, FloatRange, values_of
from pawtune.models.families.family import (
    Backbone,
    BuiltTrial,
    Layer,
    PixelGraph,
    Pixels,
    Request,
    TrialData,
    ViewBank,
)
from pawtune.models.families.layers import dense_outline
from pawtune.models.families.parameters import SHARED, Parameter, of_model, params_of, spec_of
from pawtune.models.model_spec import Dropout, ModelSpec, Params, TrainSpec

if TYPE_CHECKING:
    import keras


class TransferSpec(ModelSpec):
    """A frozen `keras.applications` backbone with a small trained head.

    The head: pooled features, dropout, a dense ReLU layer where `dense_width` > 0, logits.
    """

    family: Literal["transfer"] = "transfer"
    backbone: Annotated[
        str, Field(min_length=1, description="the name of a keras.applications model")
    ] = "MobileNetV2"
    pooling: Annotated[Literal["average", "max"], Field(description="average or max")] = "average"
    dense_width: Annotated[
        int, Field(ge=0, le=2048, description="0 (no dense layer) to 2048 units")
    ] = 0
    dropout: Dropout = 0.2


PARAMETERS = (
    *SHARED,
    of_model(TransferSpec, "backbone", Choices(choices=("MobileNetV2",)), "The frozen network."),
    of_model(
        TransferSpec,
        "pooling",
        Choices(choices=("average", "max")),
        "How its features are pooled.",
        name="head_pooling",
    ),
    of_model(
        TransferSpec,
        "dense_width",
        Choices(choices=(0, 64, 128, 256, 512)),
        "Units of the dense layer.",
        name="head_dense_width",
    ),
    of_model(
        TransferSpec,
        "dropout",
        FloatRange(low=0.0, high=0.6, step=0.1),
        "Dropout on the features.",
        name="head_dropout",
    ),
)

# The published tutorial's "both flips, 0.9" of its models 2 to 5.
_AUGMENTED: dict[str, Any] = {"flip": "horizontal_and_vertical", "rotation_factor": 0.9}


class TransferFamily:
    """The family `transfer`, see `Family`."""

    name = "transfer"
    spec_type = TransferSpec
    parameters: Sequence[Parameter] = PARAMETERS
    baselines: Mapping[str, TransferSpec] = {
        "tutorial_4": TransferSpec(pooling="max", **_AUGMENTED),
        "tutorial_5": TransferSpec(pooling="max", dense_width=128, **_AUGMENTED),
    }

    def to_spec(self, params: Params, train: TrainSpec) -> tuple[TransferSpec, TrainSpec]:
        """The specification that a point of the space stands for."""
        return spec_of(TransferSpec, PARAMETERS, params, train)

    def to_params(self, model: TransferSpec, train: TrainSpec) -> Params | None:
        """The point of the space for a specification."""
        return params_of(PARAMETERS, model, train)

    def columns(self, model: TransferSpec) -> Params:
        """The fields of the specification."""
        return model.model_dump()

    def price(self, model: TransferSpec, num_classes: int) -> None:
        """Nothing to weigh: a head is always small."""

    def needs(self, model: TransferSpec, bank_views: int) -> tuple[Request, ...]:
        """The backbone, and a bank where one serves the augmentation; else pixels."""
        from pawtune.models.features.augmented_views import bank_supports

        backbone = backbone_of(model)
        if bank_views and bank_supports(model.flip, model.rotation_factor, bank_views):
            return backbone, ViewBank(backbone, model.pooling)
        return backbone, Pixels(model.image_size)

    def may_need(
        self, space: Mapping[str, Domain], image_sizes: Sequence[int], bank_views: int
    ) -> set[Request]:
        """Banks, and pixels too where some augmentation of the space is served by no bank."""
        rotation_domain = space["rotation_factor"]
        rotations = values_of(rotation_domain)
        models = (
            TransferSpec.model_validate(
                {"backbone": name, "image_size": size, "flip": flip, "rotation_factor": rotation}
            )
            for name in values_of(space["backbone"])
            for size in image_sizes
            for flip in values_of(space["flip"])
            for rotation in rotations
        )
        found = {request for model in models for request in self.needs(model, bank_views)}
        if isinstance(rotation_domain, FloatRange) and rotation_domain.step is None:
            # Any number between: some lie below what a bank serves.
            found |= {Pixels(size) for size in image_sizes}
        return found

    def build(self, model: TransferSpec, train: TrainSpec, data: TrialData) -> BuiltTrial:
        """A head on the features of a bank, or on those of augmented pixels."""
        for request in self.needs(model, data.bank_views):
            if isinstance(request, ViewBank):
                return self._build_on_bank(model, train, data, request)
        return self._build_on_pixels(model, train, data)

    def _build_on_bank(
        self, model: TransferSpec, train: TrainSpec, data: TrialData, request: ViewBank
    ) -> BuiltTrial:
        from pawtune.models.build import make_optimizer
        from pawtune.models.features.augmented_views import ViewSampler
        from pawtune.models.training.head_training import train_head

        bank = data.bank(request)
        sampler = ViewSampler(bank.table, model.flip, model.rotation_factor, train.seed)
        head = build_head(model, data.num_classes, bank.train.shape[-1], train.seed)
        optimizer = make_optimizer(train)

        def train_from(start_epoch: int) -> Iterator[Any]:
            return train_head(
                head,
                partial(sampler.features_for_epoch, bank.train),
                data.train_labels,
                bank.validation,
                data.val_labels,
                train,
                optimizer=optimizer,
                start_epoch=start_epoch,
            )

        return BuiltTrial("bank", head, optimizer, train_from, (request.backbone,))

    def _build_on_pixels(
        self, model: TransferSpec, train: TrainSpec, data: TrialData
    ) -> BuiltTrial:
        from pawtune.models.training.pixel_trial import pixel_trial

        key = backbone_of(model)
        extractor = build_extractor(model, data.load_backbone(key))
        head = build_head(model, data.num_classes, extractor.output_shape[-1], train.seed)
        return replace(pixel_trial(model, train, data, head, extractor), backbones=(key,))

    def build_core(
        self,
        model: TransferSpec,
        num_classes: int,
        backbones: Mapping[Backbone, keras.Model],
        *,
        seed: int = 0,
        plain: bool = False,
    ) -> keras.Model:
        """(N, F) pooled features → (N, num_classes) logits.

        Raises:
            ValueError: the backbone is missing.
        """
        key = backbone_of(model)
        if key not in backbones:
            raise ValueError(f"a transfer model needs its backbone, {key.name}, received none")
        return build_head(model, num_classes, backbones[key].output_shape[-1], seed)

    def inputs(self, model: TransferSpec, graph: PixelGraph) -> keras.KerasTensor:
        """Pooled features of the frozen backbone."""
        return _pool(model.pooling)(graph.maps(backbone_of(model)))

    def layers(
        self, model: TransferSpec, num_classes: int, facts: Mapping[str, Any]
    ) -> Iterator[Layer]:
        """Backbone, pooling and head; before a worker has told sizes, they are shown as 0."""
        trained = int(facts.get("trainable_weights", 0))
        frozen = int(facts.get("num_weights", trained)) - trained
        # The head's first layer has (features + 1) weights for each of its outputs.
        after = (model.dense_width + 1) * num_classes if model.dense_width else 0
        features = max(0, (trained - after) // (model.dense_width or num_classes) - 1)
        yield Layer(
            "backbone", model.backbone, "frozen, with its preprocessing", (features,), frozen
        )
        yield Layer("pooling", f"Global{model.pooling.capitalize()}Pooling2D", "", (features,))
        if model.dropout:
            yield Layer("dropout", "Dropout", f"{model.dropout:g}", (features,))
        yield from dense_outline(features, model.dense_width, num_classes)


def backbone_of(model: TransferSpec) -> Backbone:
    """The frozen network of a model, under the name that Keras has for it."""
    from pawtune.models.backbones.backbone_weights import backbone_name

    return Backbone(backbone_name(model.backbone), model.image_size)


def build_extractor(model: TransferSpec, backbone: keras.Model) -> keras.Model:
    """Preprocessing, frozen backbone and pooling: what is the same in every epoch.

    Args:
        model: the model.
        backbone: from `load_backbone`; what is built is a faster copy of it.

    Returns:
        (N, S, S, 3) pixels 0..255 → (N, F) features, float32.
    """
    import keras

    from pawtune.models.backbones.batch_norm_folding import fold_backbone
    from pawtune.models.backbones.frozen_backbone import preprocess

    # 160 px on one core with AMX: 3.2 ms an image instead of 9.2 (13.5 unfolded in bfloat16), and
    # a first epoch that starts 8 s earlier.
    fast = fold_backbone(backbone, keras.config.dtype_policy().name)
    inputs = keras.Input((model.image_size, model.image_size, 3), name="pixels")
    maps = fast(preprocess(model.backbone, inputs), training=False)
    return keras.Model(inputs, _pool(model.pooling)(maps), name="extractor")


def _pool(pooling: str) -> keras.layers.Layer:
    import keras

    kinds = {
        "average": keras.layers.GlobalAveragePooling2D,
        "max": keras.layers.GlobalMaxPooling2D,
    }
    # float32 under every policy: an average over 49 places loses bits in bfloat16.
    return kinds[pooling](dtype="float32")


def build_head(
    model: TransferSpec, num_classes: int, feature_width: int, seed: int = 0
) -> keras.Model:
    """The trained part of a transfer model, in float32 under every policy.

    bfloat16 makes a head slower (128 units: 57 ms an epoch instead of 49, with AMX): what it
    saves in multiplications it spends on casting weights.

    Returns:
        (N, feature_width) features → (N, num_classes) logits, float32.
    """
    import keras

    from pawtune.models.build import dense_layers
    from pawtune.models.precision import precision

    with precision("float32"):
        inputs = keras.Input((feature_width,), name="features")
        x = keras.layers.Dropout(model.dropout, seed=seed, name="dropout")(inputs)
        outputs = dense_layers(x, model.dense_width, num_classes, seed=seed + 1)
        return keras.Model(inputs, outputs, name="head")


TRANSFER = TransferFamily()
