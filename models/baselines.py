"""The baselines of all built-in families: the published tutorial's five models."""

from __future__ import annotations

from collections.abc import Mapping

from pawtune.models.errors import ModelError
from pawtune.models.families.table import BUILT_IN
from pawtune.models.model_spec import TrainSpec
from pawtune.models.spec import TrialSpec
from pawtune.models.words import did_you_mean

BASELINES: Mapping[str, TrialSpec] = {
    name: TrialSpec(name=name, model=model)
    for family in BUILT_IN.values()
    for name, model in family.baselines.items()
}


def baseline(name: str, epochs: int = 20, seed: int = 0) -> TrialSpec:
    """The named tutorial model at 160 px, batch 32, adam 1e-3.

    Raises:
        ModelError: no baseline has that name.
    """
    if name not in BASELINES:
        raise ModelError(
            f"a baseline is one of {', '.join(BASELINES)}, received {name!r}"
            + did_you_mean(name, BASELINES)
        )
    trial = BASELINES[name]
    train = TrainSpec(**{**trial.train.model_dump(), "epochs": epochs, "seed": seed})
    return trial.model_copy(update={"train": train})
