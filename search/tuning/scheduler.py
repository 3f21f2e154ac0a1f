"""Early stopping: one ASHA bracket per architecture family; baselines are left alone."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from pawtune.models.families.table import find_family
from pawtune.models.model_spec import TrainSpec
from pawtune.models.words import count
from pawtune.search.objective import Objective
from pawtune.search.storage.history import PastTrial
from pawtune.search.tuning.domination import Domination
from pawtune.search.tuning.outlook import Outlook

HALF_WAY = {"time_attr": "percent", "max_t": 101, "grace_period": 50}


class FamilyScheduler(FIFOScheduler):  # type: ignore[misc]  # Ray is untyped
    """Asynchronous successive halving within each family.

    A transfer head at 0.95 after one epoch must not end every convolutional net, so trials are
    compared with their own family only, and with those that spend as many epochs on images of half
    the side, during which none is judged. A baseline's results enter the rungs, but it is never
    stopped: it is what a search is measured against. A trial that has no rivals at its epoch is
    judged by the best of the other families, see `Outlook`; not under a schedule of its own, where
    most is won towards the end. With several objectives halving still goes by the metric, and a
    trial that nothing dominates is left alone, see `Domination`.

    Source: Li et al., A System for Massively Parallel Hyperparameter Tuning (2020),
    https://arxiv.org/abs/1810.05934.

    Args:
        objective: Gives the direction; trials report its running best as `objective`.
        epochs: Length of a full trial.
        grace_period: Epochs that every trial may run.
        reduction_factor: Only the best 1 / factor of a rung continues.
        seconds_left: Gives the seconds until the whole search ends.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        epochs: int,
        grace_period: int,
        reduction_factor: int,
        seconds_left: Callable[[], float] = lambda: math.inf,
    ) -> None:
        super().__init__()
        self._seconds_left = seconds_left
        self._arguments: dict[str, Any] = {
            "time_attr": "epoch",
            "metric": "objective",
            "mode": objective.mode,
            "max_t": epochs + 1,  # at max_t Tune would stop a trial that ends by itself anyway
            "grace_period": min(grace_period, epochs),
            "reduction_factor": reduction_factor,
        }
        self._outlook = Outlook(
            objective,
            grace_period=min(grace_period, epochs),
            reduction_factor=reduction_factor,
        )
        self._families: dict[str, AsyncHyperBandScheduler] = {}
        self._domination = Domination(objective) if objective.costs else None
        self._open: set[str] = set()
        self._unfinished: dict[str, PastTrial] = {}
        self.stopped: set[str] = set()

    def _family(self, trial: Trial) -> AsyncHyperBandScheduler:
        spec = trial.config["spec"]
        # A head that is solved in one step says nothing about the first epoch of one that is not,
        # nor a rate that stays about one that will fall.
        train = spec["train"]
        schedule = train.get("schedule", "constant")
        family = f"{spec['model']['family']}, {count(train['epochs'], 'epoch')}, {schedule}"
        arguments = self._arguments
        if half := _half_size_epochs(trial):
            family += f", {half} of them on small images"
            grace = min(half + arguments["grace_period"], train["epochs"])
            arguments = {**arguments, "grace_period": grace}
        if find_family(spec["model"]["family"]).spec_type.is_scheduled:
            # Schedules of any length are compared once, when half of them is done.
            family, arguments = spec["model"]["family"], {**arguments, **HALF_WAY}
        if family not in self._families:
            self._families[family] = AsyncHyperBandScheduler(**arguments)
        if trial.trial_id not in self._open:
            self._open.add(trial.trial_id)
            self._families[family].on_trial_add(None, trial)
            past = self._unfinished.pop(trial.config["trial_id"], None)
            if past is not None:
                self._replay(past, trial)
        return self._families[family]

    def _replay(self, past: PastTrial, trial: Any) -> dict[str, Any]:
        """Enters a trial's earlier epochs into its family's rungs; returns the last of them.

        Without them a trial that continues would enter the rungs below with its later value, and
        others would be stopped against that.
        """
        result: dict[str, Any] = {}
        for epoch, value in past.values.items():
            result = {"epoch": epoch, "objective": value, **past.costs}
            self._note(trial, result)
            if epoch > _half_size_epochs(trial):
                self._family(trial).on_trial_result(None, trial, _with_percent(trial, result))
        return result

    def remember(self, past: PastTrial) -> None:
        """Enters a trial of an earlier session into its family's rungs.

        One that continues enters them when its worker reports the first epoch of this session.
        """
        if not past.over:
            self._unfinished[past.trial_id] = past
            return
        spec = {
            "model": {"family": past.spec.model.family},
            "train": {
                "epochs": past.spec.train.epochs,
                "schedule": past.spec.train.schedule,
                "half_size_share": past.spec.train.half_size_share,
            },
        }
        stub = SimpleNamespace(
            trial_id=f"past-{past.trial_id}",
            config={"trial_id": past.trial_id, "baseline": True, "spec": spec},
        )
        self.on_trial_complete(None, stub, self._replay(past, stub))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Says whether a trial continues after an epoch."""
        if result.get("epoch", math.inf) <= _half_size_epochs(trial):
            # Those epochs are cheap, and whole validation images do not suit their weights yet.
            self._note(trial, result)
            return str(TrialScheduler.CONTINUE)
        decision: str = self._family(trial).on_trial_result(
            tune_controller, trial, _with_percent(trial, result)
        )
        self._note(trial, result)
        if trial.config["baseline"]:
            return str(TrialScheduler.CONTINUE)
        if "objective" in result and self._is_hopeless(trial):
            decision = str(TrialScheduler.STOP)
        if decision == TrialScheduler.STOP and self._domination is not None:
            is_dominated = self._domination.is_dominated(trial.trial_id)
            decision = str(TrialScheduler.STOP if is_dominated else TrialScheduler.CONTINUE)
        if decision == TrialScheduler.STOP:
            self.stopped.add(trial.config["trial_id"])
        return decision

    def _is_hopeless(self, trial: Trial) -> bool:
        spec = trial.config["spec"]
        if find_family(spec["model"]["family"]).spec_type.is_scheduled:
            return False
        epochs = spec["train"]["epochs"] - _half_size_epochs(trial)
        return self._outlook.is_hopeless(trial.trial_id, epochs, self._seconds_left())

    def _note(self, trial: Any, result: dict[str, Any]) -> None:
        if "objective" in result:
            family = trial.config["spec"]["model"]["family"]
            judged = int(result["epoch"]) - _half_size_epochs(trial)
            value, seconds = float(result["objective"]), float(result.get("time_total_s", 0.0))
            self._outlook.note(trial.trial_id, family, judged, value, seconds)
            if self._domination is not None and judged > 0:
                epochs = trial.config["spec"]["train"]["epochs"]
                self._domination.note(trial.trial_id, family, epochs, result)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Records the end of a trial, and its last result, which Tune hands to no other method."""
        self._note(trial, result)
        if trial.trial_id in self._open:
            result = _with_percent(trial, result)
            self._family(trial).on_trial_complete(tune_controller, trial, result)
            self._open.discard(trial.trial_id)

    def debug_string(self) -> str:
        """One line a family, for Tune's logs."""
        return "\n".join(f"{name}: {s.debug_string()}" for name, s in self._families.items())


def _half_size_epochs(trial: Any) -> int:
    """Epochs that a trial spends on images of half the side, after which it is first judged."""
    train = trial.config["spec"]["train"]
    given = {name: train[name] for name in ("epochs", "half_size_share") if name in train}
    return TrainSpec(**given).half_size_epochs


def _with_percent(trial: Any, result: dict[str, Any]) -> dict[str, Any]:
    """A result with the part of its trial's epochs that is done."""
    if "epoch" not in result:
        return result
    return {**result, "percent": 100 * result["epoch"] // trial.config["spec"]["train"]["epochs"]}
