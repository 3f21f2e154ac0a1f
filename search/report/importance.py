"""Which parameters decided, by Optuna's PED-ANOVA, computed from the trials themselves.

Within a family every parameter applies to every trial, so families are looked at one by one.
Trials that were stopped early count with the best they had reached: those that were worth
finishing alone would be a biased sample.

Source: Watanabe, Bansal, Hutter, PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
Arbitrary Subspaces (IJCAI 2023), https://arxiv.org/abs/2304.10255.
"""

import warnings
from collections.abc import Sequence

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial

from pawtune.search.report.data import ReportData, TrialView
from pawtune.search.sampling.optuna_log import quiet_optuna
from pawtune.search.sampling.past_study import locate_spec

MIN_TRIALS = 10  # the evaluator compares the best fifth with the rest: two points at the least
BEST_SHARE = 0.2


@quiet_optuna()
def rank_parameters(data: ReportData, family: str) -> dict[str, float] | None:
    """Importance of each parameter that varied within a family, the largest first; they sum to 1.

    Returns:
        None where fewer than `MIN_TRIALS` trials of the family lie in the search space.
    """
    trials = _frozen(data, [trial for trial in data.of_family(family) if trial.usable])
    if len(trials) < MIN_TRIALS:
        return None
    study = optuna.create_study(direction=data.objective.directions[0])
    study.add_trials(trials)
    varied = [
        name
        for name, domain in trials[0].distributions.items()
        # What only some kinds of trials have cannot be compared over all.
        if not domain.single() and all(name in trial.params for trial in trials)
        if len({trial.params[name] for trial in trials}) > 1
    ]
    if not varied:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small regimes: the page states how many trials there are
        evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
        return get_param_importances(study, evaluator=evaluator, params=varied)


def _frozen(data: ReportData, trials: Sequence[TrialView]) -> list[FrozenTrial]:
    """The trials as Optuna knows them; those that lie outside the space are left out."""
    families = data.config.families or data.families
    located = [(trial, *locate_spec(trial.spec, data.config, families)) for trial in trials]
    return [
        create_trial(
            state=TrialState.COMPLETE,
            value=data.score(trial),
            params=params,
            distributions=distributions,
        )
        for trial, params, distributions in located
        if params
    ]
