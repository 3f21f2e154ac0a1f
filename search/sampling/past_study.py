"""Ended trials as Optuna keeps them: for the sampler of the next session, and for Python users."""

from collections.abc import Iterable, Mapping, Sequence

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from pawtune.models.spec import TrialSpec
from pawtune.search.config.search_config import SearchConfig
from pawtune.search.objective import Objective
from pawtune.search.sampling import space
from pawtune.search.sampling.optuna_log import quiet_optuna
from pawtune.search.storage.history import PastTrial

STATES = {"completed": TrialState.COMPLETE, "failed": TrialState.FAIL}  # else it was stopped


def make_study(past: Iterable[PastTrial], config: SearchConfig, name: str) -> optuna.Study:
    """A study in memory that holds the trials that have ended, in the order of proposal.

    Args:
        past: Trials of a run.
        config: Of the run: it gives the direction, and the domain of each parameter.
        name: Of the study.
    """
    with quiet_optuna():
        study = optuna.create_study(
            study_name=name, direction=Objective(config.metric).direction, storage=None
        )
    study.add_trials(
        [freeze_past(trial, config, config.family_names) for trial in past if trial.over]
    )
    return study


def freeze_past(trial: PastTrial, config: SearchConfig, families: Sequence[str]) -> FrozenTrial:
    """A trial of an earlier session; without parameters where it lies outside the space."""
    state = STATES.get(trial.status, TrialState.PRUNED)
    return freeze(trial.spec, state, trial.values, *locate_spec(trial.spec, config, families))


def locate_spec(
    spec: TrialSpec, config: SearchConfig, families: Sequence[str]
) -> tuple[space.Params, dict[str, BaseDistribution]]:
    """A spec as a point of this space; an empty one where it lies outside."""
    params = space.to_params(spec)
    located = space.locate(params, config, families) if params else None
    return (params, located) if params and located else ({}, {})


def freeze(
    spec: TrialSpec,
    state: TrialState,
    values: Mapping[int, float],
    params: space.Params,
    distributions: dict[str, BaseDistribution],
) -> FrozenTrial:
    """An ended trial as Optuna keeps it: with the last value of its running best."""
    return create_trial(
        state=state,
        value=None if state == TrialState.FAIL or not values else values[max(values)],
        params=params,
        distributions=distributions,
        intermediate_values=dict(values),
        user_attrs={"name": spec.name, **spec.params()},
    )
