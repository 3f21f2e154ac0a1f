"""The family `finetune`: the top of a backbone is trained on with a solved head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from pawtune.models.backbones.backbone_weights import BackboneName
from pawtune.models.families.domains import (
    Choices,
    Domain,
    FloatRange,
    IntRange,
    corners,
    values_of,
)
from pawtune.models.families.family import (
    Activations,
    Backbone,
    BuiltTrial,
    CoreShape,
    Layer,
    PixelGraph,
    PlainFeatures,
    Request,
    TrialData,
    backbone_among,
    backbone_of,
)
from pawtune.models.families.layers import reported_weights
from pawtune.models.families.parameters import Parameter, of_model, of_training, params_of, spec_of
from pawtune.models.model_spec import Dropout, ModelSpec, Params, TrainSpec

if TYPE_CHECKING:
    import keras

    from pawtune.models.backbones.backbone_graph import BlockEnd
    from pawtune.models.backbones.taps import Tap, Taps
    from pawtune.models.training.epoch_metrics import EpochResult
    from pawtune.models.training.finetuning import TuningRecipe

Share = Annotated[float, Field(ge=0, le=1)]


class FinetuneSpec(ModelSpec):
    """A `keras.applications` backbone, frozen below a cut and trained above it.

    Training starts from a head of logistic regression (LP-FT; Kumar et al., ICLR 2022,
    arXiv:2202.10054), with AdamW under a rate that warms up, falls with the cosine, and is lower
    from block to block downwards. The first epoch is that head as it was solved, scored before
    anything is trained: where training only loses, it stays the best one.
    """

    is_scheduled: ClassVar[bool] = True

    family: Literal["finetune"] = "finetune"
    backbone: BackboneName = "MobileNetV2"
    share_above: Annotated[
        float, Field(gt=0, le=1, description="a part of the arithmetic, above 0 to 1")
    ] = 0.3
    views: Annotated[int, Field(ge=1, le=17, description="1 (plain) to 17 views")] = 5
    layer_decay: Annotated[Share, Field(description="a number from 0 to 1")] = 0.8
    weight_decay: Annotated[float, Field(ge=0, le=1, description="a number from 0 to 1")] = 0.05
    label_smoothing: Annotated[float, Field(ge=0, le=0.9, description="a number from 0 to 0.9")] = (
        0.0
    )
    dropout: Dropout = 0.2
    head_features: Annotated[
        Literal["last", "blocks", "moments"], Field(description="last, blocks or moments")
    ] = "last"  # as it was before there was a choice: models kept earlier do not say
    head_regularisation: Annotated[
        float, Field(gt=0, le=1e6, description="a number above 0, at most 1e6")
    ] = 0.01


def _tuned(field: str, default: Domain, meaning: str, *, name: str = "") -> Parameter:
    """A parameter of the family: its names begin with `tune_`, apart from those of `transfer`."""
    return of_model(FinetuneSpec, field, default, meaning, name=f"tune_{name or field}")


PARAMETERS = (
    _tuned("backbone", Choices(choices=("MobileNetV2",)), "The network whose top is trained."),
    _tuned(
        "share_above",
        Choices(choices=(0.25, 0.3)),
        "Part of the backbone's arithmetic that is trained; whole blocks from the top.",
        name="share",
    ),
    of_training(
        "learning_rate",
        FloatRange(low=3e-5, high=5e-4, log=True),
        "Highest rate of the head; it is lower from block to block downwards.",
        name="tune_learning_rate",
    ),
    _tuned(
        "layer_decay",
        FloatRange(low=0.6, high=1.0, step=0.1),
        "Factor of the rate from one block to the next below it.",
    ),
    of_training(
        "epochs",
        IntRange(low=4, high=15),
        "Epochs of the whole schedule, no more than `epochs`; the first is the solved head.",
        name="tune_epochs",
    ),
    _tuned(
        "views",
        Choices(choices=(3, 5)),
        "Views of an image that take turns, the plain one included.",
    ),
    _tuned(
        "label_smoothing",
        FloatRange(low=0.0, high=0.1, step=0.05),
        "Share of a label that is spread over all classes.",
    ),
    _tuned("dropout", FloatRange(low=0.0, high=0.4, step=0.1), "Dropout before the head."),
    _tuned(
        "weight_decay",
        FloatRange(low=1e-3, high=0.2, log=True),
        "Decoupled weight decay of kernels.",
    ),
    _tuned(
        "head_features",
        Choices(choices=("moments",)),
        "What the head takes: averages of the last layer or of all blocks that are trained, or "
        "averages and deviations (moments) of these.",
        name="features",
    ),
    _tuned(
        "head_regularisation",
        FloatRange(low=3e-3, high=0.3, log=True),
        "L2 penalty of the head that training starts from.",
    ),
)

_POINT: Params = {
    "tune_share": 0.25,
    "tune_learning_rate": 1e-4,
    "tune_layer_decay": 1.0,
    "tune_epochs": 9,
    "tune_views": 5,
    "tune_label_smoothing": 0.0,
    "tune_dropout": 0.2,
    "tune_weight_decay": 1e-3,
    "tune_features": "moments",
    "tune_head_regularisation": 0.01,
}


class FinetuneFamily:
    """The family `finetune`, see `Family`."""

    name = "finetune"
    spec_type = FinetuneSpec
    parameters: Sequence[Parameter] = PARAMETERS
    baselines: Mapping[str, FinetuneSpec] = {}
    # One point: two at once would have activations made at two cuts before either is trained.
    portfolio: Sequence[Params] = (_POINT,)

    def to_spec(self, params: Params, train: TrainSpec) -> tuple[FinetuneSpec, TrainSpec]:
        """The specification that a point of the space stands for."""
        model, tuned = spec_of(FinetuneSpec, PARAMETERS, params, train)
        epochs = min(tuned.epochs, train.epochs)
        return model, tuned.model_copy(update={"epochs": epochs, "optimizer": "adamw"})

    def to_params(self, model: FinetuneSpec, train: TrainSpec) -> Params | None:
        """The point of the space for a specification."""
        return params_of(PARAMETERS, model, train)

    def columns(self, model: FinetuneSpec) -> Params:
        """All fields but those of augmentation, which is that of the views."""
        return model.model_dump(exclude={"flip", "rotation_factor"})

    def price(self, model: FinetuneSpec, num_classes: int) -> None:
        """Nothing to weigh: a part of a backbone is no larger than the backbone."""

    def needs(self, model: FinetuneSpec, bank_views: int) -> tuple[Request, ...]:
        """The backbone, features for the head, and activations at the cut."""
        backbone = backbone_of(model)
        return backbone, PlainFeatures(backbone), _activations_of(model)

    def may_need(
        self, space: Mapping[str, Domain], image_sizes: Sequence[int], bank_views: int
    ) -> set[Request]:
        """The same for every backbone, size, cut and number of views."""
        models = (
            FinetuneSpec.model_validate(
                {"backbone": name, "image_size": size, "share_above": share, "views": views}
            )
            for name in values_of(space["tune_backbone"])
            for size in image_sizes
            for share in corners(space["tune_share"])
            for views in corners(space["tune_views"])
        )
        return {request for model in models for request in self.needs(model, bank_views)}

    def build(self, model: FinetuneSpec, train: TrainSpec, data: TrialData) -> BuiltTrial:
        """The top of the backbone on activations below it, from a solved head."""
        import keras

        from pawtune.models.backbones.tuned_top import build_tuned
        from pawtune.models.training.finetuning import finetune, make_optimizer, score_start
        from pawtune.models.training.solved_heads import solve_logistic
        from pawtune.models.training.solved_trial import shared_decomposition

        request = _activations_of(model)
        policy = keras.config.dtype_policy().name
        ends, below, above = _split(data.load_backbone(request.backbone), model, policy)
        cut = ends[0]
        taps = _taps_of(model, ends)
        name = model.head_features
        decomposition = shared_decomposition(
            name if name == "last" else f"{name} from block {cut.number}",
            lambda _: taps,
            train.class_weights,
            data,
            PlainFeatures(request.backbone),
        )
        head = solve_logistic(
            decomposition, data.train_labels, data.num_classes, model.head_regularisation
        )
        network = build_tuned(
            above,
            head.kernel,
            head.bias,
            model.dropout,
            train.seed,
            ends=ends,
            taps=taps,
            mean=decomposition.mean,
            scale=decomposition.scale,
        )
        recipe = recipe_of(model, train)
        optimizer = make_optimizer(network, recipe, len(data.train_labels))
        activations = data.activations(request, cut)

        def train_from(start_epoch: int) -> Iterator[EpochResult]:
            if start_epoch == 1:
                yield score_start(
                    network,
                    head.train_logits,
                    data.train_labels,
                    activations.validation,
                    data.val_labels,
                )
            if train.epochs == 1:
                return
            yield from finetune(
                network,
                activations.source,
                data.train_labels,
                activations.validation,
                data.val_labels,
                recipe,
                optimizer=optimizer,
                start_epoch=max(start_epoch - 1, 1),
                epochs_before=1,
            )

        kind = "activations" if activations.kind == "kept" else "live"
        return BuiltTrial(kind, network, optimizer, train_from, frozen_weights=below.count_params())

    def build_core(
        self,
        model: FinetuneSpec,
        num_classes: int,
        backbones: Mapping[Backbone, keras.Model],
        *,
        seed: int = 0,
        plain: bool = False,
    ) -> keras.Model:
        """(N, h, w, c) activations → (N, num_classes) logits; the top as in the backbone.

        Raises:
            ValueError: the backbone is missing.
        """
        import keras
        import numpy as np

        from pawtune.models.backbones.tuned_top import build_tuned

        backbone = backbone_among(backbones, backbone_of(model))
        ends, _, above = _split(backbone, model, keras.config.dtype_policy().name)
        taps = _taps_of(model, ends)
        kernel = np.zeros((sum(tap.width for tap in taps), num_classes), "float32")
        return build_tuned(above, kernel, kernel[0], model.dropout, seed, ends=ends, taps=taps)

    def core_shape(
        self, model: FinetuneSpec, load_backbone: Callable[[Backbone], keras.Model]
    ) -> CoreShape:
        """Tops above the same cut with the same features: all start from nearly one point."""
        backbone = backbone_of(model)
        network = load_backbone(backbone)  # first: it loads TensorFlow quietly, the import does not
        from pawtune.models.backbones.backbone_graph import cut_by_share, find_block_ends

        cut = cut_by_share(find_block_ends(network), model.share_above)
        parts = (self.name, backbone, cut.number, model.head_features)
        return CoreShape(parts, is_linear=False)

    def inputs(self, model: FinetuneSpec, graph: PixelGraph) -> keras.KerasTensor:
        """Activations at the cut."""
        return graph.activations(backbone_of(model), model.share_above)

    def layers(
        self, model: FinetuneSpec, num_classes: int, facts: Mapping[str, Any]
    ) -> Iterator[Layer]:
        """The two parts of the backbone and the head; sizes are 0 until a worker reported them."""
        frozen, trained = reported_weights(facts)
        yield Layer("below", model.backbone, "frozen, with its preprocessing", (), frozen)
        detail = f"fine-tuned, {model.share_above:.0%} of the arithmetic, and its head"
        yield Layer("above", model.backbone, detail, (num_classes,), trained)


def recipe_of(model: FinetuneSpec, train: TrainSpec) -> TuningRecipe:
    """How a specification is trained, after its first epoch, which is the solved head."""
    from pawtune.models.training.finetuning import TuningRecipe

    return TuningRecipe(
        learning_rate=train.learning_rate,
        layer_decay=model.layer_decay,
        weight_decay=model.weight_decay,
        label_smoothing=model.label_smoothing,
        epochs=max(train.epochs - 1, 1),
        batch_size=train.batch_size,
        num_rounds=model.views,
        seed=train.seed,
        class_weights=train.class_weights,
    )


def _activations_of(model: FinetuneSpec) -> Activations:
    return Activations(backbone_of(model), model.share_above, model.views)


def _split(
    backbone: keras.Model, model: FinetuneSpec, policy: str
) -> tuple[tuple[BlockEnd, ...], keras.Model, keras.Model]:
    """The cut of a model and all block ends above it; what of its backbone is below and above."""
    from pawtune.models.backbones.backbone_graph import cut_by_share, find_block_ends, split_at
    from pawtune.models.backbones.batch_norm_folding import fold_backbone

    folded = fold_backbone(backbone, policy)
    ends = find_block_ends(folded)
    cut = cut_by_share(ends, model.share_above)
    return ends[ends.index(cut) :], *split_at(folded, cut.number)


def _taps_of(model: FinetuneSpec, ends: Sequence[BlockEnd]) -> Sequence[Tap]:
    """What the head takes: of the last block, or of those from the cut on.

    Args:
        model: its features and more.
        ends: ends of the blocks from the cut to the last.
    """
    from pawtune.models.backbones.taps import choose_taps

    name: dict[str, Taps] = {"last": "average", "blocks": "all", "moments": "all_moments"}
    return choose_taps(name[model.head_features], ends)


FINETUNE = FinetuneFamily()
