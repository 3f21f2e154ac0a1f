"""What TensorBoard shows of a whole search: a run of its own beside those of the trials.

All event files are derived from `trials/` and can be written again at any time.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from pawtune.data_pipeline.url_credentials import without_secrets
from pawtune.models.baselines import BASELINES
from pawtune.models.families.domains import Choices, corners
from pawtune.models.families.parameters import first_point
from pawtune.models.families.table import find_family
from pawtune.models.model_spec import ModelSpec, TrainSpec
from pawtune.models.spec import TrialSpec
from pawtune.search.config.search_config import SearchConfig, dump_config
from pawtune.search.errors import UserError
from pawtune.search.markdown import render_markdown
from pawtune.search.objective import Objective
from pawtune.search.results.leaderboard import rank_trials
from pawtune.search.storage.run_folder import RunFolder
from pawtune.search.tensorboard.event_files import EventFile, remove_event_files
from pawtune.search.tensorboard.event_pictures import Samples
from pawtune.search.tensorboard.model_outline import outline
from pawtune.search.tensorboard.trial_events import TrialEvents, metric_columns

BEST = Path(__file__).parent / "templates" / "best.md.j2"
SEARCH_RUN = "search"  # the run that belongs to no trial
SHOWN_FIRST = ("family", "flip", "learning_rate", "optimizer", "rotation_factor")
LAYOUT = {
    "training and validation": {
        "accuracy": ["^accuracy$", "^val_accuracy$"],
        "loss": ["^loss$", "^val_loss$"],
        "best validation accuracy so far": ["^best_val_accuracy$"],
    }
}


def parameter_columns(families: Sequence[str], config: SearchConfig) -> dict[str, type]:
    """Every parameter that a trial of these families has, and the type of its values."""
    columns: dict[str, type] = {}
    for family in families:
        for example in _examples(family, config):
            columns |= {key: type(value) for key, value in example.params().items()}
    return columns | ({"class_weights": bool} if config.class_weights else {})


def discrete_values(families: Sequence[str], config: SearchConfig) -> dict[str, list[str]]:
    """Words that a parameter takes, for HParams to filter by: family, optimizer, flip and others.

    The tutorial models' own are among them: a filter hides what it does not name.
    """
    words: dict[str, set[str]] = {"family": set(families)}
    for family in families:
        for parameter in find_family(family).parameters:
            domain = config.space.domain(parameter.name)
            if isinstance(domain, Choices) and all(isinstance(c, str) for c in domain.choices):
                words.setdefault(parameter.name, set()).update(map(str, domain.choices))
    for spec in BASELINES.values():
        for name, value in spec.params().items():
            if name in words and isinstance(value, str):
                words[name].add(value)
    columns = parameter_columns(families, config)
    return {name: sorted(values) for name, values in words.items() if name in columns}


def _examples(family: str, config: SearchConfig) -> Iterator[TrialSpec]:
    """Trials of a family that together have every parameter which some trial may have."""
    owner = find_family(family)
    deciding = {p.only_if[0] for p in owner.parameters if p.only_if is not None}
    choices = {name: corners(config.space.domain(name)) for name in sorted(deciding)}
    for values in itertools.product(*choices.values()):
        given = dict(zip(choices, values, strict=True))
        point = {
            "image_size": ModelSpec(family=family).image_size,
            **first_point(owner.parameters, given),
        }
        model, train = owner.to_spec(point, TrainSpec())
        yield TrialSpec(name=family, model=model, train=train)


def begin_search_events(
    run: RunFolder, config: SearchConfig, families: Sequence[str], samples: Samples
) -> None:
    """Writes what is known before the first trial: configuration, columns, layout, samples."""
    folder = run.tensorboard_dir / SEARCH_RUN
    remove_event_files(folder)
    file = EventFile(folder)
    columns = parameter_columns(families, config)
    discrete = discrete_values(families, config)
    file.add_columns(columns, metric_columns(config.objective.metric), SHOWN_FIRST, discrete)
    file.add_layout(LAYOUT)
    file.add_text("configuration", f"```yaml\n{without_secrets(dump_config(config))}```")
    grid = samples.grid()
    if grid is not None:
        file.add_image("samples", grid)
    file.close()


def finish_search_events(run: RunFolder, objective: Objective, samples: Samples) -> None:
    """Writes what there is to see of the best trial; it is read again at every end."""
    best = next((row for row in rank_trials(run, objective) if row.best_epoch is not None), None)
    if best is None or samples.manifest is None:
        return
    trial = run.trial(best.trial_id)
    facts = trial.read_facts().as_dict()
    try:
        spec = run.spec_of(best.trial_id)
    except UserError:  # written by another version: its curves are shown all the same
        return
    layers = outline(spec.model, len(samples.manifest.class_names), facts)
    file = EventFile(run.tensorboard_dir / SEARCH_RUN)
    step = len(list(run.trials()))
    file.add_text("best", render_markdown(BEST, {"best": best, "layers": layers}), step)
    file.add_graph(layers)
    for tag, picture in samples.mistakes(trial).items():
        file.add_image(f"best/{tag}", picture, step)
    file.close()


def rebuild_events(
    run: RunFolder, config: SearchConfig, families: Sequence[str], samples: Samples
) -> None:
    """Writes all event files of a run again from `trials/`."""
    objective = config.objective
    begin_search_events(run, config, families, samples)
    for trial in run.trials():
        TrialEvents(run, trial, objective, samples).end()
    finish_search_events(run, objective, samples)
