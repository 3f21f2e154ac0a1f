"""Which shared work the trials of a search may ask for, by its configuration alone."""

from collections.abc import Collection, Iterable

from pawtune.data_pipeline.safe_files import expanded
from pawtune.data_pipeline.sources.object_store import is_address
from pawtune.models.backbones.backbone_weights import find_weights, weights_by_backbone
from pawtune.models.baselines import BASELINES
from pawtune.models.errors import ModelError
from pawtune.models.families.family import (
    Activations,
    Backbone,
    Pixels,
    PlainFeatures,
    Request,
    ViewBank,
)
from pawtune.models.families.table import family_of, find_family
from pawtune.models.spec import TrialSpec
from pawtune.search.config.search_config import SearchConfig


def needs_of_trials(config: SearchConfig, specs: Iterable[TrialSpec]) -> set[Request]:
    """The shared work of given trials."""
    return {
        request
        for spec in specs
        for request in family_of(spec.model).needs(spec.model, config.bank_views)
    }


def needs_of_proposals(config: SearchConfig, families: Iterable[str]) -> set[Request]:
    """The shared work of all trials of some families that may be proposed."""
    if config.baselines == "only" or config.trials == 0:
        return set()
    domains = config.space.domains()
    return {
        request
        for name in families
        for request in find_family(name).may_need(domains, config.image_size, config.bank_views)
    }


def needs_of_family(config: SearchConfig, name: str) -> set[Request]:
    """The shared work of all trials of a family: its proposals and its baselines."""
    baselines = [spec for spec in BASELINES.values() if spec.model.family == name]
    of_baselines = needs_of_trials(config, baselines) if config.baselines != "off" else set()
    return needs_of_proposals(config, [name]) | of_baselines


def given_weights(config: SearchConfig) -> dict[Backbone, str]:
    """The place of the weights file that a person gave for each backbone of the search.

    Raises:
        ModelError: A file is not said to be that of one of the search's backbones.
    """
    given = weights_by_backbone(config.weights)
    keys = {
        key for name in config.family_names for key in backbones_of(needs_of_family(config, name))
    }
    names = sorted({key.name for key in keys})
    if "" in given and len(names) > 1:
        raise ModelError(
            "--weights with several backbones must say whose each file is, received "
            f"{given['']}; give --weights {','.join(f'{name}=PATH' for name in names)}, or only "
            "those that you have"
        )
    for name in given:
        if name and name not in names:
            raise ModelError(
                f"--weights must be of a backbone that is searched, received {name}'s; the search "
                f"has {', '.join(names) or 'none'}: add it to --backbones, or leave it out"
            )
    places = {key: given.get(key.name, given.get("")) for key in sorted(keys)}
    return {key: place for key, place in places.items() if place}


def check_seen_weights(config: SearchConfig) -> None:
    """Looks at those weights files that this machine sees; another one may see the rest.

    Raises:
        ModelError: One cannot hold its backbone's weights.
    """
    for key, place in given_weights(config).items():
        if not is_address(place) and expanded(place).exists():
            find_weights(*key, expanded(place))


def pixel_sizes(needs: Collection[Request]) -> tuple[int, ...]:
    """Sides in pixels at which images are decoded: for trials, or for features of a backbone."""
    backbones = {*featured_backbones(needs), *tuned_backbones(needs)}
    return tuple(sorted({*live_sizes(needs), *(size for _, size in backbones)}))


def live_sizes(needs: Iterable[Request]) -> tuple[int, ...]:
    """Sides in pixels at which some trial trains on pixels."""
    return tuple(sorted({need.image_size for need in needs if isinstance(need, Pixels)}))


def backbones_of(needs: Iterable[Request]) -> list[Backbone]:
    """Frozen networks that some trial uses."""
    return sorted({need for need in needs if isinstance(need, Backbone)})


def banked_backbones(needs: Iterable[Request]) -> list[Backbone]:
    """Frozen networks of which some trial uses a feature bank."""
    return sorted({need.backbone for need in needs if isinstance(need, ViewBank)})


def featured_backbones(needs: Iterable[Request]) -> list[Backbone]:
    """Frozen networks of which some trial uses features of images, plain ones or a bank's."""
    return sorted({need.backbone for need in needs if isinstance(need, PlainFeatures | ViewBank)})


def tuned_backbones(needs: Iterable[Request]) -> list[Backbone]:
    """Frozen networks whose top some trial trains."""
    return sorted({need.backbone for need in needs if isinstance(need, Activations)})
