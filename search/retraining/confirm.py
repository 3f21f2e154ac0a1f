"""The best trials trained again with other seeds: how much of a trial's lead was luck.

A trial's place on the leaderboard depends on one seed: for its initial weights, dropout, the order
of images and augmentation. The repetitions share everything else with the search: the splits, the
decoded pixels, the feature banks. They run all epochs of their specification, even where ASHA
stopped the trial, and their best epoch is chosen on validation as in the search.

Each repetition has a folder in `confirm/`, laid out as a trial's; neither the leaderboard nor the
sampler reads them. Finished ones are not repeated, unfinished ones continue.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import sqrt
from statistics import fmean, stdev
from typing import Any

import scipy

from pawtune.models.spec import TrialSpec
from pawtune.search.config.own_metric import metric_in_use
from pawtune.search.config.search_config import load_recorded_config
from pawtune.search.errors import UserError
from pawtune.search.objective import Metric, Objective
from pawtune.search.progress.reporter import Reporter, default_reporter
from pawtune.search.results.leaderboard import Row
from pawtune.search.retraining.setup import RetrainingSetup, prepare_retraining
from pawtune.search.retraining.training import Training, train_again
from pawtune.search.storage.object_store_sync import hold_run
from pawtune.search.storage.records import ProposedTrial
from pawtune.search.storage.run_folder import RunFolder, TrialFolder, write_json
from pawtune.search.trial_report import TrialReport
from pawtune.search.worker.trial_client import end_writer, start_writer

# Layers count their seeds upwards from the trial's, augmentation from 1,000 above: seeds that lie
# close would share some of them.
SEED_STEP = 10_000
STAGE = "train with other seeds (epochs)"


@dataclass(frozen=True)
class Outcome:
    """One training of a trial: the metric of its best epoch; or why there is none."""

    seed: int
    score: float | None
    best_epoch: int | None
    epochs: int
    failure: str | None = None


@dataclass(frozen=True)
class Confirmed:
    """A trial with its retrained ones.

    Attributes:
        planned_epochs: Epochs of its specification; the search may have stopped it before.
        searched: Score that the search had for it.
        repeats: Outcomes with other seeds.
        mean: Over all seeds, the search's included.
        deviation: Sample standard deviation over all seeds.
        lowest: Over all seeds.
        highest: Over all seeds.
        mean_of_others: Over the other seeds alone: the search's own was picked for its score.
    """

    trial_id: str
    name: str
    planned_epochs: int
    searched: Outcome
    repeats: Sequence[Outcome]
    mean: float
    deviation: float
    lowest: float
    highest: float
    mean_of_others: float | None

    @property
    def others(self) -> list[float]:
        """Scores with the other seeds, of those that ended well."""
        return [repeat.score for repeat in self.repeats if repeat.score is not None]


@dataclass(frozen=True)
class Confirmation:
    """The best trials with other seeds, and whether their order holds.

    Attributes:
        metric: Metric that trials are ranked by.
        seeds: Other seeds that each trial was given.
        trials: Trials in the order of the leaderboard.
        noise: Largest difference of two means by luck alone (95%); None where too little was
            trained to tell.
        first: Trial whose other seeds are best on average.
        second: Its rival in the comparison: the leaderboard's best, or where it is that itself, the
            next.
        lead: Mean of the first minus mean of the second.
        suggested: Trial to continue with: the leaderboard's best, unless another beats it by more
            than noise.
    """

    metric: Metric
    seeds: int
    trials: Sequence[Confirmed]
    noise: float | None
    first: str | None
    second: str | None
    lead: float | None
    suggested: str

    @property
    def holds(self) -> bool:
        """Whether the leaderboard's best is still the best, by more than noise."""
        is_clear = None not in (self.noise, self.lead) and (self.lead or 0) > (self.noise or 0)
        return is_clear and self.first == self.trials[0].trial_id

    def as_dict(self) -> dict[str, Any]:
        """For `--json` and `confirm.json`."""
        return {"holds": self.holds, **asdict(self)}


@dataclass(frozen=True)
class _Repeat:
    """One training to be done, or done."""

    row: Row
    spec: TrialSpec
    folder: TrialFolder

    @property
    def seed(self) -> int:
        return self.spec.train.seed

    def is_finished(self) -> bool:
        return (
            self.folder.spec_file.exists()
            and self.folder.read_proposal().spec == self.spec
            and self.folder.read_status().status == "completed"
            and len(self.folder.read_metrics()) == self.spec.train.epochs
        )


def confirm_trials(
    run: RunFolder,
    rows: Sequence[Row],
    metric: Metric,
    *,
    top: int,
    seeds: int,
    data: str | None = None,
    address: str | None = None,
    reporter: Reporter | None = None,
) -> Confirmation:
    """Trains the best trials again with other seeds, as Ray tasks side by side.

    Args:
        run: The run.
        rows: Its leaderboard, best first.
        metric: Metric that the search optimised.
        top: How many trials; fewer where the run has fewer.
        seeds: How many other seeds each.
        data: Place of the images, if they have moved.
        address: A Ray cluster, or "local"; by default the search's.
        reporter: Shows progress; by default nothing is shown.

    Raises:
        UserError, DataError, ModelError: No trial to confirm, the run is held by another driver
            or damaged, or the images are not those that the search saw.
    """
    reporter = reporter or default_reporter()
    chosen = [row for row in rows if row.best_epoch is not None][:top]
    if not chosen or seeds < 1:
        raise UserError(
            f"confirm needs a trial with a finished epoch and a seed, received {len(chosen)} "
            f"trials and --seeds {seeds}; see `pawtune leaderboard {run.name}`"
        )
    repeats = [_repeat(run, row, number) for row in chosen for number in range(1, seeds + 1)]
    todo = [repeat for repeat in repeats if not repeat.is_finished()]
    if len(todo) < len(repeats):
        reporter.note(f"{len(repeats) - len(todo)} of {len(repeats)} are there already")
    if todo:
        metric_in_use(load_recorded_config(run.config_file).metric)
        with hold_run(run, reporter.say):
            specs = [repeat.spec for repeat in todo]
            setup = prepare_retraining(run, specs, reporter=reporter, data=data, address=address)
            _train_all(run, todo, setup, Objective(metric), reporter)
    objective = Objective(metric)
    result = assess(
        [_confirmed(run, row, [r for r in repeats if r.row is row], objective) for row in chosen],
        objective,
        seeds,
    )
    write_json(run.confirm_dir / "confirm.json", result.as_dict())
    run.keep_new()
    return result


def _repeat(run: RunFolder, row: Row, number: int) -> _Repeat:
    spec = run.spec_of(row.trial_id)
    seed = (spec.train.seed + number * SEED_STEP) % 2**31
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"seed": seed})})
    return _Repeat(row, spec, TrialFolder(run.confirm_dir / f"{row.trial_id}-seed{seed}"))


def _train_all(
    run: RunFolder,
    todo: Sequence[_Repeat],
    setup: RetrainingSetup,
    objective: Objective,
    reporter: Reporter,
) -> None:
    """Trains the repetitions that are not finished; where one fails, the others continue."""
    repeats = {repeat.folder.root: repeat for repeat in todo}
    epochs = dict.fromkeys(repeats, 0)
    total = sum(repeat.spec.train.epochs for repeat in todo)
    for repeat in todo:
        repeat.folder.write_proposal(ProposedTrial(repeat.spec))
        repeat.folder.write_status("pending")
    trainings = [Training(r.spec, r.folder, continues=True) for r in todo]
    writer = start_writer(run.confirm_dir, objective)
    setup = replace(setup, work=replace(setup.work, writer=writer))

    def on_epoch(training: Training, report: TrialReport) -> None:
        epochs[training.folder.root] = report.epoch
        reporter.stage(STAGE, min(sum(epochs.values()), total - 1), total)

    try:
        for training, error in train_again(setup, trainings, on_epoch):
            _end(repeats[training.folder.root], error, objective, reporter)
        reporter.stage(STAGE, total, total)  # failed ones included
    finally:
        end_writer(writer)
        reporter.close()


def _end(
    repeat: _Repeat, error: Exception | None, objective: Objective, reporter: Reporter
) -> None:
    """Records how a training ended."""
    who = f"{repeat.row.name}, seed {repeat.seed}"
    if error is not None:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        repeat.folder.write_status("failed", reason=reason)
        reporter.say(f"{who} failed: {reason}")
        return
    repeat.folder.drop_last()
    repeat.folder.best_weights.unlink(missing_ok=True)  # nothing reads them; predictions stay
    repeat.folder.write_status("completed")
    outcome = _outcome(repeat.folder, repeat.seed, objective)
    reporter.note(
        f"{who}: {objective.metric} {outcome.score:.4f} "
        f"(epoch {outcome.best_epoch} of {outcome.epochs})"
    )


def _outcome(folder: TrialFolder, seed: int, objective: Objective) -> Outcome:
    epochs = folder.read_metrics()
    status = folder.read_status()
    if status.status == "failed" or not epochs:
        reason = status.reason or "no epoch finished"
        return Outcome(seed, None, None, len(epochs), reason)
    best = objective.best(epochs)
    return Outcome(seed, best[objective.metric], int(best["epoch"]), len(epochs))


def _confirmed(
    run: RunFolder, row: Row, repeats: Sequence[_Repeat], objective: Objective
) -> Confirmed:
    spec = run.spec_of(row.trial_id)
    searched = _outcome(run.trial(row.trial_id), spec.train.seed, objective)
    again = [_outcome(repeat.folder, repeat.seed, objective) for repeat in repeats]
    others = [outcome.score for outcome in again if outcome.score is not None]
    scores = [*([searched.score] if searched.score is not None else []), *others]
    return Confirmed(
        trial_id=row.trial_id,
        name=row.name,
        planned_epochs=spec.train.epochs,
        searched=searched,
        repeats=again,
        mean=fmean(scores),
        deviation=stdev(scores) if len(scores) > 1 else 0.0,
        lowest=min(scores),
        highest=max(scores),
        mean_of_others=fmean(others) if others else None,
    )


def assess(trials: Sequence[Confirmed], objective: Objective, seeds: int) -> Confirmation:
    """Whether the order at the top holds, by the means over the other seeds.

    Args:
        trials: Trials in the order of the leaderboard, at least one.
        objective: Rule by which one score is better than another.
        seeds: Seeds that each trial was given.
    """
    sign = 1 if objective.mode == "max" else -1
    known = [trial for trial in trials if trial.mean_of_others is not None]
    # Stable: of equals the leaderboard's better one comes first.
    ranked = sorted(known, key=lambda trial: -sign * (trial.mean_of_others or 0.0))
    first = ranked[0] if ranked else None
    noise, lead, second, suggested = None, None, None, trials[0].trial_id
    if first is not None and trials[0] not in known:
        suggested = first.trial_id  # the leaderboard's best came to nothing with any other seed
    elif first is not None and len(ranked) > 1:
        # The pair that matters: the first, and the leaderboard's best or else the next.
        against = ranked[1] if first is trials[0] else trials[0]
        second = against.trial_id
        lead = sign * ((first.mean_of_others or 0.0) - (against.mean_of_others or 0.0))
        noise = noise_of_means(known, len(first.others), len(against.others))
        if noise is not None and lead > noise:
            suggested = first.trial_id
    return Confirmation(
        metric=objective.metric,
        seeds=seeds,
        trials=trials,
        noise=noise,
        first=first.trial_id if first else None,
        second=second,
        lead=lead,
        suggested=suggested,
    )


def noise_of_means(trials: Sequence[Confirmed], first: int, second: int) -> float | None:
    """By how much the means of two trials over so many seeds may differ by chance (95%).

    Two-sided Student t interval of a difference, with the spread pooled over all trials: a few
    seeds of one trial alone say too little about it.
    """
    freedom = sum(len(trial.others) - 1 for trial in trials)
    if freedom < 1:
        return None
    squares = sum((score - fmean(trial.others)) ** 2 for trial in trials for score in trial.others)
    quantile = float(scipy.stats.t.ppf(0.975, freedom))
    return quantile * sqrt(squares / freedom * (1 / first + 1 / second))
