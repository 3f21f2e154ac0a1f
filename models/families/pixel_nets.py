"""Methods that families of nets on pixels have in common, to be put into a family's class.

    class Separable:
        needs, may_need, inputs, build = (
            pixel_nets.needs, pixel_nets.may_need, pixel_nets.inputs, pixel_nets.build
        )

`to_spec`, `to_params` and `columns` are for families whose parameters are all fields of the
specification. See `Family` for what each method is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from pawtune.models.families.domains import Domain
from pawtune.models.families.family import (
    BuiltTrial,
    Family,
    PixelGraph,
    Pixels,
    Price,
    Request,
    TrialData,
)
from pawtune.models.families.parameters import params_of, spec_of
from pawtune.models.model_spec import ModelSpec, Params, TrainSpec

if TYPE_CHECKING:
    import keras


def to_spec(family: Family[Any], params: Params, train: TrainSpec) -> tuple[ModelSpec, TrainSpec]:
    """Each parameter in its field."""
    spec: tuple[ModelSpec, TrainSpec] = spec_of(family.spec_type, family.parameters, params, train)
    return spec


def to_params(family: Family[Any], model: ModelSpec, train: TrainSpec) -> Params:
    """The fields that are parameters."""
    return params_of(family.parameters, model, train)


def columns(family: Family[Any], model: ModelSpec) -> Params:
    """The fields of the specification."""
    return model.model_dump()


def price(family: Family[Any], model: ModelSpec, num_classes: int) -> Price:
    """As the family's layers have it: each weight is used at every place of its layer's output."""
    layers = list(family.layers(model, num_classes, {}))
    weights = sum(layer.weights for layer in layers)
    return Price(weights, sum(layer.weights * prod(layer.shape[:-1]) for layer in layers))


def needs(family: Family[Any], model: ModelSpec, bank_views: int) -> tuple[Request, ...]:
    """Pixels."""
    return (Pixels(model.image_size),)


def may_need(
    family: Family[Any], space: Mapping[str, Domain], image_sizes: Sequence[int], bank_views: int
) -> set[Request]:
    """Pixels of every size."""
    return {Pixels(size) for size in image_sizes}


def inputs(family: Family[Any], model: ModelSpec, graph: PixelGraph) -> keras.KerasTensor:
    """Pixels."""
    return graph.pixels(model.image_size)


def build(family: Family[Any], model: ModelSpec, train: TrainSpec, data: TrialData) -> BuiltTrial:
    """A net to be trained on augmented pixels."""
    from pawtune.models.training.pixel_trial import pixel_trial

    core = family.build_core(model, data.num_classes, {}, seed=train.seed)
    return pixel_trial(model, train, data, core)
