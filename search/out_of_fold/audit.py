"""`pawtune audit`: labels that are probably wrong, copies across splits, images like no other.

    audit = audit_run(run, config, manifest, rows, progress)
    write_page(audit, ...)

Only training and validation images are looked at. Labels of the test split are audited on request
alone, by the best trial's predictions: that is a look, and on record as one.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pawtune.data_pipeline.splitting.manifest import Manifest, ManifestEntry
from pawtune.models.features.neighbours import UnitScale, find_copies, find_outliers, nearest
from pawtune.models.out_of_fold.label_errors import find_label_errors
from pawtune.search.config.search_config import SearchConfig
from pawtune.search.errors import UserError
from pawtune.search.out_of_fold.predictions import OutOfFold, keep, predict_out_of_fold
from pawtune.search.out_of_fold.run_features import (
    Features,
    Progress,
    SeenImages,
    find_backbone,
    read_features,
)
from pawtune.search.results.evaluation import look_at_test
from pawtune.search.results.leaderboard import Row
from pawtune.search.results.model_choice import choose_model, choose_row
from pawtune.search.storage.run_folder import RunFolder, write_json

NEIGHBOURS = 10
LEAST_IMAGES = NEIGHBOURS + 2


@dataclass(frozen=True)
class LabelIssue:
    """An image whose label is probably wrong, by its path below the image root."""

    path: str
    sha256: str
    split: str
    label: str
    suggested: str
    probability: float
    label_probability: float


@dataclass(frozen=True)
class Copy:
    """Two images that are nearly the same, and that hashes of their pixels did not group.

    Attributes:
        distance: 1 less the cosine of their features: 0 to 2.
        crosses: Whether one is a training image and the other a validation image.
    """

    path: str
    sha256: str
    split: str
    label: str
    other_path: str
    other_sha256: str
    other_split: str
    other_label: str
    distance: float
    crosses: bool


@dataclass(frozen=True)
class Outlier:
    """An image that is far from all others. distance: mean to its nearest."""

    path: str
    sha256: str
    split: str
    label: str
    distance: float


@dataclass(frozen=True)
class Audit:
    """What was found, in each list the most certain first.

    Attributes:
        images: How many training and validation images were looked at.
        accuracy: Share of them whose label the out-of-fold predictions name.
        method: Way in which they were predicted, in words.
        backbone: Backbone in whose features copies and outliers were looked for, with its image
            size; None where the run has none: then there are none.
        test_images: How many test images were looked at.
        look: Number of this look at the test split; None where it was left alone.
    """

    images: int
    accuracy: float
    method: str
    backbone: str | None
    labels: tuple[LabelIssue, ...]
    copies: tuple[Copy, ...]
    outliers: tuple[Outlier, ...]
    test_images: int = 0
    look: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """For `--json` and `audit.json`."""
        return asdict(self)


def audit_run(
    run: RunFolder,
    config: SearchConfig,
    manifest: Manifest,
    rows: list[Row],
    progress: Progress,
    *,
    retrained: NDArray[np.float32] | None = None,
    test: bool = False,
) -> Audit:
    """Audits a run's training and validation images; keeps what it found in `audit/`.

    Args:
        run: The run.
        config: Configuration of the run.
        manifest: Its splits; `root` is where the images are now.
        rows: The leaderboard, best first.
        progress: Called with (stage, images done, images in all) while features are computed.
        retrained: (N, C) predictions by the best trial, from `predict_by_folds`; None: by a ridge
            head on features of a frozen backbone.
        test: Audit the labels of the test split too: a look, on record.

    Raises:
        UserError: The run has no frozen backbone, or too few images.
        DataError: Features are not in the cache, and an image is gone.
    """
    seen = SeenImages.of(manifest)
    if len(seen.entries) < LEAST_IMAGES:
        raise UserError(
            f"an audit needs {LEAST_IMAGES} training and validation images or more, received "
            f"{len(seen.entries)}; search on more images"
        )
    names, backbone = manifest.class_names, find_backbone(run, rows)
    features = None
    if backbone is not None:
        features = read_features(run, config, manifest, backbone, progress)
    if retrained is not None:
        winner = choose_row(rows)
        method = f"{winner.name}, trained without its fifth of the images"
        found = OutOfFold(retrained, method, {"trial_id": winner.trial_id})
    elif backbone is not None and features is not None:
        found = predict_out_of_fold(features, seen, len(names), backbone)
    else:
        raise UserError(
            f"an audit needs a frozen backbone, and run {run.name} has none; give --retrain: its "
            "best trial is trained five times and predicts the images left out"
        )
    keep(run, found, manifest)
    copies, outliers = _neighbours(seen, features) if features is not None else ((), ())
    issues = _label_issues(seen.entries, seen.labels, found.probabilities, names)
    look = None
    if test:
        choice = choose_model(run, rows)
        look = look_at_test(run, manifest, Path(manifest.root), rows, choice)
        issues = (*_label_issues(look.entries, look.labels, look.probabilities, names), *issues)
    audit = Audit(
        images=len(seen.entries),
        accuracy=found.accuracy(seen.labels),
        method=found.method,
        backbone=f"{backbone.name} at {backbone.image_size} px" if backbone is not None else None,
        labels=issues,
        copies=copies,
        outliers=outliers,
        test_images=len(look.entries) if look is not None else 0,
        look=look.result.looks if look is not None else None,
    )
    write_json(run.audit_dir / "audit.json", audit.as_dict())
    return audit


def _label_issues(
    entries: Sequence[ManifestEntry],
    labels: NDArray[np.int32],
    probabilities: NDArray[np.float32],
    names: tuple[str, ...],
) -> tuple[LabelIssue, ...]:
    issues = []
    for row in find_label_errors(probabilities, labels):
        others = probabilities[row].copy()
        others[labels[row]] = -1
        suggested = int(others.argmax())
        issues.append(
            LabelIssue(
                **_who(entries[row]),
                suggested=names[suggested],
                probability=float(others[suggested]),
                label_probability=float(probabilities[row, labels[row]]),
            )
        )
    return tuple(issues)


def _neighbours(
    seen: SeenImages, features: Features
) -> tuple[tuple[Copy, ...], tuple[Outlier, ...]]:
    """Copies and outliers, by the features of all blocks: early ones know copies best."""
    x = np.concatenate([features[name] for name in ("inner", "average", "maximum")], axis=1)
    units = UnitScale.of(x).apply(x)
    near = nearest(units, units, NEIGHBOURS, themselves=True)
    copies = []
    for row, other, distance in find_copies(near):
        if seen.groups[row] != seen.groups[other]:
            one, two = seen.entries[row], seen.entries[other]
            other_one = {f"other_{key}": value for key, value in _who(two).items()}
            crosses = one.split != two.split
            copies.append(Copy(**_who(one), **other_one, distance=distance, crosses=crosses))
    outliers = [
        Outlier(**_who(seen.entries[row]), distance=float(near.distances[row].mean()))
        for row in find_outliers(near)
    ]
    copies.sort(key=lambda copy: (not copy.crosses, copy.distance))
    return tuple(copies), tuple(outliers)


def _who(entry: ManifestEntry) -> dict[str, str]:
    return {
        "path": entry.path,
        "sha256": entry.sha256,
        "split": entry.split,
        "label": entry.label,
    }
