"""Out-of-fold predictions: every training and validation image, by a head solved without it.

The head is ridge on the last block's features, solved at the penalty of the lowest leave-one-out
loss: exact, and the same for every run, whatever family its best trial is of. The best trial itself
predicts them in `retraining.folds`.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.models.families.family import Backbone
from pawtune.models.out_of_fold.leave_out import leave_out_ridge
from pawtune.models.training.solved_heads import Decomposition, decompose
from pawtune.search.out_of_fold.run_features import Features, SeenImages
from pawtune.search.storage.run_folder import RunFolder, write_array, write_json

PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
ARRAYS = ("average", "maximum")


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of images that the head has not seen.

    Attributes:
        probabilities: (N, C) float32, in the order of `SeenImages`.
        method: Way in which they were predicted, in words.
        facts: More about it, as plain JSON values.
    """

    probabilities: NDArray[np.float32]
    method: str
    facts: dict[str, Any] = field(default_factory=dict)

    def accuracy(self, labels: NDArray[np.int32]) -> float:
        """Share of the images whose label they name."""
        return float((self.probabilities.argmax(axis=1) == labels).mean())


def joined(features: Features) -> NDArray[np.float16]:
    """(N, D) what the head takes: both poolings of the last block."""
    return np.concatenate([features[name] for name in ARRAYS], axis=1)


def predict_out_of_fold(
    features: Features, seen: SeenImages, num_classes: int, backbone: Backbone
) -> OutOfFold:
    """Predicts each image by the head solved without it and its duplicates.

    Args:
        features: Features of the images.
        seen: Their labels and groups.
        num_classes: C.
        backbone: Name of the backbone whose features were used.
    """
    x = joined(features)
    logits, penalty = choose_penalty(decompose(x, x[:1]), seen.labels, num_classes, seen.groups)
    return OutOfFold(
        softmax(logits, axis=1).astype(np.float32),
        "a ridge head that was solved without it and its duplicates, on features of "
        f"{backbone.name} at {backbone.image_size} px",
        {"regularisation": penalty, "backbone": list(backbone)},
    )


def choose_penalty(
    decomposition: Decomposition,
    labels: NDArray[np.int32],
    num_classes: int,
    groups: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float64], float]:
    """(N, C) logits of unseen images, and the penalty under which their log loss is lowest."""
    tried = []
    for penalty in PENALTIES:
        logits = leave_out_ridge(decomposition, labels, num_classes, penalty, groups)
        own = softmax(logits, axis=1)[np.arange(len(labels)), labels]
        tried.append((float(-np.log(np.maximum(own, 1e-12)).mean()), penalty, logits))
    _, penalty, logits = min(tried, key=lambda each: each[:2])
    return logits, penalty


def keep(run: RunFolder, found: OutOfFold, manifest: Manifest) -> None:
    """Writes predictions into the run's folder `audit/`."""
    write_array(run.audit_dir / "out_of_fold.npy", found.probabilities)
    record = {"fingerprint": manifest.fingerprint, "method": found.method, **found.facts}
    write_json(run.audit_dir / "out_of_fold.json", record)
    run.keep_new()
