"""What earlier runs teach a new search: observations on the same images, else where to begin.

A value means something on the images that it was measured on. Trials of a run with the same splits
and metric are therefore given to the sampler as its own. Of any other run only the best few
configurations are taken, and tried: where they mislead, they cost as many trials, and the sampler
has not learned a wrong value.

Source of beginning with what was best elsewhere: Feurer et al., Initializing Bayesian
Hyperparameter Optimization via Meta-Learning (2015), https://doi.org/10.1609/aaai.v29i1.9354.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial

from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.models.words import count
from pawtune.search.config.search_config import SearchConfig, load_recorded_config
from pawtune.search.objective import Objective
from pawtune.search.sampling import space
from pawtune.search.sampling.past_study import freeze_past, locate_spec
from pawtune.search.storage.history import PastTrial, read_history
from pawtune.search.storage.run_folder import RunFolder

MOST_FIRST = 2  # configurations of a run that are tried first: what a misleading run costs


@dataclass(frozen=True)
class Lessons:
    """What earlier runs teach.

    Attributes:
        observed: Trials on the same images, for the sampler; their configurations are in the space.
        first: Points to propose before any other, the best first.
        known: Identities of configurations that were observed and are not among `first`: they need
            no trial.
    """

    observed: Sequence[FrozenTrial] = ()
    first: Sequence[space.Params] = ()
    known: frozenset[str] = field(default_factory=frozenset)


NO_LESSONS = Lessons()


def learn_from(
    runs: Sequence[RunFolder],
    config: SearchConfig,
    families: Sequence[str],
    manifest: Manifest,
    say: Callable[[str], None],
) -> Lessons:
    """Reads earlier runs, where their space and that of a new search overlap.

    Args:
        runs: The runs; they are only read, by the rules for untrusted folders.
        config: The new search.
        families: Its families.
        manifest: Its splits.
        say: Takes a line for the person who watches.

    Raises:
        UserError, DataError: A run is damaged.
    """
    observed: list[FrozenTrial] = []
    first: list[space.Params] = []
    known: set[str] = set()
    for run in runs:
        objective = load_recorded_config(run.config_file).objective
        history = read_history(run, objective)
        past = [t for t in history if t.over and t.values and t.status != "failed"]
        inside = [trial for trial in past if locate_spec(trial.spec, config, families)[0]]
        best = sorted(inside, key=lambda trial: _rank(trial, objective))[:MOST_FIRST]
        first += [locate_spec(trial.spec, config, families)[0] for trial in best]
        then = Manifest.load(run.root)
        known_images = then.fingerprint == manifest.fingerprint
        same = known_images and then.decoding == manifest.decoding
        if same and objective == config.objective:
            observed += [freeze_past(trial, config, families) for trial in inside]
            known |= {space.identity(trial.spec) for trial in inside if trial not in best}
            text = f"{len(inside)} of {count(len(past), 'trial')}, on the same images"
        else:
            other = "images that were resized otherwise" if known_images else "other images"
            why = "for another objective" if same else f"on {other}"
            text = f"where to begin, from {len(best)} of {count(len(past), 'trial')}, {why}"
        say(f"learns from {run.name}: {text}")
    unique = [point for n, point in enumerate(first) if point not in first[:n]]
    return Lessons(tuple(observed), tuple(unique), frozenset(known))


def _rank(trial: PastTrial, objective: Objective) -> float:
    value = trial.values[max(trial.values)]
    return value if objective.mode == "min" else -value
