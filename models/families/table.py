"""The table of architecture families: one line for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pawtune.models.errors import ModelError
from pawtune.models.families.conv import CONV
from pawtune.models.families.family import Averageable, Backbone, CoreShape, Family, Price
from pawtune.models.families.finetune import FINETUNE
from pawtune.models.families.transfer import TRANSFER
from pawtune.models.model_spec import ModelSpec
from pawtune.models.words import did_you_mean

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class OwnFamily:
    """A family of one's own.

    Attributes:
        family: the family.
        place: where its class stands, "package.module:Name".
    """

    family: Family[Any]
    place: str


BUILT_IN: Mapping[str, Family[Any]] = MappingProxyType(
    {
        CONV.name: CONV,
        TRANSFER.name: TRANSFER,
        FINETUNE.name: FINETUNE,
    }
)
# Families of one's own, by name: see `own`, which alone changes it.
OWN: dict[str, OwnFamily] = {}
MAX_WEIGHTS = 20_000_000
MAX_COST_RATIO = 5  # multiply-adds of an image's forward pass, against tutorial_3 at 160 px


def known_families() -> Mapping[str, Family[Any]]:
    """Every family that this process knows, by name; those of one's own last."""
    return {**BUILT_IN, **{name: own.family for name, own in OWN.items()}}


def find_family(name: str) -> Family[Any]:
    """The family of a name.

    Raises:
        ModelError: there is none.
    """
    known = known_families()
    if name not in known:
        raise ModelError(
            f"a family is one of {', '.join(known)}, received {name!r}" + did_you_mean(name, known)
        )
    return known[name]


def family_of(model: ModelSpec) -> Family[Any]:
    """The family of a model.

    Raises:
        ModelError: it is not known in this process.
    """
    return find_family(model.family)


def core_shape_of(
    model: ModelSpec, load_backbone: Callable[[Backbone], keras.Model]
) -> CoreShape | None:
    """What is equal for models whose trained cores may be averaged; None: with no other.

    Args:
        model: the model.
        load_backbone: gives a backbone that the family's `needs` names.

    Raises:
        ModelError: its family is not known in this process.
    """
    family = family_of(model)
    if not isinstance(family, Averageable):
        return None
    return family.core_shape(model, load_backbone)


def check_limits(model: ModelSpec, num_classes: int) -> None:
    """Refuse a net too large or too slow for a search; heads on backbones are always small.

    Raises:
        ModelError: more than 20 million weights, or more than five times the multiply-adds
            of tutorial_3 at 160 px.
    """
    price: Price | None = family_of(model).price(model, num_classes)
    if price is None:
        return
    if price.weights > MAX_WEIGHTS:
        raise ModelError(
            f"a net may have at most {MAX_WEIGHTS:,} weights, this one has {price.weights:,}: give "
            "fewer filters, a smaller dense_width or pooling 'global_average'"
        )
    reference = CONV.price(CONV.baselines["tutorial_3"], num_classes)
    ratio = price.multiply_adds / reference.multiply_adds
    if ratio > MAX_COST_RATIO:
        raise ModelError(
            f"a net may cost at most {MAX_COST_RATIO} times the multiply-adds of tutorial_3 at "
            f"160 px, this one costs {ratio:.1f} times: give fewer filters, a smaller "
            "kernel_size or a smaller image_size"
        )
