"""The family `transfer`: a solved or trained head on features of a frozen backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from pawtune.models.backbones.backbone_weights import BackboneName
from pawtune.models.families.domains import Choices, Domain, FloatRange, values_of
from pawtune.models.families.family import (
    Backbone,
    BuiltTrial,
    CoreShape,
    Layer,
    PixelGraph,
    Pixels,
    PlainFeatures,
    Request,
    TrialData,
    ViewBank,
    backbone_among,
    backbone_of,
)
from pawtune.models.families.layers import dense_outline, reported_weights
from pawtune.models.families.parameters import (
    FLIP,
    ROTATION,
    TRAINING,
    Parameter,
    of_model,
    params_of,
    spec_of,
)
from pawtune.models.model_spec import TUTORIAL_VIEWS, Dropout, ModelSpec, Params, TrainSpec

if TYPE_CHECKING:
    import keras

    from pawtune.models.training.epoch_metrics import EpochResult


class TransferSpec(ModelSpec):
    """A frozen `keras.applications` backbone with a small head.

    A solved head (`ridge`, `logistic`) is linear in features of one or of all blocks. A trained
    one: pooled features, dropout, a dense ReLU layer where `dense_width` > 0, logits; on the plain
    images, or on weighted views under `flip` and `rotation_factor`.
    """

    family: Literal["transfer"] = "transfer"
    backbone: BackboneName = "MobileNetV2"
    pooling: Annotated[Literal["average", "max"], Field(description="average or max")] = "average"
    dense_width: Annotated[
        int, Field(ge=0, le=2048, description="0 (no dense layer) to 2048 units")
    ] = 0
    dropout: Dropout = 0.2
    head: Annotated[
        Literal["trained", "ridge", "logistic"], Field(description="trained, ridge or logistic")
    ] = "trained"
    taps: Annotated[
        Literal["average", "maximum", "both", "all", "top_moments", "all_moments"],
        Field(description="average, maximum, both, all, top_moments or all_moments"),
    ] = "average"
    regularisation: Annotated[
        float, Field(gt=0, le=1e6, description="a number above 0, at most 1e6")
    ] = 1.0
    views: Annotated[Literal["plain", "weighted"], Field(description="plain or weighted")] = (
        "weighted"
    )

    @property
    def is_solved(self) -> bool:
        """Whether the head is solved in one step."""
        return self.head != "trained"


_SOLVED = ("head", ("ridge", "logistic"))
_TRAINED = ("head", ("trained",))
_UNDER_VIEWS = ("head_views", ("weighted",))

PARAMETERS = (
    of_model(
        TransferSpec,
        "head",
        Choices(choices=("ridge", "logistic", "trained")),
        "Solved in one step (ridge, logistic regression), or trained.",
    ),
    of_model(
        TransferSpec,
        "taps",
        Choices(choices=("average", "top_moments", "all_moments")),
        "What a solved head sees: averages or maxima of the last block, both, averages of all "
        "blocks, or averages and deviations (moments) of the upper or of all blocks.",
        only_if=_SOLVED,
    ),
    of_model(
        TransferSpec,
        "regularisation",
        FloatRange(low=1e-3, high=30.0, log=True),
        "L2 penalty of a solved head.",
        only_if=_SOLVED,
    ),
    of_model(
        TransferSpec,
        "views",
        Choices(choices=("plain",)),
        "What a trained head sees: the plain images, or views weighted by flip and rotation.",
        name="head_views",
        only_if=_TRAINED,
    ),
    *(replace(parameter, only_if=_UNDER_VIEWS) for parameter in (FLIP, ROTATION)),
    *(replace(parameter, only_if=parameter.only_if or _TRAINED) for parameter in TRAINING),
    of_model(TransferSpec, "backbone", Choices(choices=("MobileNetV2",)), "The frozen network."),
    of_model(
        TransferSpec,
        "pooling",
        Choices(choices=("average", "max")),
        "How its features are pooled.",
        name="head_pooling",
        only_if=_TRAINED,
    ),
    of_model(
        TransferSpec,
        "dense_width",
        Choices(choices=(0, 64, 128, 256, 512)),
        "Units of the dense layer.",
        name="head_dense_width",
        only_if=_TRAINED,
    ),
    of_model(
        TransferSpec,
        "dropout",
        FloatRange(low=0.0, high=0.6, step=0.1),
        "Dropout on the features.",
        name="head_dropout",
        only_if=_TRAINED,
    ),
)


def _solved(head: str, taps: str, regularisation: float) -> Params:
    """A point of the space: a solved head."""
    return {"head": head, "taps": taps, "regularisation": regularisation}


class TransferFamily:
    """The family `transfer`, see `Family`."""

    name = "transfer"
    spec_type = TransferSpec
    parameters: Sequence[Parameter] = PARAMETERS
    baselines: Mapping[str, TransferSpec] = {
        "tutorial_4": TransferSpec(pooling="max", **TUTORIAL_VIEWS),
        "tutorial_5": TransferSpec(pooling="max", dense_width=128, **TUTORIAL_VIEWS),
    }
    portfolio: Sequence[Params] = (
        _solved("ridge", "average", 1.0),
        _solved("ridge", "top_moments", 0.3),
        _solved("ridge", "all_moments", 0.1),
        _solved("logistic", "average", 0.01),
        {
            "head": "trained",
            "head_views": "plain",
            "learning_rate": 0.001,
            "batch_size": 32,
            "optimizer": "adamw",
            "weight_decay": 0.02,
            "schedule": "cosine",
            "label_smoothing": 0.05,
            "head_pooling": "average",
            "head_dense_width": 256,
            "head_dropout": 0.3,
        },
        # Each takes a fraction of a second; a head that is trained takes several.
        _solved("ridge", "top_moments", 1.0),
        _solved("ridge", "all_moments", 0.3),
        _solved("logistic", "average", 0.1),
        _solved("ridge", "top_moments", 0.1),
        _solved("ridge", "all_moments", 0.03),
        _solved("ridge", "top_moments", 3.0),
        _solved("ridge", "average", 0.1),
        _solved("logistic", "average", 0.001),
    )

    def to_spec(self, params: Params, train: TrainSpec) -> tuple[TransferSpec, TrainSpec]:
        """The specification that a point of the space stands for."""
        model, train = spec_of(TransferSpec, PARAMETERS, params, train)
        # Solved in one step: what a search says about epochs is for heads that are trained.
        return model, train.model_copy(update={"epochs": 1}) if model.is_solved else train

    def to_params(self, model: TransferSpec, train: TrainSpec) -> Params | None:
        """The point of the space for a specification."""
        return params_of(PARAMETERS, model, train)

    def columns(self, model: TransferSpec) -> Params:
        """The fields of the specification that say something about this kind of head."""
        solved, trained = {"taps", "regularisation"}, {"pooling", "dense_width", "dropout", "views"}
        unused = {*trained, "flip", "rotation_factor"} if model.is_solved else solved
        return model.model_dump(exclude=unused)

    def price(self, model: TransferSpec, num_classes: int) -> None:
        """Nothing to weigh: a head is always small."""

    def needs(self, model: TransferSpec, bank_views: int) -> tuple[Request, ...]:
        """The backbone, and features, or a bank where one serves the augmentation, or pixels."""
        from pawtune.models.features.augmented_views import bank_supports

        backbone = backbone_of(model)
        if model.is_solved or model.views == "plain":
            return backbone, PlainFeatures(backbone)
        if bank_views and bank_supports(model.flip, model.rotation_factor, bank_views):
            return backbone, ViewBank(backbone, model.pooling)
        return backbone, Pixels(model.image_size)

    def may_need(
        self, space: Mapping[str, Domain], image_sizes: Sequence[int], bank_views: int
    ) -> set[Request]:
        """Features; banks where views are searched, and pixels where no bank serves them."""
        views = values_of(space["head_views"])
        if set(values_of(space["head"])) == {"ridge", "logistic"} or "weighted" not in views:
            backbones = [
                backbone_of(TransferSpec.model_validate({"backbone": name, "image_size": size}))
                for name in values_of(space["backbone"])
                for size in image_sizes
            ]
            return {request for b in backbones for request in (b, PlainFeatures(b))}
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
        found |= {PlainFeatures(need) for need in found if isinstance(need, Backbone)}
        if isinstance(rotation_domain, FloatRange) and rotation_domain.step is None:
            # Any number between: some lie below what a bank serves.
            found |= {Pixels(size) for size in image_sizes}
        return found

    def build(self, model: TransferSpec, train: TrainSpec, data: TrialData) -> BuiltTrial:
        """A head on features of the plain images, of a bank, or of augmented pixels."""
        if model.is_solved:
            return self._build_solved(model, train, data)
        if model.views == "plain":
            return self._build_on_features(model, train, data)
        for request in self.needs(model, data.bank_views):
            if isinstance(request, ViewBank):
                return self._build_on_bank(model, train, data, request)
        return self._build_on_pixels(model, train, data)

    def _build_solved(self, model: TransferSpec, train: TrainSpec, data: TrialData) -> BuiltTrial:
        from pawtune.models.training.solved_trial import solved_trial

        assert model.head != "trained"
        request = PlainFeatures(backbone_of(model))
        return solved_trial(model.head, model.taps, model.regularisation, train, data, request)

    def _build_on_features(
        self, model: TransferSpec, train: TrainSpec, data: TrialData
    ) -> BuiltTrial:
        name = {"average": "average", "max": "maximum"}[model.pooling]
        request = PlainFeatures(backbone_of(model))
        features, val_features = (part[name] for part in data.features(request))
        return _head_trial("features", model, train, data, lambda epoch: features, val_features)

    def _build_on_bank(
        self, model: TransferSpec, train: TrainSpec, data: TrialData, request: ViewBank
    ) -> BuiltTrial:
        from pawtune.models.features.augmented_views import ViewSampler

        bank = data.bank(request)
        sampler = ViewSampler(bank.table, model.flip, model.rotation_factor, train.seed)
        views = partial(sampler.features_for_epoch, bank.train)
        return _head_trial("bank", model, train, data, views, bank.validation)

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
        backbone = backbone_among(backbones, backbone_of(model))
        if model.is_solved:
            from pawtune.models.backbones.backbone_graph import find_block_ends
            from pawtune.models.backbones.taps import choose_taps
            from pawtune.models.training.solved_trial import build_linear

            taps = choose_taps(model.taps, find_block_ends(backbone))
            return build_linear(sum(tap.width for tap in taps), num_classes)
        return build_head(model, num_classes, backbone.output_shape[-1], seed)

    def core_shape(
        self, model: TransferSpec, load_backbone: Callable[[Backbone], keras.Model]
    ) -> CoreShape | None:
        """Linear heads on the same features are one, however each was found; others are apart."""
        taps = model.taps
        if not model.is_solved:
            if model.dense_width:
                return None
            taps = "average" if model.pooling == "average" else "maximum"
        return CoreShape((self.name, backbone_of(model), taps), is_linear=True)

    def inputs(self, model: TransferSpec, graph: PixelGraph) -> keras.KerasTensor:
        """Pooled features of the frozen backbone."""
        if model.is_solved:
            return graph.taps(backbone_of(model), model.taps)
        return _pool(model.pooling)(graph.maps(backbone_of(model)))

    def layers(
        self, model: TransferSpec, num_classes: int, facts: Mapping[str, Any]
    ) -> Iterator[Layer]:
        """Backbone, pooling and head; before a worker has reported sizes, they are shown as 0."""
        frozen, trained = reported_weights(facts)
        detail = "frozen, with its preprocessing"
        if model.is_solved:
            width = max(0, trained // num_classes - 1)
            yield Layer("backbone", model.backbone, detail, (width,), frozen)
            yield Layer("logits", "Dense", f"solved, {model.head}", (num_classes,), trained)
            return
        # The head's first layer has (features + 1) weights for each of its outputs.
        after = (model.dense_width + 1) * num_classes if model.dense_width else 0
        features = max(0, (trained - after) // (model.dense_width or num_classes) - 1)
        yield Layer("backbone", model.backbone, detail, (features,), frozen)
        yield Layer("pooling", f"Global{model.pooling.capitalize()}Pooling2D", "", (features,))
        if model.dropout:
            yield Layer("dropout", "Dropout", f"{model.dropout:g}", (features,))
        yield from dense_outline(features, model.dense_width, num_classes)


def _head_trial(
    kind: str,
    model: TransferSpec,
    train: TrainSpec,
    data: TrialData,
    features_for_epoch: Callable[[int], np.ndarray[Any, Any]],
    val_features: np.ndarray[Any, Any],
) -> BuiltTrial:
    """A head on (N, F) features of each epoch, scored on (M, F) features."""
    from pawtune.models.build import make_optimizer
    from pawtune.models.training.head_training import train_head

    head = build_head(model, data.num_classes, val_features.shape[-1], train.seed)
    optimizer = make_optimizer(train, len(data.train_labels))

    def train_from(start_epoch: int) -> Iterator[EpochResult]:
        return train_head(
            head,
            features_for_epoch,
            data.train_labels,
            val_features,
            data.val_labels,
            train,
            optimizer=optimizer,
            start_epoch=start_epoch,
        )

    return BuiltTrial(kind, head, optimizer, train_from, (backbone_of(model),))


def build_extractor(model: TransferSpec, backbone: keras.Model) -> keras.Model:
    """Preprocessing, frozen backbone and pooling: what is the same in every epoch.

    Args:
        model: the model.
        backbone: network from `load_backbone`; a faster copy of it is built in.

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
