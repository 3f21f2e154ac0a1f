"""Proposals: a Tune searcher on an Optuna study, with correct book-keeping.

What the sampler learns from is what happened: every epoch is reported; a trial that ASHA stopped
is PRUNED at its last epoch; a completed one is COMPLETE with its best; an error or a NaN is FAIL.
The working study lives in memory and may hold proposals that were refused (duplicates, nets past
the limits); the study file gets real trials only, each once, when it ends, so that it never holds
a zombie and may be deleted and rebuilt.
"""

import logging
import warnings
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState
from pydantic import ValidationError
from ray.tune.search import Searcher

from pawtune.models.errors import ModelError
from pawtune.models.families.table import check_limits, find_family
from pawtune.models.spec import TrialSpec
from pawtune.search.config.needs import live_sizes, needs_of_proposals
from pawtune.search.config.search_config import SamplerConfig, SearchConfig
from pawtune.search.sampling import space
from pawtune.search.sampling.earlier_runs import NO_LESSONS, Lessons
from pawtune.search.sampling.past_study import (
    final_values,
    freeze,
    freeze_past,
    locate_spec,
    state_with,
)
from pawtune.search.sampling.study_file import StudyFile
from pawtune.search.storage.history import PastTrial
from pawtune.search.storage.records import ProposedTrial
from pawtune.search.storage.retry import must_exist, retry_storage
from pawtune.search.storage.run_folder import RunFolder, TrialFolder
from pawtune.search.trial_report import TrialReport
from pawtune.search.tuning.unsaved import Unsaved

logger = logging.getLogger(__name__)
FIRST_TURN = 5  # points of a portfolio before the other families have their turn
MAX_ASKS = 200  # a space that gives only known points that often is taken as exhausted


def make_sampler(
    config: SamplerConfig, seed: int, num_past: int = 0
) -> optuna.samplers.BaseSampler:
    """The sampler by name; grouped, multivariate TPE is what conditional families need.

    Args:
        config: Name of the sampler, and its settings.
        seed: Seed of the search.
        num_past: Trials of earlier sessions: a search that is resumed must not draw again what it
            drew at its start.
    """
    if num_past:
        seed = int(np.random.SeedSequence((seed, num_past)).generate_state(1)[0])
    if config.name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # `group`, since 2021
        return optuna.samplers.TPESampler(
            seed=seed,
            n_startup_trials=config.startup_trials,
            multivariate=True,
            group=True,
            constant_liar=True,
        )


class OptunaSearcher(Unsaved, Searcher):  # type: ignore[misc]  # Ray is untyped
    """Proposes baselines first, then points of the space, and tells Optuna how each ended.

    Args:
        config: The search.
        run: Run in which proposals are written as trials (`trials/<id>/spec.json`).
        families: The families that can run here.
        num_classes: Number of classes, for the limits on size and cost.
        baselines: Run before the first proposal, outside the count of `config.trials`.
        past: Trials of earlier sessions. Those that are over teach the sampler, the others are
            continued before anything new is proposed.
        lessons: Lessons of earlier runs.
        say: Takes a line for the person who watches.
    """

    def __init__(
        self,
        config: SearchConfig,
        run: RunFolder,
        *,
        families: Sequence[str],
        num_classes: int,
        baselines: Sequence[TrialSpec] = (),
        past: Sequence[PastTrial] = (),
        lessons: Lessons = NO_LESSONS,
        say: Callable[[str], None] = logger.warning,
    ) -> None:
        self.objective = config.objective
        # No metric named: Tune would end the whole search over a result without it, a failure's.
        super().__init__()
        self._config = config
        self._run = run
        self._families = list(families)
        self._num_classes = num_classes
        names = {trial.spec.name for trial in past}
        self._baselines = iter([spec for spec in baselines if spec.name not in names])
        self._unfinished = iter([trial for trial in past if not trial.over])
        wanted = config.trials if config.baselines != "only" else 0
        self._proposals_left = wanted - sum(not trial.baseline for trial in past)
        self._next_number = 1 + max((int(trial.trial_id) for trial in past), default=0)
        self._say = say
        self._known = {space.identity(spec) for spec in baselines}
        self._known |= {space.identity(trial.spec) for trial in past}
        self._asked: dict[str, optuna.Trial] = {}
        self._specs: dict[str, TrialSpec] = {}
        self._values: dict[str, dict[int, float]] = {}
        self._costs: dict[str, Mapping[str, float]] = {}
        self._started: dict[str, datetime] = {}
        self._study = optuna.create_study(
            sampler=make_sampler(config.sampler, config.seed, len(past) + len(lessons.observed)),
            directions=self.objective.directions,
        )
        self._known |= lessons.known
        if lessons.observed:
            self._study.add_trials(lessons.observed)
        self._first = deque(() if past else (*lessons.first, *self._portfolio()))
        of_known = [*baselines, *(trial.spec for trial in past)]
        self._waiting = self._without_trial({spec.model.family for spec in of_known})
        # `trials/` is the truth: the study file is made again from it.
        self._file = StudyFile(run.study_file, run.name, self.objective, say)
        self._file.start()
        for trial in past:
            if trial.over:
                self._remember(trial)

    def _portfolio(self) -> list[space.Params]:
        """The families' strong points, as far as the space holds them.

        The first of each family come before the others, so that a short search sees them all;
        with the others they are at most half of the trials.
        """

        def trains_on_pixels(family: str) -> bool:
            return bool(live_sizes(needs_of_proposals(self._config, [family])))

        families = sorted(self._families, key=trains_on_pixels)  # the others are cheaper
        first, others = (
            [
                whole
                for family in families
                for point in find_family(family).portfolio[turn]
                for whole in space.completions({"family": family, **point}, self._config)
                if space.locate(whole, self._config, self._families) is not None
            ]
            for turn in (slice(FIRST_TURN), slice(FIRST_TURN, None))
        )
        return first + others[: max(0, self._proposals_left // 2 - len(first))]

    def _without_trial(self, tried: Collection[str]) -> list[str]:
        """The families that were asked for by name and have no trial yet."""
        asked_for = self._families if self._config.families else ()
        waiting = [family for family in asked_for if family not in tried]
        left = self._proposals_left
        if 0 < left < len(waiting):
            self._say(
                f"each family that is named gets a trial if there are enough, received {left} for "
                f"{', '.join(waiting)}; give {len(waiting) - left} more"
            )
        return waiting

    def _next_first(self) -> space.Params | None:
        """The point to propose before the sampler has its say; None where it has.

        The last trials belong to the families that still have none.
        """
        if len(self._waiting) < self._proposals_left or not self._waiting:
            return self._first.popleft() if self._first else None
        strong = (point for point in self._first if point["family"] in self._waiting)
        point = next(strong, None)
        if point is None:
            return {"family": self._waiting[0]}
        self._first.remove(point)
        return point

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The next trial's configuration, or FINISHED. Called by Tune."""
        unfinished = next(self._unfinished, None)
        if unfinished is not None:
            self._track(trial_id, unfinished.spec, unfinished.values, unfinished.costs)
            return self._handed_out(unfinished.trial_id, unfinished.spec, unfinished.baseline)
        spec = next(self._baselines, None)
        is_baseline = spec is not None
        if spec is None:
            asked = self._propose() if self._proposals_left > 0 else None
            if asked is None:
                return str(Searcher.FINISHED)
            self._proposals_left -= 1
            self._asked[trial_id], spec = asked
        name = f"{self._next_number:04d}"
        self._next_number += 1
        proposal = ProposedTrial(spec, is_baseline, spec.params())
        retry_storage(lambda: self._write_new(self._run.new_trial(name), proposal))
        self._track(trial_id, spec, {})
        return self._handed_out(name, spec, is_baseline)

    def _write_new(self, folder: TrialFolder, proposal: ProposedTrial) -> None:
        must_exist(self._run.root)
        folder.write_proposal(proposal)
        folder.write_status("pending")

    def _track(
        self,
        trial_id: str,
        spec: TrialSpec,
        values: Mapping[int, float],
        costs: Mapping[str, float] | None = None,
    ) -> None:
        self._specs[trial_id] = spec
        self._costs[trial_id] = costs or {}
        self._values[trial_id] = dict(values)
        self._started[trial_id] = datetime.now()

    def _handed_out(self, name: str, spec: TrialSpec, is_baseline: bool) -> dict[str, Any]:
        content = spec.model_dump(mode="json")
        return {"trial_id": name, "baseline": is_baseline, "spec": content}

    def _remember(self, trial: PastTrial) -> None:
        """Tells study and study file of a trial that ended in an earlier session."""
        ended = freeze_past(trial, self._config, self._families)
        if ended.params:
            self._study.add_trial(ended)
        self._file.add(ended)

    def _propose(self) -> tuple[optuna.Trial, TrialSpec] | None:
        for _ in range(MAX_ASKS):
            first = self._next_first()
            if first is not None:
                self._study.enqueue_trial(first)
            trial = self._study.ask()
            params = space.propose(trial, self._config, self._families)
            name = f"{params['family']}-{self._next_number:04d}"
            try:
                spec = space.to_spec(params, self._config, name, self._config.seed)
                check_limits(spec.model, self._num_classes)
            except (ValidationError, ModelError):
                # As a failure the sampler would ignore it; from the worst of all it learns.
                self._study.tell(trial, state=TrialState.PRUNED)
                continue
            identity = space.identity(spec)
            if identity in self._known:
                self._study.tell(trial, state=TrialState.FAIL)
                continue
            self._known.add(identity)
            self._waiting = [family for family in self._waiting if family != params["family"]]
            return trial, spec
        self._say(
            f"the search space holds no more new configurations: {MAX_ASKS} proposals in a row "
            "were known or past the limits; the search ends early (widen `space` for more)"
        )
        return None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Reports an epoch to the study. Called by Tune for all but a trial's last result."""
        report = TrialReport.from_result(result)
        if report.best is None or trial_id not in self._specs:
            return
        epoch, value = report.epoch, report.best.objective
        self._costs[trial_id] = report.costs
        if epoch in self._values[trial_id]:  # a continued trial repeats nothing
            return
        self._values[trial_id][epoch] = value
        if trial_id in self._asked and not self.objective.costs:  # Optuna refuses it with several
            self._asked[trial_id].report(value, step=epoch)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tells the study how a trial ended. Called by Tune."""
        if trial_id not in self._specs:
            return
        result = result or {}
        report = TrialReport.from_result(result)
        failed = error or report.failure is not None or report.best is None
        if not failed:
            self.on_trial_result(trial_id, result)
        epochs = self._specs[trial_id].train.epochs
        values = self._values[trial_id]
        completed = bool(values) and max(values) >= epochs
        ended = TrialState.COMPLETE if completed else TrialState.PRUNED
        self._record(trial_id, TrialState.FAIL if failed else ended)

    def _record(self, trial_id: str, state: TrialState) -> None:
        """Puts an ended trial into the working study and, once, into the study file."""
        spec, values = self._specs.pop(trial_id), self._values.pop(trial_id)
        point = final_values(self.objective, values, self._costs.pop(trial_id))
        state = state_with(self.objective, state, point)
        asked = self._asked.pop(trial_id, None)
        if asked is not None:
            self._study.tell(asked, point if state == TrialState.COMPLETE else None, state=state)
            frozen = self._study.get_trials(deepcopy=False)[asked.number]
            params, distributions = frozen.params, dict(frozen.distributions)
        else:
            params, distributions = locate_spec(spec, self._config, self._families)
        ended = freeze(spec, state, values, params, distributions, point)
        ended.datetime_start = self._started.pop(trial_id)
        if asked is None and params:
            self._study.add_trial(ended)
        self._file.add(ended)

    def close(self) -> None:
        """Completes the study file. To be called when the search is over."""
        self._file.close()

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the run folder is the truth, and Tune's snapshots are never read."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""
