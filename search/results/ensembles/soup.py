"""A greedy soup: the weights of several trials averaged where that does not lose on validation.

Source: Wortsman et al., Model soups, ICML 2022, https://arxiv.org/abs/2203.05482. The best trial is
the first member; the others follow in the order of the leaderboard, and each stays in the average
where the search's metric does not get worse by it, or, where that ties, log loss at the best
temperature. Only trials are averaged whose family gives their cores one shape (`core_shape`). Where
logits are linear in weights, kept predictions tell what the average says; else it predicts the
validation images itself, from what its core takes of them, computed once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pawtune.data_pipeline.splitting.image_check import check_unchanged
from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.data_pipeline.splitting.manifest_io import read_header
from pawtune.models.families.family import Backbone, CoreShape
from pawtune.models.families.table import core_shape_of
from pawtune.models.model_spec import ModelSpec
from pawtune.models.out_of_fold.calibration import (
    choose_temperature,
    mean_of_logits,
    tempered,
)
from pawtune.models.training.epoch_metrics import score
from pawtune.search.errors import UserError
from pawtune.search.objective import Objective
from pawtune.search.process import load_tensorflow
from pawtune.search.results.best_model import load_backbones, load_core
from pawtune.search.results.delivery.inference import predict_files, predictor
from pawtune.search.results.ensembles.combination import Combination
from pawtune.search.results.leaderboard import Row
from pawtune.search.results.metrics import Probabilities
from pawtune.search.results.validation import read_probabilities
from pawtune.search.storage.run_folder import RunFolder

if TYPE_CHECKING:
    import keras

Weights = list[NDArray[Any]]
OwnMetric = Callable[[NDArray[np.int32], Probabilities], float]


@dataclass(frozen=True)
class SoupSetting:
    """How soups of a run are judged.

    Attributes:
        objective: Rule by which the search ranks.
        locate: Gives the splits on the images where they are now; called where a soup has to
            predict them.
        own_metric: The search's metric where it is the user's own: of (N,) labels and (N, C)
            probabilities.
        progress: Called with (name, images done, images in all).
    """

    objective: Objective
    locate: Callable[[], Manifest]
    own_metric: OwnMetric | None = None
    progress: Callable[[str, int, int], None] | None = None


def soup_of(
    run: RunFolder, rows: Sequence[Row], manifest: Manifest, setting: SoupSetting, top: int | None
) -> Combination:
    """The greedy soup of the best trial and those whose cores have the shape of its own.

    Args:
        run: The run.
        rows: Trials with a finished epoch, best first.
        manifest: Its splits.
        setting: How it is judged.
        top: How many trials may be averaged; None: all that can be.

    Raises:
        UserError: There are not two such trials, or predictions cannot be read.
        DataError: A validation image is missing or has changed.
    """
    cores = _Cores(run, len(manifest.class_names))
    alike, shape = _alike(cores, rows, top)
    labels = manifest.labels("validation")
    if shape.is_linear:
        predict = _by_logits([_kept(run, row, manifest) for row in alike])
    else:
        predict = cores.predict_averages(alike, setting)
    alone = predict([0])

    def key(probabilities: Probabilities) -> tuple[float, float]:
        """The search's metric, then log loss, at the best temperature: more is better."""
        at_best = tempered(probabilities, choose_temperature(probabilities, labels))
        epoch, _ = score(np.log(np.maximum(at_best, np.finfo(np.float32).tiny)), labels)
        if setting.objective.own_metric is not None and setting.own_metric is not None:
            epoch[setting.objective.own_metric] = setting.own_metric(labels, probabilities)
        return setting.objective.key(epoch)

    members, found = greedy_soup(alone, len(alike), predict, key)
    chosen = [alike[number] for number in members]
    return Combination(
        method="soup",
        rows=chosen,
        candidates=len(alike),
        probabilities=found,
        alone=alone,
        compose=lambda temperature: cores.compose(chosen, temperature),
    )


def greedy_soup(
    alone: Probabilities,
    candidates: int,
    predict: Callable[[Sequence[int]], Probabilities],
    key: Callable[[Probabilities], tuple[float, float]],
) -> tuple[list[int], Probabilities]:
    """The members of a greedy soup, and what it predicts.

    Args:
        alone: (N, C) of the best candidate.
        candidates: How many; they are numbered from 0, best first.
        predict: (N, C) of the average of some of them: members so far, and one more.
        key: Worth of predictions, more is better.
    """
    members, found = [0], alone
    for number in range(1, candidates):
        tried = predict([*members, number])
        if key(tried) >= key(found):
            members, found = [*members, number], tried
    return members, found


def sum_weights(first: Weights, second: Weights) -> Weights:
    """Array by array the sum of two cores' weights.

    Raises:
        ValueError: They do not have the same arrays.
    """
    return [a + b for a, b in zip(first, second, strict=True)]


def divide_weights(total: Weights, members: int) -> Weights:
    """The mean of so many cores' weights, from their sum."""
    return [array / np.float32(members) for array in total]


def _by_logits(kept: Sequence[Probabilities]) -> Callable[[Sequence[int]], Probabilities]:
    """How averages predict whose logits are the mean of their members'."""
    return lambda members: mean_of_logits([kept[number] for number in members])


def _kept(run: RunFolder, row: Row, manifest: Manifest) -> Probabilities:
    found = read_probabilities(run.trial(row.trial_id), manifest)
    if isinstance(found, str):
        raise UserError(
            f"a weight average needs its trials' validation predictions, but {found}; leave that "
            "trial out with a smaller --top"
        )
    return found


def _alike(cores: "_Cores", rows: Sequence[Row], top: int | None) -> tuple[list[Row], CoreShape]:
    """Those that may be averaged with the best and have weights, the best first; their shape."""
    if not rows:
        raise UserError(
            "--soup needs trials with a finished epoch, and this run has none; continue the "
            "search with `pawtune resume`"
        )
    best = rows[0]
    spec = cores.spec(best)
    shape = cores.shape(spec)
    if shape is None:
        raise UserError(
            f"--soup averages weights that a family says may be averaged, and says nothing of "
            f"those of the best trial, {best.trial_id} ({spec.family}): trained from random "
            "weights, or of a family without core_shape; leave out --soup for a vote"
        )
    alike = [
        row
        for row in rows
        if row.family == best.family
        and cores.spec(row).image_size == spec.image_size
        and cores.shape(cores.spec(row)) == shape
    ]
    usable = [row for row in alike if cores.run.trial(row.trial_id).best_weights.exists()]
    if best not in usable or len(usable) < 2 or (top is not None and top < 2):
        given = "" if top is None else f"--top {top} and "
        raise UserError(
            f"--soup needs two trials or more that may be averaged with the best, {best.trial_id}, "
            f"itself included, received {given}{len(alike)}, of which {len(usable)} kept weights; "
            "leave out --soup for a vote, or search with more trials or a larger keep_weights"
        )
    return usable[:top], shape


class _Cores:
    """A run's trained cores and what is computed of their averages; backbones are loaded once."""

    def __init__(self, run: RunFolder, num_classes: int) -> None:
        self.run = run
        self._num_classes = num_classes
        self._backbones: dict[Backbone, keras.Model] = {}

    def spec(self, row: Row) -> ModelSpec:
        """A trial's model."""
        return self.run.spec_of(row.trial_id).model

    def shape(self, spec: ModelSpec) -> CoreShape | None:
        """Equal for cores that may be averaged."""

        def load(wanted: Backbone) -> "keras.Model":
            load_tensorflow()
            load_backbones(self.run, spec, self._backbones)
            return self._backbones[wanted]

        return core_shape_of(spec, load)

    def _core(self, row: Row) -> "keras.Model":
        load_tensorflow()
        from pawtune.models.precision import precision

        spec = self.spec(row)
        load_backbones(self.run, spec, self._backbones)
        with precision("float32"):
            return load_core(self.run.trial(row.trial_id), spec, self._num_classes, self._backbones)

    def predict_averages(
        self, rows: Sequence[Row], setting: SoupSetting
    ) -> Callable[[Sequence[int]], Probabilities]:
        """How averages of some of the rows, by number, predict the validation images."""
        manifest = setting.locate()
        root, entries = Path(manifest.root), manifest.split("validation")
        check_unchanged(root, entries, what="validation")
        core, spec = self._core(rows[0]), self.spec(rows[0])
        from pawtune.models.complete_model import compose_inputs

        below = compose_inputs(spec, self._backbones, resizing=read_header(self.run.root).resizing)
        files = [root / entry.path for entry in entries]
        taken = []
        for found in predict_files(predictor(below), files, spec.image_size, manifest.decoding):
            if found.probabilities is None:
                raise UserError(f"every validation image must be readable: {found.reason}")
            taken.append(found.probabilities.astype("float16"))  # as a search keeps them
            if setting.progress is not None:
                setting.progress("validation images", len(taken), len(files))
        inputs = np.stack(taken)

        sums: dict[tuple[int, ...], Weights] = {}  # of the members so far, and with one more

        def predict(members: Sequence[int]) -> Probabilities:
            before, last = tuple(members[:-1]), rows[members[-1]]
            total = self._core(last).get_weights()
            if before:
                earlier = sums[before]
                total = sum_weights(earlier, total)
                sums.clear()
                sums[before] = earlier
            sums[tuple(members)] = total
            core.set_weights(divide_weights(total, len(members)))
            logits = core.predict(inputs, batch_size=64, verbose=0)
            return score(logits, manifest.labels("validation"))[1]

        return predict

    def compose(self, members: Sequence[Row], temperature: float) -> "keras.Model":
        """The average of the members as one complete model on raw pixels."""
        core = self._core(members[0])
        from pawtune.models.complete_model import compose_complete

        total: Weights = core.get_weights()
        for row in members[1:]:
            total = sum_weights(total, self._core(row).get_weights())
        core.set_weights(divide_weights(total, len(members)))
        return compose_complete(
            self.spec(members[0]),
            self._num_classes,
            core,
            self._backbones,
            temperature=temperature,
            resizing=read_header(self.run.root).resizing,
        )
