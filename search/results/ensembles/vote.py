"""A soft vote of the best trials: the mean of their probabilities.

The validation predictions of every trial are kept, so evaluating a vote needs neither training nor
images.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.data_pipeline.splitting.manifest_io import read_header
from pawtune.models.families.family import Backbone
from pawtune.search.errors import UserError
from pawtune.search.process import load_tensorflow
from pawtune.search.results.best_model import load_backbones, load_core
from pawtune.search.results.ensembles.combination import Combination
from pawtune.search.results.leaderboard import Row
from pawtune.search.results.validation import read_mean, read_probabilities
from pawtune.search.storage.run_folder import RunFolder

if TYPE_CHECKING:
    import keras


def vote_of(run: RunFolder, voters: Sequence[Row], manifest: Manifest) -> Combination:
    """The voters together, from their stored predictions.

    Raises:
        UserError: A voter's predictions cannot be read.
    """
    mean = read_mean(run, [row.trial_id for row in voters], manifest)
    alone = read_probabilities(run.trial(voters[0].trial_id), manifest)
    if isinstance(mean, str) or isinstance(alone, str):
        raise UserError(f"a vote needs every voter's validation predictions, but {mean}")
    return Combination(
        method="vote",
        rows=voters,
        candidates=len(voters),
        probabilities=mean,
        alone=alone,
        compose=lambda temperature: _compose(run, voters, len(manifest.class_names), temperature),
    )


def _compose(
    run: RunFolder, voters: Sequence[Row], num_classes: int, temperature: float
) -> "keras.Model":
    """The voters' best epochs as one complete model on raw pixels."""
    load_tensorflow()
    from pawtune.models.complete_model import Trained, compose_vote
    from pawtune.models.precision import precision

    backbones: dict[Backbone, keras.Model] = {}
    cores = []
    with precision("float32"):
        for row in voters:
            spec = run.spec_of(row.trial_id).model
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
