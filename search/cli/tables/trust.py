"""Results of reproduce, confirm, refit and ensemble as tables and sentences."""

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pawtune.models.words import count
from pawtune.search.results.ensembles.combination import SIGNIFICANT, EnsembleResult
from pawtune.search.retraining.confirm import Confirmation, Outcome
from pawtune.search.retraining.refit import Refit
from pawtune.search.retraining.reproduce import Reproduction


def reproduction_table(result: Reproduction) -> Group:
    """Each epoch as recorded and again."""
    title = f"trial {result.trial_id}: {result.name}, as recorded and trained again"
    table = _table()
    table.add_column("epoch", justify="right")
    for name in ("val accuracy", "again", "val loss", "again", "largest difference"):
        table.add_column(name, justify="right")
    for pair in result.pairs:
        cells = [
            f"{metrics[name]:.4f}"
            for name in ("val_accuracy", "val_loss")
            for metrics in (pair.recorded, pair.again)
        ]
        table.add_row(str(pair.epoch), *cells, f"{pair.largest:.2g}" if pair.largest else "none")
    return Group(Text(title, style="bold"), table)


def reproduction_lines(result: Reproduction) -> Iterator[str]:
    """The verdict and what it rests on."""
    if result.changed:
        yield f"not as it was: {'; '.join(result.changed)}"
    epochs = count(len(result.pairs), "epoch")
    metrics = f"{len(result.pairs[0].recorded)} metrics"
    if not result.matches:
        allowed = f"tolerance {result.tolerance:g}"
        yield f"does not match ({allowed}): {result.first_difference}"
        yield f"the largest difference of all is {result.largest:.2g}"
        if not result.changed and result.tolerance == 0:
            yield (
                "machine and versions are what was recorded, so pawtune's own code, the cache, or "
                "a file of the run folder has changed. Next:"
            )
        else:
            yield "Next:"
    elif result.identical:
        predictions = " and its validation predictions" if result.prediction_difference == 0 else ""
        yield f"identical: all digits of {metrics} in {epochs}{predictions}. Next:"
    else:
        yield (
            f"matches: {metrics} in {epochs} differ by at most "
            f"{result.largest:.2g} (tolerance {result.tolerance:g}). "
            "Next:"
        )


def confirmation_table(result: Confirmation) -> Group:
    """Each trial: in the search, with other seeds, and over all seeds."""
    seeds = count(result.seeds, "other seed")
    title = f"{result.metric} of the best epoch; {seeds} each"
    table = _table()
    table.padding = (0, 0)
    table.add_column("trial")
    table.add_column("name", overflow="ellipsis", no_wrap=True)
    for name in ("search", "other seeds", "mean", "all: mean ± sd", "range"):
        table.add_column(name, justify="right")
    for trial in result.trials:
        mean = trial.mean_of_others
        table.add_row(
            trial.trial_id,
            Text(trial.name),
            _score(trial.searched, trial.planned_epochs),
            " ".join(_score(repeat, trial.planned_epochs) for repeat in trial.repeats),
            "–" if mean is None else f"{mean:.4f}",
            f"{trial.mean:.4f} ± {trial.deviation:.4f}",
            f"{trial.lowest:.4f}–{trial.highest:.4f}",
        )
    return Group(Text(title, style="bold"), table)


def _score(outcome: Outcome, planned_epochs: int) -> str:
    """A score; with the epochs behind it where the search had stopped the trial."""
    if outcome.score is None:
        return "failed"
    early = f" ({outcome.epochs} of {planned_epochs})" if outcome.epochs < planned_epochs else ""
    return f"{outcome.score:.4f}{early}"


def confirmation_lines(result: Confirmation) -> Iterator[str]:
    """Whether the order at the top holds, and how certain that is."""
    leader = result.trials[0]
    for trial in result.trials:
        for repeat in trial.repeats:
            if repeat.failure is not None:
                yield f"{trial.trial_id} failed with seed {repeat.seed}: {repeat.failure}"
    if leader.mean_of_others is None or leader.searched.score is None:
        yield f"{leader.trial_id}, the leaderboard's best, came to nothing with other seeds. Next:"
        return
    change = leader.mean_of_others - leader.searched.score
    yield (
        f"{leader.trial_id} had {leader.searched.score:.4f} in the search, has "
        f"{leader.mean_of_others:.4f} on average with other seeds ({change:+.4f})"
    )
    yield f"{_order(result)} Next:"


def _order(result: Confirmation) -> str:
    leader = result.trials[0].trial_id
    if result.lead is None:
        return "One trial has no order to hold."
    if result.noise is None:
        return "Whether the order at the top is luck, one seed cannot tell: give --seeds 3."
    pair, lead = f"{result.first} and {result.second}", f"{result.lead:.4f} on average"
    if result.lead <= result.noise:
        return (
            f"The order at the top is too close to call: {pair} differ by {lead}, within luck "
            f"with the seeds ({result.noise:.4f}). Nothing speaks against {leader}."
        )
    holds = "holds" if result.holds else "does not hold"
    return (
        f"The order at the top {holds}: {result.first} is ahead of {result.second} by {lead}, "
        f"more than luck with the seeds explains ({result.noise:.4f})."
    )


def refit_lines(refit: Refit) -> Iterator[str]:
    """What was trained, and why no validation score exists."""
    images = refit.train_images + refit.validation_images
    yield (
        f"{refit.trial_id} {refit.name}: trained on {count(images, 'image')} ({refit.train_images} "
        f"training, {refit.validation_images} validation) for "
        f"{count(refit.epochs, 'epoch')}, its best number on validation"
    )
    yield f"on these images: accuracy {refit.accuracy:.4f}, loss {refit.loss:.4f}, while training"
    yield (
        "no validation image was left to choose an epoch or to score it: what it is worth only the "
        "test split can say. Next:"
    )


def ensemble_table(found: EnsembleResult) -> Group:
    """The members, and what they are together."""
    members, images = len(found.members), count(found.images, "validation image")
    title = f"soft vote of {members} trials on {images}"
    if found.method == "soup":
        among = f"{count(found.candidates, 'trial')} whose weights may be averaged"
        title = f"weight average of {members} of {among}, on {images}"
    table = _table()
    for name in ("trial", "name"):
        table.add_column(name)
    for name in ("epoch", "accuracy"):
        table.add_column(name, justify="right")
    for member in found.members:
        table.add_row(
            member.trial_id, escape(member.name), str(member.epoch), f"{member.accuracy:.4f}"
        )
    table.add_row("", "all together", "", f"{found.accuracy:.4f}")
    return Group(Text(title, style="bold"), table)


def ensemble_lines(found: EnsembleResult) -> Iterator[str]:
    """Whether it wins, and by which rule."""
    paired, best = found.comparison, found.members[0].trial_id
    name = "average" if found.method == "soup" else "vote"
    if len(found.members) < 2:
        yield f"with every other trial in it the average is worse than {best} alone: none. Next:"
        return
    yield (
        f"only the {name} is right on {count(paired.only_first, 'image')}, only {best} on "
        f"{paired.only_second}: exact McNemar p = {paired.p_value:.4g}"
    )
    yield (
        f"log loss of a validation image: {found.log_loss:.4f}, {best} alone "
        f"{found.best_log_loss:.4f}: paired t test p = {found.log_loss_p:.4g}"
    )
    if found.wins:
        by = "log loss" if found.log_loss_p < SIGNIFICANT else "right answers"
        yield f"by {by} it beats {best} by more than noise (p below {SIGNIFICANT}). Next:"
        return
    if found.log_loss >= found.best_log_loss:
        reason = f"its log loss is no lower than that of {best} alone"
    else:
        reason = f"a lead like this is within noise (p is not below {SIGNIFICANT})"
    if found.kept:
        yield f"it does not win: {reason}; kept all the same, as asked. Next:"
    elif found.method == "soup":
        yield f"it does not win: {reason}. Not kept; --anyway keeps it, at the cost of one. Next:"
    else:
        yield f"it does not win: {reason}. Not kept: one model costs less than several. Next:"


def _table() -> Table:
    return Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1))
