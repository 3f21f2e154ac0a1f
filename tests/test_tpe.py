"""TPE that reads each trial once proposes what Optuna's own does."""

import random
from collections import Counter
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import TrialState

from pawtune.search.config.search_config import SearchConfig, load_config
from pawtune.search.objective import Objective
from pawtune.search.sampling import space
from pawtune.search.sampling.tpe import RememberingTPE
from pawtune.search.tuning import optuna_searcher
from pawtune.search.tuning.optuna_searcher import make_sampler

CONFIG = load_config(None, [], {"data": "sample"})
FAMILIES = ["conv", "transfer"]


def search(sampler: BaseSampler, config: SearchConfig, trials: int) -> list[space.Params]:
    """Proposals of a search in which everything happens that does in one.

    Eight at once that end in no order, refused points, failures, trials of an earlier session.
    """
    chance = random.Random(1)
    study = optuna.create_study(sampler=sampler, direction=Objective(config.metric).direction)
    earlier = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=2))
    for _ in range(4):
        trial = earlier.ask()
        space.propose(trial, config, FAMILIES)
        earlier.tell(trial, chance.random())
    study.add_trials(earlier.trials[:3])
    proposals, running = [], []
    for number in range(trials):
        trial = study.ask()
        proposals.append(space.propose(trial, config, FAMILIES))
        if chance.random() < 0.1:
            study.tell(trial, state=chance.choice([TrialState.PRUNED, TrialState.FAIL]))
            continue
        running.append(trial)
        if len(running) == 8:
            told = running.pop(chance.randrange(8))
            epochs = chance.randint(1, 3)
            for epoch in range(epochs):
                told.report(round(chance.random(), 1), step=epoch)  # ties, too
            if epochs == 3:
                study.tell(told, round(chance.random(), 1))
            else:
                study.tell(told, state=TrialState.PRUNED)
        if number == trials // 2:
            study.add_trial(earlier.trials[3])
    return proposals


@pytest.mark.parametrize(
    "overrides",
    [["metric=val_loss", "sampler.startup_trials=5"], ["image_size=[64, 96, 128]"]],
    ids=["minimize", "maximize"],
)
def test_a_seed_gives_the_proposals_of_optunas_own(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(None, overrides, {"data": "sample"})
    sampler = make_sampler(config.sampler, 3)
    assert isinstance(sampler, RememberingTPE)
    ours = search(sampler, config, 120)
    monkeypatch.setattr(optuna_searcher, "REMEMBERING_FITS", "another version")
    theirs = make_sampler(config.sampler, 3)
    assert type(theirs) is TPESampler
    assert search(theirs, config, 120) == ours
    assert len({str(params) for params in ours}) > 100


def test_a_trial_is_read_twice_a_group_whatever_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While it runs and when it has ended; Optuna's own does so for each proposal."""
    read: Counter[tuple[int, tuple[str, ...]]] = Counter()
    turn = TPESampler._get_internal_repr

    def counted(self: TPESampler, trials: list[Any], group: dict[str, Any], study: Any) -> Any:
        read.update((trial.number, tuple(group)) for trial in trials)
        return turn(self, trials, group, study)

    monkeypatch.setattr(TPESampler, "_get_internal_repr", counted)
    search(make_sampler(CONFIG.sampler, 3), CONFIG, 60)
    assert len(read) > 100
    assert set(read.values()) <= {1, 2}
