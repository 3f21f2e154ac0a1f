"""The test split: scored here and nowhere else, once, and every look is on record."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.manifest import Manifest, ManifestEntry
from search.checkpoints import load_complete, load_spec
from search.errors import UserError
from search.inference import predict_files
from search.intervals import wilson_interval
from search.leaderboard import Row
from search.run_folder import RunFolder, read_json, write_text


@dataclass(frozen=True)
class BaselineScore:
    """The best baseline by validation, on the same test images."""

    name: str
    accuracy: float


@dataclass(frozen=True)
class TestResult:
    """A look at the test split.

    Attributes:
        interval_95: Wilson's 95% interval of the accuracy.
        looks: How many times this run's test split has been looked at, this time included.
    """

    __test__ = False  # not a test class, whatever pytest makes of the name

    accuracy: float
    correct: int
    n: int
    interval_95: tuple[float, float]
    trial_id: str
    baseline: BaselineScore | None
    looks: int

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def evaluate(
    run: RunFolder, manifest: Manifest, root: Path, rows: list[Row], row: Row
) -> TestResult:
    """Scores a trial's best epoch on the test split, beside the best baseline, and records it.

    Args:
        run: The run.
        manifest: Its splits.
        root: Where the images are now.
        rows: The leaderboard.
        row: The trial to score.

    Raises:
        UserError: There is no test split, or a test image is not what it was.
    """
    entries = manifest.split("test")
    if not entries:
        raise UserError(
            f"a test needs a test split, and run {run.name} has no test images; "
            "start a run on data with more images, or with a test/ folder"
        )
    check_unchanged(root, entries)
    correct = _count_correct(run, manifest, root, entries, row.trial_id)
    baseline_row = _best_baseline(run, rows)
    baseline = None
    if baseline_row is not None:
        same = baseline_row.trial_id == row.trial_id
        hits = (
            correct if same else _count_correct(run, manifest, root, entries, baseline_row.trial_id)
        )
        baseline = BaselineScore(baseline_row.name, hits / len(entries))
    looks = len(read_ledger(run)) + 1
    result = TestResult(
        accuracy=correct / len(entries),
        correct=correct,
        n=len(entries),
        interval_95=wilson_interval(correct, len(entries)),
        trial_id=row.trial_id,
        baseline=baseline,
        looks=looks,
    )
    _append(run, {"time": datetime.now(UTC).isoformat(), **result.as_dict()})
    return result


def check_unchanged(root: Path, entries: Sequence[ManifestEntry]) -> None:
    """Refuses images that are missing, or whose content is not what the manifest recorded.

    Raises:
        UserError: With the first such file.
    """
    for entry in entries:
        try:
            content = (root / entry.path).read_bytes()
        except OSError as error:
            raise UserError(
                f"every test image must be where the run found it, but {root / entry.path} "
                f"cannot be read: {error.strerror}; give its new place with --data"
            ) from error
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise UserError(
                f"test images must not change between search and test, but {root / entry.path} "
                "has other content now; restore it, or start a new run on the new data"
            )


def _count_correct(
    run: RunFolder,
    manifest: Manifest,
    root: Path,
    entries: Sequence[ManifestEntry],
    trial_id: str,
) -> int:
    model = load_complete(run, trial_id, len(manifest.class_names))
    size = load_spec(run, trial_id).model.image_size
    predictions = predict_files(model, [root / entry.path for entry in entries], size)
    correct = 0
    for entry, prediction in zip(entries, predictions, strict=True):
        if prediction.probabilities is None:
            raise UserError(f"every test image must be readable: {prediction.reason}")
        label = manifest.class_names[int(np.argmax(prediction.probabilities))]
        correct += label == entry.label
    return correct


def _best_baseline(run: RunFolder, rows: list[Row]) -> Row | None:
    for row in rows:
        if row.best_epoch is not None and read_json(run.trial(row.trial_id).spec_file)["baseline"]:
            return row
    return None


def read_ledger(run: RunFolder) -> list[dict[str, Any]]:
    """Every look so far, oldest first."""
    if not run.test_ledger.exists():
        return []
    lines = run.test_ledger.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def _append(run: RunFolder, look: dict[str, Any]) -> None:
    looks = [*read_ledger(run), look]
    write_text(run.test_ledger, "".join(json.dumps(item) + "\n" for item in looks))
