"""A run in MLflow: a parent run, a child for each trial, the best model registered with its card.

A second push adds what is new: runs are found by their tags, epochs by their step. So a search can
be pushed while it runs.
"""

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pawtune.search.integrations.records import TrackedRun, TrackedTrial, load_extra, read_run
from pawtune.search.results.delivery.model_card import card_markdown
from pawtune.search.run import Run

RUN_TAG, TRIAL_TAG = "pawtune.run", "pawtune.trial"
BATCH = 500  # metrics of one call; MLflow takes 1,000
VALUE_CHARACTERS = 500


def push_to_mlflow(run: Run, uri: str | None, project: str) -> str:
    """Writes a run into an MLflow tracking store.

    Args:
        run: The run, finished or not.
        uri: URI of the store, `http://HOST:5000` or `sqlite:///mlflow.db`; None: as MLflow's own
            environment says.
        project: Name of the experiment.

    Returns:
        The id of the parent run.

    Raises:
        UserError: MLflow is not installed, or a file of the run is damaged.
    """
    mlflow = load_extra("mlflow", "mlflow")
    # Two lines a trial with a server, on stdout, which holds the result alone.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    if uri is not None:
        mlflow.set_tracking_uri(uri)
    push = _Push(mlflow, project)
    tracked = read_run(run)
    parent = push.run_of({RUN_TAG: run.name}, run.name)
    push.log(parent, params=tracked.settings, metrics=[(tracked.summary, 0)])
    for trial in tracked.trials:
        push.trial(tracked, trial, parent)
    push.client.log_artifact(parent, str(run.folder.config_file))
    if run.folder.leaderboard_file.exists():
        push.client.log_artifact(parent, str(run.folder.leaderboard_file))
    if tracked.over and tracked.best is not None:
        push.model(run, parent)
    if tracked.over:
        push.client.set_terminated(parent)
    return parent


class _Push:
    """One push into one experiment."""

    def __init__(self, mlflow: Any, project: str) -> None:
        self.mlflow = mlflow
        self.client = mlflow.MlflowClient()
        found = self.client.get_experiment_by_name(project)
        self.experiment = (
            found.experiment_id if found is not None else self.client.create_experiment(project)
        )

    def run_of(self, tags: Mapping[str, str], name: str, started: float | None = None) -> str:
        """The id of the run with these tags, made where there is none."""
        condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = self.client.search_runs([self.experiment], condition, max_results=50)
        for known in found:
            if set(known.data.tags) >= set(tags) and (TRIAL_TAG in known.data.tags) == (
                TRIAL_TAG in tags
            ):
                return str(known.info.run_id)
        begun = round(1000 * (started or time.time()))
        made = self.client.create_run(self.experiment, begun, dict(tags), run_name=name)
        return str(made.info.run_id)

    def trial(self, tracked: TrackedRun, trial: TrackedTrial, parent: str) -> None:
        """Writes what a trial's own run does not hold yet."""
        tags = {RUN_TAG: tracked.name, TRIAL_TAG: trial.trial_id}
        child = self.run_of(tags, trial.name, trial.started)
        self.client.set_tag(child, "mlflow.parentRunId", parent)
        self.client.set_tag(child, "pawtune.state", trial.state)
        kept = self.client.get_metric_history(child, "val_accuracy")
        last = max((point.step for point in kept), default=0)
        rows = [
            ({key: value for key, value in row.items() if key != "epoch"}, int(row["epoch"]))
            for row in trial.epochs
            if row["epoch"] > last
        ]
        summary = [(trial.summary, int(trial.epochs[-1]["epoch"]))] if trial.epochs else []
        self.log(child, params=trial.params, metrics=[*rows, *summary])
        if trial.over:
            self.client.set_terminated(child, "FAILED" if trial.state == "failed" else "FINISHED")

    def log(
        self, run_id: str, params: Mapping[str, Any], metrics: list[tuple[Mapping[str, float], int]]
    ) -> None:
        """Parameters once; metrics as (values, step)."""
        entities = self.mlflow.entities
        known = self.client.get_run(run_id).data.params
        new = [
            entities.Param(key, str(value)[:VALUE_CHARACTERS])
            for key, value in params.items()
            if key not in known and value is not None
        ]
        now = round(1000 * time.time())
        points = [
            entities.Metric(key, float(value), now, step)
            for values, step in metrics
            for key, value in values.items()
        ]
        self.client.log_batch(run_id, params=new)
        for start in range(0, len(points), BATCH):
            self.client.log_batch(run_id, metrics=points[start : start + BATCH])

    def model(self, run: Run, parent: str) -> None:
        """Registers the best model, with its signature and its card."""
        import numpy as np

        flavour = load_extra("mlflow.keras", "mlflow")
        types, models = load_extra("mlflow.types", "mlflow"), load_extra("mlflow.models", "mlflow")
        model, card = run.model_and_card(run.choose())
        pixels = types.TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3), "images")
        classes = types.TensorSpec(np.dtype(np.float32), (-1, len(card["class_names"])))
        signature = models.ModelSignature(types.Schema([pixels]), types.Schema([classes]))
        text = card_markdown(card)
        with self.mlflow.start_run(run_id=parent):
            logged = flavour.log_model(
                model, name="model", signature=signature, registered_model_name=run.name
            )
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "model_card.md"
            page.write_text(text, encoding="utf-8")
            self.client.log_artifact(parent, str(page))
        version = logged.registered_model_version
        if version is not None:
            self.client.update_model_version(run.name, str(version), description=text)
