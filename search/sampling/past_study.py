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
        config: Configuration of the run: the direction, and the domain of each parameter.
        name: Name of the study.
    """
    with quiet_optuna():
        study = optuna.create_study(
            study_name=name, directions=config.objective.directions, storage=None
        )
    study.add_trials(
        [freeze_past(trial, config, config.family_names) for trial in past if trial.over]
    )
    return study


def freeze_past(trial: PastTrial, config: SearchConfig, families: Sequence[str]) -> FrozenTrial:
    """A trial of an earlier session; without parameters where it lies outside the space."""
    state = STATES.get(trial.status, TrialState.PRUNED)
    point = final_values(config.objective, trial.values, trial.costs)
    state = state_with(config.objective, state, point)
    located = locate_spec(trial.spec, config, families)
    return freeze(trial.spec, state, trial.values, *located, point)


def final_values(
    objective: Objective, values: Mapping[int, float], costs: Mapping[str, float]
) -> list[float] | None:
    """A trial's values, one per direction: the last of its running best, then its costs."""
    return objective.values(values[max(values)], costs) if values else None


def state_with(
    objective: Objective, state: TrialState, point: Sequence[float] | None
) -> TrialState:
    """The state that a study of these objectives has for a trial.

    Optuna prunes with one objective only. With several a trial that was stopped early counts as
    complete at the point that it reached: its best epoch is there to be delivered, and may well be
    on the Pareto front.
    """
    if not objective.costs or state == TrialState.FAIL:
        return state
    return TrialState.COMPLETE if point is not None else TrialState.FAIL


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
    point: Sequence[float] | None,
) -> FrozenTrial:
    """An ended trial as Optuna keeps it: with what it came to, see `final_values`."""
    return create_trial(
        state=state,
        values=None if state == TrialState.FAIL else point,
        params=params,
        distributions=distributions,
        intermediate_values=dict(values),
        user_attrs={"name": spec.name, **spec.params()},
    )
