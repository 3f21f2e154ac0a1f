"""A recorded trial trained again from its run folder, and compared epoch by epoch.

What decides on a trial's digits is in the run folder or follows from it: the splits and their
order (contents alone), the specification with its seed, the frozen backbone's weights, the views
of a feature bank (seed and index alone). What is not, is the machine: the processor and the
libraries choose the order of additions. On a CPU, with the same processor, number of threads,
precision and versions, every digit comes back; else it is a matter of tolerance.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from pawtune.data_pipeline.safe_files import shown
from pawtune.models.model_spec import Precision
from pawtune.models.spec import TrialSpec
from pawtune.search.config.own_metric import metric_in_use
from pawtune.search.config.search_config import load_recorded_config
from pawtune.search.progress.reporter import Reporter, default_reporter
from pawtune.search.results.leaderboard import Row
from pawtune.search.results.validation import read_probabilities
from pawtune.search.retraining.setup import LOCAL, prepare_retraining
from pawtune.search.retraining.training import Training, follow_one, train_first
from pawtune.search.storage.records import TrialFacts
from pawtune.search.storage.run_folder import RunFolder, TrialFolder
from pawtune.search.storage.versions import installed_versions, recorded_versions

NOT_COMPARED = ("epoch", "seconds", "images_per_second")
# Away from the machine that a trial was recorded on. Rounding differs from the first step on and
# grows with every step: an epoch of a conv net moves by several points, a head's hardly at all.
ELSEWHERE = 0.05
DECIDING = {  # what must be alike for equal digits: its name in `facts.json`, and for people
    "device": "device",
    "cpu": "processor",
    "threads": "threads",
    "precision": "precision",
    "training": "training",
    "code": "pawtune's training code, version",
}
FIRST_CODE = 1  # of records that do not say


@dataclass(frozen=True)
class EpochPair:
    """One epoch as it was recorded and as it came out again: metrics by name."""

    epoch: int
    recorded: Mapping[str, float]
    again: Mapping[str, float]

    @property
    def largest(self) -> float:
        """The largest difference of a metric, in units of max(1, recorded value)."""
        return max(_distance(value, self.again[name]) for name, value in self.recorded.items())


@dataclass(frozen=True)
class Reproduction:
    """A trial as recorded and as trained again, compared epoch by epoch.

    Attributes:
        trial_id: The trial.
        name: Its name.
        pairs: Every epoch.
        tolerance: Difference that was allowed: 0 for every digit.
        changed: Circumstances that decide on digits and have changed, in words.
        prediction_difference: Largest one of the best epoch's probabilities; None where none
            were kept.
        first_difference: First one beyond the tolerance, in words; None: it matches.
    """

    trial_id: str
    name: str
    pairs: Sequence[EpochPair]
    tolerance: float
    changed: Sequence[str]
    prediction_difference: float | None
    first_difference: str | None

    @property
    def matches(self) -> bool:
        """Whether nothing lies beyond the tolerance."""
        return self.first_difference is None

    @property
    def largest(self) -> float:
        """The largest difference of a metric in any epoch."""
        return max(pair.largest for pair in self.pairs)

    @property
    def identical(self) -> bool:
        """Whether every digit came back."""
        return not (self.largest or self.prediction_difference)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"matches": self.matches, "identical": self.identical, **asdict(self)}


def reproduce_trial(
    run: RunFolder,
    row: Row,
    *,
    data: str | None = None,
    address: str | None = None,
    tolerance: float | None = None,
    reporter: Reporter | None = None,
) -> Reproduction:
    """Trains a trial again, for as many epochs as were recorded. The run folder is only read.

    Args:
        run: The run.
        row: The trial, with a finished epoch.
        data: Place of the images, if they have moved.
        address: A Ray cluster; by default this machine, whatever the search ran on.
        tolerance: Allowed difference of a metric, relative to its value above 1. By default 0
            where device, processor, threads, precision and versions are what they were (and a CPU
            it was), else `ELSEWHERE`.
        reporter: Shows progress; by default nothing is shown.

    Raises:
        UserError, DataError, ModelError: The run folder is damaged, or the images are not those
            that the search saw.
    """
    reporter = reporter or default_reporter()
    metric_in_use(load_recorded_config(run.config_file).metric)
    folder = run.trial(row.trial_id)
    recorded = folder.read_metrics()
    facts = folder.read_facts()
    spec = _as_recorded(run.spec_of(row.trial_id), facts)
    setup = prepare_retraining(
        run,
        [spec],
        reporter=reporter,
        data=data,
        address=address or LOCAL,
        precision=spec.train.precision if facts.device != "gpu" else None,
        on_cpu=facts.device == "cpu",
    )
    with tempfile.TemporaryDirectory(prefix="pawtune-") as scratch:
        # Of the epochs that it was given: a schedule depends on how many these are.
        trainer = partial(train_first, len(recorded))
        training = Training(spec, TrialFolder(Path(scratch)), trainer=trainer)
        follow_one(setup, training, f"train {row.name}", reporter)
        reporter.close()
        again = training.folder.read_metrics()
        probabilities = np.load(training.folder.best_predictions, allow_pickle=False)
        facts_again = training.folder.read_facts()
    changed = find_changes(run, facts, facts_again)
    if tolerance is None:
        tolerance = ELSEWHERE if changed or facts_again.device == "gpu" else 0.0
    pairs = [
        EpochPair(int(old["epoch"]), _compared(old, new), _compared(new, old))
        for old, new in zip(recorded, again, strict=True)
    ]
    kept = read_probabilities(folder, setup.manifest)
    best = [int(setup.config.objective.best(rows)["epoch"]) for rows in (recorded, again)]
    difference = None
    if not isinstance(kept, str) and best[0] == best[1]:
        difference = float(np.abs(kept - probabilities).max())
    return Reproduction(
        trial_id=row.trial_id,
        name=row.name,
        pairs=pairs,
        tolerance=tolerance,
        changed=changed,
        prediction_difference=difference,
        first_difference=first_difference(pairs, tolerance, difference, row.best_epoch),
    )


def _as_recorded(spec: TrialSpec, facts: TrialFacts) -> TrialSpec:
    """The trial in the precision that `auto` meant there."""
    if spec.train.precision != "auto" or facts.precision not in get_args(Precision):
        return spec
    train = spec.train.model_copy(update={"precision": facts.precision})
    return spec.model_copy(update={"train": train})


def find_changes(run: RunFolder, before: TrialFacts, now: TrialFacts) -> list[str]:
    """What decides on digits and is known to have changed, in words."""
    recorded, found = before.as_dict(), now.as_dict()
    known = {"code": FIRST_CODE, **recorded} if recorded else {}
    changed = [
        f"{words} {known[key]!s} → {found[key]!s}"
        for key, words in DECIDING.items()
        if key in known and known[key] != found[key]
    ]
    versions = recorded_versions(run.config_file)
    changed += [
        f"{name} {versions[name]} → {version}"
        for name, version in installed_versions().items()
        if versions.get(name, version) != version
    ]
    return [shown(words) for words in changed]


def _compared(row: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """The metrics that both have, without times."""
    return {name: row[name] for name in row if name in other and name not in NOT_COMPARED}


def _distance(recorded: float, again: float) -> float:
    return abs(recorded - again) / max(1.0, abs(recorded))


def first_difference(
    pairs: Sequence[EpochPair], tolerance: float, predictions: float | None, epoch: int | None
) -> str | None:
    """The first that lies beyond the tolerance, in words.

    Args:
        pairs: Every epoch.
        tolerance: Difference of a metric that is allowed.
        predictions: Largest difference of a validation probability.
        epoch: Epoch that the predictions belong to.
    """
    for pair in pairs:
        for name, value in pair.recorded.items():
            if not _distance(value, pair.again[name]) <= tolerance:
                return f"epoch {pair.epoch}: {name} was {value!r}, is {pair.again[name]!r} now"
    if tolerance == 0 and predictions:
        return f"epoch {epoch}: validation probabilities differ by up to {predictions:.3g}"
    return None
