"""The search space: a define-by-run function of an Optuna trial, and params <-> specs.

The space is conditional: the family is proposed first, then only the parameters that family
has (`models.families`). A name has one meaning among all families (`conv_dropout`,
`head_dropout`), so that Optuna's grouped TPE never mixes two.
"""

import itertools
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

from pawtune.models.families.domains import Choices, Domain, FloatRange, IntRange
from pawtune.models.families.table import family_of, find_family
from pawtune.models.model_spec import TrainSpec
from pawtune.models.spec import TrialSpec
from pawtune.search.config.search_config import SearchConfig

Params = dict[str, Any]


def propose(trial: optuna.trial.BaseTrial, config: SearchConfig, families: Sequence[str]) -> Params:
    """Asks an Optuna trial for one point of the space.

    Args:
        trial: The trial to ask; a `FixedTrial` checks a given point instead.
        config: Holds the ranges.
        families: The families that can run here.

    Returns:
        Parameters by name: those of the proposed family only.
    """
    params: Params = {"family": trial.suggest_categorical("family", list(families))}
    params["image_size"] = trial.suggest_categorical("image_size", list(config.image_size))
    for parameter in find_family(params["family"]).parameters:
        if parameter.applies(params):
            domain = config.space.domain(parameter.name)
            params[parameter.name] = _suggest(trial, parameter.name, domain)
    return params


def completions(point: Mapping[str, Any], config: SearchConfig) -> Iterator[Params]:
    """A point with each image size, and each choice of the parameters that it leaves out.

    Args:
        point: Its family, and some of the family's parameters.
        config: Holds the choices.
    """
    missing: dict[str, list[Any]] = {"image_size": list(config.image_size)}
    for parameter in find_family(point["family"]).parameters:
        domain = config.space.domain(parameter.name)
        left_out = parameter.name not in point and parameter.applies(point)
        if left_out and isinstance(domain, Choices):
            missing[parameter.name] = list(domain.choices)
    for values in itertools.product(*missing.values()):
        yield {**point, **dict(zip(missing, values, strict=True))}


def _suggest(trial: optuna.trial.BaseTrial, name: str, domain: Domain) -> Any:
    match domain:
        case IntRange():
            return trial.suggest_int(
                name, domain.low, domain.high, step=domain.step or 1, log=domain.log
            )
        case FloatRange():
            value = trial.suggest_float(
                name, domain.low, domain.high, step=domain.step, log=domain.log
            )
            return float(f"{value:.6g}")  # 0.15000000000000002 would differ from 0.15
        case Choices():
            return trial.suggest_categorical(name, list(domain.choices))
    raise TypeError(f"no way to propose from {domain!r}")


def to_spec(params: Mapping[str, Any], config: SearchConfig, name: str, seed: int) -> TrialSpec:
    """The trial that a point of the space stands for.

    Raises:
        pydantic.ValidationError: The point is no valid model.
    """
    train = TrainSpec(
        epochs=config.epochs,
        seed=seed,
        precision=config.speed.precision,
        class_weights=config.class_weights,
    )
    model, train = find_family(params["family"]).to_spec(dict(params), train)
    return TrialSpec(name=name, model=model, train=train)


def to_params(spec: TrialSpec) -> Params | None:
    """The point of the space that a spec stands for; None where its family has none for it."""
    params = family_of(spec.model).to_params(spec.model, spec.train)
    if params is None:
        return None
    return {"family": spec.model.family, "image_size": spec.model.image_size, **params}


def locate(
    params: Mapping[str, Any], config: SearchConfig, families: Sequence[str]
) -> dict[str, BaseDistribution] | None:
    """The distributions of a given point, or None where it lies outside the space.

    A point from elsewhere (a baseline, an earlier run) may only teach the sampler if the sampler
    could have proposed it: Optuna takes an out-of-range number as it is and stops at an unknown
    category.
    """
    probe = optuna.trial.FixedTrial(dict(params))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # how Optuna says "out of range"
        try:
            proposed = propose(probe, config, families)
        except (ValueError, UserWarning):  # or: no such parameter, no such choice
            return None
    return probe.distributions if proposed.keys() == params.keys() else None


def identity(spec: TrialSpec) -> str:
    """What makes two trials the same configuration: all but name and seed."""
    content = spec.model_dump(exclude={"name": True, "train": {"seed"}})
    return json.dumps(content, sort_keys=True)
