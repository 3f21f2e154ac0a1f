"""Several trials combined, judged against the best of them alone on the validation images."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pawtune.models.out_of_fold.calibration import choose_temperature, tempered
from pawtune.search.results.leaderboard import Row
from pawtune.search.results.metrics import (
    Comparison,
    Probabilities,
    compare_paired,
    log_losses,
    p_of_lower,
)
from pawtune.search.results.model_choice import Member, member_of

if TYPE_CHECKING:
    import keras

SIGNIFICANT = 0.05
Method = Literal["vote", "soup"]


@dataclass(frozen=True)
class Combination:
    """Trials combined into one model that is made only where it is wanted.

    Attributes:
        method: A soft vote, or a greedy soup of weights.
        rows: Members, best first.
        candidates: Number of trials that could have been members.
        probabilities: (N, C) of the combination for the validation images, at temperature 1.
        alone: (N, C) of its best member.
        compose: Makes the complete model at a temperature.
    """

    method: Method
    rows: Sequence[Row]
    candidates: int
    probabilities: Probabilities
    alone: Probabilities
    compose: "Callable[[float], keras.Model]"


@dataclass(frozen=True)
class EnsembleResult:
    """What a soft vote or a weight average says on the validation split, beside the best trial.

    Attributes:
        members: Best first.
        images: Number of images in the validation split.
        correct: Images that the combination names right.
        accuracy: The same as a share.
        best_correct: Images that the best member alone names right.
        log_loss: Mean log loss of the combination, at its temperature.
        best_log_loss: The same of the best member alone.
        log_loss_p: p of a paired t test that the combination's is lower.
        comparison: Comparison with the best member by McNemar's exact test.
        temperature: Divisor of its logits (of a vote: of the logarithm of the mean), fitted on all
            validation images.
        method: `vote`, or `soup` for an average of weights.
        candidates: Number of trials that could have been members.
        seconds: Time that it took; None before it is known.
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
    method: Method = "vote"
    candidates: int = 0
    seconds: float | None = None
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


def judge(found: Combination, labels: NDArray[np.int32]) -> EnsembleResult:
    """A combination beside its best member alone, on (N,) labels of the validation images."""
    right, right_alone = (p.argmax(axis=1) == labels for p in (found.probabilities, found.alone))
    temperature = choose_temperature(found.probabilities, labels)
    alone_at = choose_temperature(found.alone, labels)
    losses = log_losses(tempered(found.probabilities, temperature), labels)
    losses_alone = log_losses(tempered(found.alone, alone_at), labels)
    return EnsembleResult(
        members=[member_of(row) for row in found.rows],
        images=len(labels),
        correct=int(right.sum()),
        accuracy=float(right.mean()),
        best_correct=int(right_alone.sum()),
        comparison=compare_paired(right, right_alone),
        temperature=temperature,
        log_loss=float(losses.mean()),
        best_log_loss=float(losses_alone.mean()),
        log_loss_p=p_of_lower(losses, losses_alone),
        method=found.method,
        candidates=found.candidates,
    )
