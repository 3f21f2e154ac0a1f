"""A soft vote of the best trials: whether it is worth having, and the one model it becomes.

The validation predictions of every trial are kept, so evaluating a vote needs neither training nor
images. For each image a vote costs as much as all its members together, so an advantage by chance
is not enough: it is kept where its log loss on the validation images is lower than the best
trial's, each at its own temperature, and a paired t test finds it so (one-sided, p below 0.05).
Right answers alone would hardly ever decide: they differ on a handful of images, for which the best
trial was chosen. Where they do, by McNemar's exact test, that suffices.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.data_pipeline.splitting.manifest_io import read_header
from pawtune.models.families.family import Backbone
from pawtune.models.out_of_fold.calibration import choose_temperature, tempered
from pawtune.search.errors import UserError
from pawtune.search.objective import Metric
from pawtune.search.process import load_tensorflow
from pawtune.search.results.best_model import load_backbones, load_core
from pawtune.search.results.delivery.model_card import make_card
from pawtune.search.results.delivery.model_file import save_complete
from pawtune.search.results.leaderboard import Row
from pawtune.search.results.metrics import Comparison, compare_paired, log_losses, p_of_lower
from pawtune.search.results.model_choice import (
    Member,
    ModelChoice,
    ensemble_file,
    ensemble_record,
    member_of,
)
from pawtune.search.results.validation import read_mean, read_probabilities
from pawtune.search.storage.records import EnsembleRecord
from pawtune.search.storage.run_folder import RunFolder, write_json
from pawtune.search.storage.trial_spec import load_spec

if TYPE_CHECKING:
    import keras

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class EnsembleResult:
    """What a soft vote says on the validation split, beside the best trial alone.

    Attributes:
        members: Best first.
        images: Number of images in the validation split.
        correct: Images that the vote names right.
        accuracy: The same as a share.
        best_correct: Images that the best member alone names right.
        log_loss: Mean log loss of the vote, at its temperature.
        best_log_loss: The same of the best member alone.
        log_loss_p: p of a paired t test that the vote's is lower.
        comparison: Comparison of vote and best member by McNemar's exact test.
        temperature: Divisor of the logarithm of the mean, fitted on all validation images.
        kept: Whether it was made into a model.
    """

    members: Sequence[Member]
    images: int
    correct: int
    accuracy: float
    best_correct: int
    comparison: Comparison
    temperature: float
    log_loss: float
    best_log_loss: float
    log_loss_p: float
    kept: bool = False

    @property
    def wins(self) -> bool:
        """Whether it beats the best member by more than noise."""
        is_right_more = self.correct > self.best_correct
        return self.log_loss_p < SIGNIFICANT or (
            is_right_more and self.comparison.p_value < SIGNIFICANT
        )

    def as_dict(self) -> dict[str, Any]:
        """For `--json` and `ensemble.json`."""
        return {"wins": self.wins, **asdict(self)}


def make_ensemble(
    run: RunFolder,
    rows: Sequence[Row],
    manifest: Manifest,
    metric: Metric,
    *,
    top: int,
    anyway: bool = False,
) -> EnsembleResult:
    """Lets the best trials vote; keeps the vote as one model where it wins.

    Args:
        run: The run.
        rows: Its leaderboard, best first.
        manifest: Its splits.
        metric: Metric that the search optimised.
        top: How many trials vote; fewer where the run has fewer.
        anyway: Keep it even if it does not win.

    Raises:
        UserError: Fewer than two trials can vote.
    """
    voters = [row for row in rows if row.best_epoch is not None][:top]
    if top < 2 or len(voters) < 2:
        raise UserError(
            f"an ensemble needs two trials or more, received --top {top} and {len(voters)} with a "
            "finished epoch; give --top 3, or continue the search with `pawtune resume`"
        )
    vote = count_votes(run, voters, manifest)
    if not (vote.wins or anyway):
        return vote
    vote = replace(vote, kept=True)
    load_tensorflow()
    record = EnsembleRecord.model_validate(vote.as_dict())
    sizes = {load_spec(run, row.trial_id).model.image_size for row in voters}
    choice = ModelChoice(
        kind="ensemble",
        row=voters[0],
        trial_id="+".join(row.trial_id for row in voters),
        image_size=sizes.pop() if len(sizes) == 1 else None,
        record=record,
    )
    card = make_card(run, rows, choice, manifest, metric)
    model = compose(run, voters, len(manifest.class_names), vote.temperature)
    ensemble_record(run).unlink(missing_ok=True)  # the earlier one; the record is written last
    save_complete(model, card, ensemble_file(run))
    write_json(ensemble_record(run), record.as_dict())
    run.keep_new()
    return vote


def count_votes(run: RunFolder, voters: Sequence[Row], manifest: Manifest) -> EnsembleResult:
    """What the voters together say on the validation images, from their stored predictions.

    Raises:
        UserError: A voter's predictions cannot be read.
    """
    labels = manifest.labels("validation")
    mean = read_mean(run, [row.trial_id for row in voters], manifest)
    alone = read_probabilities(run.trial(voters[0].trial_id), manifest)
    if isinstance(mean, str) or isinstance(alone, str):
        raise UserError(f"a vote needs every voter's validation predictions, but {mean}")
    right, right_alone = (p.argmax(axis=1) == labels for p in (mean, alone))
    temperature = choose_temperature(mean, labels)
    losses = log_losses(tempered(mean, temperature), labels)
    losses_alone = log_losses(tempered(alone, choose_temperature(alone, labels)), labels)
    return EnsembleResult(
        members=[member_of(row) for row in voters],
        images=len(labels),
        correct=int(right.sum()),
        accuracy=float(right.mean()),
        best_correct=int(right_alone.sum()),
        comparison=compare_paired(right, right_alone),
        temperature=temperature,
        log_loss=float(losses.mean()),
        best_log_loss=float(losses_alone.mean()),
        log_loss_p=p_of_lower(losses, losses_alone),
    )


def compose(
    run: RunFolder, voters: Sequence[Row], num_classes: int, temperature: float
) -> "keras.Model":
    """The voters' best epochs as one complete model on raw pixels."""
    from pawtune.models.complete_model import Trained, compose_vote
    from pawtune.models.precision import precision

    backbones: dict[Backbone, keras.Model] = {}
    cores = []
    with precision("float32"):
        for row in voters:
            spec = load_spec(run, row.trial_id).model
            load_backbones(run, spec, backbones)
            core = load_core(run.trial(row.trial_id), spec, num_classes, backbones)
            cores.append(Trained(spec, core))
        return compose_vote(
            cores,
            num_classes,
            backbones,
            temperature=temperature,
            resizing=read_header(run.root).resizing,
        )
