"""`pawtune advise`: what more images would bring, from the learning curve of a solved head."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.models.out_of_fold.learning_curve import Forecast, forecast, measure_curve
from pawtune.models.training.solved_heads import decompose
from pawtune.search.config.search_config import SearchConfig
from pawtune.search.errors import UserError
from pawtune.search.out_of_fold.predictions import choose_penalty, joined
from pawtune.search.out_of_fold.run_features import (
    Progress,
    SeenImages,
    find_backbone,
    read_features,
)
from pawtune.search.results.leaderboard import Row
from pawtune.search.storage.run_folder import RunFolder, write_json

LEAST_PER_CLASS = 10
GROWTH = (1.0, 1.5, 2.0, 4.0)


@dataclass(frozen=True)
class ClassNeed:
    """A class, and what its images bring.

    Attributes:
        images: Number of its images in training and validation.
        recall: Recall of the class by heads on 80% of the images.
        gain: Growth of its recall from 45% to 80% of the images.
    """

    name: str
    images: int
    recall: float
    gain: float


@dataclass(frozen=True)
class Advice:
    """What was measured, and what more images would bring.

    Attributes:
        images: Training and validation images together.
        measured: (images, mean accuracy) of heads on parts of them.
        forecasts: Accuracy expected of 1, 1.5, 2 and 4 times as many, with the bands of the curve.
        classes: The lowest recall first: where images are needed most.
    """

    images: int
    backbone: str
    measured: tuple[tuple[int, float], ...]
    forecasts: tuple[Forecast, ...]
    classes: tuple[ClassNeed, ...]

    def as_dict(self) -> dict[str, Any]:
        """For `--json` and `advice.json`."""
        return asdict(self)


def advise_run(
    run: RunFolder,
    config: SearchConfig,
    manifest: Manifest,
    rows: list[Row],
    progress: Progress,
) -> Advice:
    """Measures the learning curve and keeps it in `audit/advice.json`. Arguments: as `audit_run`.

    Raises:
        UserError: The run has no frozen backbone, or a class of too few images.
        DataError: Features are not in the cache, and an image is gone.
    """
    seen = SeenImages.of(manifest)
    names = manifest.class_names
    counts = np.bincount(seen.labels, minlength=len(names))
    if counts.min() < LEAST_PER_CLASS:
        raise UserError(
            f"a learning curve needs {LEAST_PER_CLASS} training and validation images of every "
            f"class, received {counts.min()} of {names[int(counts.argmin())]!r}; add images"
        )
    backbone = find_backbone(run, rows)
    if backbone is None:
        raise UserError(
            f"advice needs features of a frozen backbone, and run {run.name} has none; search "
            "again with the family transfer (--families transfer, and --weights where there is "
            "no network)"
        )
    x = joined(read_features(run, config, manifest, backbone, progress))
    parts = decompose(x, x[:1])
    _, penalty = choose_penalty(parts, seen.labels, len(names), seen.groups)
    curve = measure_curve(parts, seen.labels, len(names), penalty, seen.groups)
    wanted = [round(factor * len(seen.labels)) for factor in GROWTH]
    recalls = curve.recalls()
    needs = [
        ClassNeed(
            name, int(counts[n]), float(recalls[-1, n]), float(recalls[-1, n] - recalls[4, n])
        )
        for n, name in enumerate(names)
    ]
    advice = Advice(
        images=len(seen.labels),
        backbone=f"{backbone.name} at {backbone.image_size} px",
        measured=tuple(
            (int(size), float(mean))
            for size, mean in zip(curve.sizes, curve.accuracies.mean(axis=1), strict=True)
        ),
        forecasts=tuple(forecast(curve, wanted, scored_on=0)),
        classes=tuple(sorted(needs, key=lambda need: need.recall)),
    )
    write_json(run.audit_dir / "advice.json", advice.as_dict())
    run.keep_new()
    return advice
