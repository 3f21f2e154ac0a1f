"""Which shared work the trials of a search may ask for, by its configuration alone."""

from collections.abc import Iterable

from pawtune.models.baselines import BASELINES
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
    """Frozen networks of which some trial uses features of the plain images."""
    return sorted({need.backbone for need in needs if isinstance(need, PlainFeatures)})


def tuned_backbones(needs: Iterable[Request]) -> list[Backbone]:
    """Frozen networks whose top some trial trains."""
    return sorted({need.backbone for need in needs if isinstance(need, Activations)})
