"""`pawtune push`: a run into a tracker."""

from typing import Annotated

import typer

from pawtune.models.words import count
from pawtune.search.cli.options import Json, RunArgument, RunsDir
from pawtune.search.cli.output import print_json


def push(
    run: RunArgument,
    to: Annotated[str, typer.Option("--to", help="mlflow or wandb.")],
    uri: Annotated[
        str | None,
        typer.Option(
            help="The tracker's server, or sqlite:///FILE.db for MLflow.",
            show_default="as the tracker's own environment says",
        ),
    ] = None,
    project: Annotated[
        str, typer.Option(help="MLflow's experiment, or W&B's project.")
    ] = "pawtune",
    follow: Annotated[
        bool, typer.Option("--follow", help="Push again every 30 s until the search ends.")
    ] = False,
    runs_dir: RunsDir = "runs",
    as_json: Json = False,
) -> None:
    """Write a run into MLflow or Weights & Biases: trials, epochs, the best model and its card.

    Example: pawtune push pets --to mlflow --uri sqlite:///mlflow.db
    """
    from pawtune.search.integrations import push as pushing
    from pawtune.search.run import open_run

    opened = open_run(run, runs_dir)
    if follow:
        pushing.follow(opened, lambda: pushing.push(opened, to, uri, project))
    identifier = pushing.push(opened, to, uri, project)
    if as_json:
        print_json({"run": opened.name, "to": to, "project": project, "id": identifier})
        return
    trials = count(len(opened.rows()), "trial")
    print(f"{opened.name}: {trials} in {to}, project {project}, as {identifier}")
