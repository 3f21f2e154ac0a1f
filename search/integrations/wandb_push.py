"""A run in Weights & Biases: a group; a run for each trial, and one for the search with its model.

Without a network `WANDB_MODE=offline` writes the same into `wandb/`, to be sent with `wandb sync`.
"""

import re
import tempfile
from pathlib import Path
from typing import Any

from pawtune.search.integrations.records import TrackedTrial, load_extra, read_run
from pawtune.search.run import Run

DESCRIPTION_CHARACTERS = 4000


def push_to_wandb(run: Run, uri: str | None, project: str) -> str:
    """Writes a run into a W&B project.

    Args:
        run: The run, finished or not.
        uri: URI of a server of one's own; None: as W&B's own environment says.
        project: Name of the project.

    Returns:
        The name of the group.

    Raises:
        UserError: W&B is not installed, or a file of the run is damaged.
    """
    wandb = load_extra("wandb", "wandb")
    settings = wandb.Settings(
        silent=True, console="off", disable_git=True, **({"base_url": uri} if uri else {})
    )
    tracked = read_run(run)
    common = {"project": project, "group": run.name, "settings": settings, "resume": "allow"}
    for trial in tracked.trials:
        if trial.epochs or trial.over:
            with wandb.init(
                id=_identifier(run.name, trial.trial_id), name=trial.name, job_type="trial",
                config={**trial.params, "state": trial.state}, **common,
            ) as opened:  # fmt: skip
                _log_trial(opened, trial)
    with wandb.init(
        id=_identifier(run.name, "search"), name=run.name, job_type="search",
        config=dict(tracked.settings), **common,
    ) as opened:  # fmt: skip
        opened.summary.update(dict(tracked.summary))
        if tracked.over and tracked.best is not None:
            _log_model(wandb, opened, run)
    return run.name


def _log_trial(opened: Any, trial: TrackedTrial) -> None:
    sent = int(opened.step)  # of an earlier push, where the server knows of one
    for row in trial.epochs:
        if row["epoch"] >= sent:
            values = {key: value for key, value in row.items() if key != "epoch"}
            opened.log(values, step=int(row["epoch"]))
    opened.summary.update(dict(trial.summary))


def _log_model(wandb: Any, opened: Any, run: Run) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _, path = run.save_best(Path(folder) / "best.keras")  # and its card, beside it
        text = path.with_suffix(".md").read_text(encoding="utf-8")
        name = re.sub(r"[^\w.-]", "-", run.name)
        artifact = wandb.Artifact(name, type="model", description=text[:DESCRIPTION_CHARACTERS])
        for file in sorted(path.parent.iterdir()):
            artifact.add_file(str(file))
        opened.log_artifact(artifact)


def _identifier(run: str, part: str) -> str:
    """What makes a second push continue the first: W&B takes up to 128 plain characters."""
    return f"{re.sub(r'[^a-zA-Z0-9_-]', '-', run)[:100]}-{part}"
