"""A vote or a weight average of trials: whether it is worth having, and the model it becomes.

For each image a vote costs as much as all its members together, so an advantage by chance is not
enough: it is kept where its log loss on the validation images is lower than the best trial's, each
at its own temperature, and a paired t test finds it so (one-sided, p below 0.05). Right answers
alone would hardly ever decide: they differ on a handful of images, for which the best trial was
chosen. Where they do, by McNemar's exact test, that suffices. A weight average costs no more than
one trial, but is chosen on the same images: the rule is the same.
"""

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter

from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.search.errors import UserError
from pawtune.search.objective import Metric
from pawtune.search.results.delivery.model_card import make_card
from pawtune.search.results.delivery.model_file import save_complete
from pawtune.search.results.ensembles.combination import Combination, EnsembleResult, judge
from pawtune.search.results.ensembles.soup import SoupSetting, soup_of
from pawtune.search.results.ensembles.vote import vote_of
from pawtune.search.results.leaderboard import Row
from pawtune.search.results.model_choice import (
    ensemble_file,
    ensemble_of,
    ensemble_predictions,
    ensemble_record,
)
from pawtune.search.storage.records import EnsembleRecord
from pawtune.search.storage.run_folder import RunFolder, write_array, write_json

VOTERS = 3


def make_ensemble(
    run: RunFolder,
    rows: Sequence[Row],
    manifest: Manifest,
    metric: Metric,
    *,
    top: int | None = None,
    anyway: bool = False,
    soup: SoupSetting | None = None,
) -> EnsembleResult:
    """Combines the best trials; keeps the combination as one model where it wins.

    Args:
        run: The run.
        rows: Its leaderboard, best first.
        manifest: Its splits.
        metric: Metric that the search optimised.
        top: How many trials vote, by default 3; fewer where the run has fewer. Of a soup, how many
            may be averaged, by default all that can.
        anyway: Keep it even if it does not win; a soup that only the best trial is in never is.
        soup: Average weights, so judged; None: a soft vote.

    Raises:
        UserError: Fewer than two trials can be combined.
    """
    start = perf_counter()
    usable = [row for row in rows if row.best_epoch is not None]
    if soup is not None:
        found = soup_of(run, usable, manifest, soup, top)
    else:
        top = VOTERS if top is None else top
        if top < 2 or len(usable) < 2:
            raise UserError(
                f"an ensemble needs two trials or more, received --top {top} and {len(usable)} "
                "with a finished epoch; give --top 3, or continue the search with `pawtune resume`"
            )
        found = vote_of(run, usable[:top], manifest)
    result = judge(found, manifest.labels("validation"))
    if len(result.members) > 1 and (result.wins or anyway):
        return _keep(run, rows, found, result, manifest, metric, start)
    return replace(result, seconds=round(perf_counter() - start, 1))


def _keep(
    run: RunFolder,
    rows: Sequence[Row],
    found: Combination,
    result: EnsembleResult,
    manifest: Manifest,
    metric: Metric,
    start: float,
) -> EnsembleResult:
    """The combination as a file with its card, and its record, which is written last."""
    model = found.compose(result.temperature)
    result = replace(result, kept=True, seconds=round(perf_counter() - start, 1))
    record = EnsembleRecord.model_validate(result.as_dict())
    choice = ensemble_of(run, found.rows, record)
    ensemble_record(run).unlink(missing_ok=True)  # the earlier one
    write_array(ensemble_predictions(run), found.probabilities.astype("float32"))
    save_complete(model, make_card(run, rows, choice, manifest, metric), ensemble_file(run))
    write_json(ensemble_record(run), record.as_dict())
    run.keep_new()
    return result
