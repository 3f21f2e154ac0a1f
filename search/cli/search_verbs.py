"""The verbs that search: run, resume."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pawtune.models.words import count
from pawtune.search.cli.jobs.options import print_submitted
from pawtune.search.cli.options import (
    Data,
    Json,
    LabelColumn,
    Labels,
    LearnFrom,
    MinClassSize,
    Objectives,
    PathColumn,
    Quiet,
    Relabel,
    RunArgument,
    RunsDir,
    configured,
)
from pawtune.search.cli.output import console, emit, print_json, shortest

if TYPE_CHECKING:
    from pawtune.search.run import Run


def run(
    context: typer.Context,
    data: Data = None,
    labels: Labels = None,
    label_column: LabelColumn = None,
    path_column: PathColumn = None,
    relabel: Relabel = None,
    min_class_size: MinClassSize = None,
    name: Annotated[
        str | None, typer.Option(help="Of the run.", show_default="the data's name and the time")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="A search.yaml to start from.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Overrides one setting.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Proposed trials; baselines come on top.", show_default="24")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of a full trial.", show_default="20")
    ] = None,
    families: Annotated[
        str | None,
        typer.Option(help="Names, with commas: conv, transfer, finetune.", show_default="all"),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="The backbone's weights file, without the top, or NAME=FILE,NAME=FILE.",
            show_default="Keras' cache, else a download",
        ),
    ] = None,
    backbones: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Models of keras.applications, with commas.",
            show_default="MobileNetV2",
        ),
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(help="Pixels a side; several with commas.", show_default="160")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Trials at once.", show_default="as many as fit")
    ] = None,
    gpus_per_trial: Annotated[
        float | None,
        typer.Option(help="1 or a fraction.", show_default="1 where there are any"),
    ] = None,
    cpus_per_trial: Annotated[
        float | None, typer.Option(help="CPUs of each trial.", show_default="1")
    ] = None,
    time_budget: Annotated[
        str | None,
        typer.Option(help="Stop after 90s, 10m or 1h30m of trials.", show_default="never"),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="val_accuracy, val_balanced_accuracy, val_loss, or MODULE:FUNCTION of your own.",
            show_default="val_accuracy",
        ),
    ] = None,
    objectives: Objectives = None,
    learn_from: LearnFrom = None,
    baselines: Annotated[
        bool | None,
        typer.Option(
            "--baselines/--no-baselines",
            help="Train the five tutorial models first, to compare with.",
            show_default="no",
        ),
    ] = None,
    baselines_only: Annotated[
        bool, typer.Option("--baselines-only", help="Train the five tutorial models only.")
    ] = False,
    class_weights: Annotated[
        bool | None, typer.Option("--class-weights", help="Weigh rare classes up.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of splits, proposals and training.", show_default="0")
    ] = None,
    runs_dir: Annotated[
        str | None, typer.Option(help="Where runs are kept.", show_default="runs")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="A running Ray cluster, or auto.", show_default="this machine"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show configuration, data and cost; train nothing.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Search: decode the data once, run the trials, rank them.

    Example: pawtune run --data cats_and_dogs --name pets --trials 24
    """
    from pawtune.search.progress.reporter import Reporter

    search_config = configured(context.params)
    if dry_run:
        from pawtune.search.dry_run import describe

        with Reporter(quiet=quiet) as reporter:
            plan = describe(search_config, reporter)
        emit(plan, as_json)
        return
    from pawtune.search.cluster.head_address import probe_head

    probe_head(search_config.resources.address)  # before Ray is loaded, which takes seconds
    from pawtune.search.cluster.connection import leaving_ray
    from pawtune.search.driver import run_search

    with leaving_ray():
        with Reporter(quiet=quiet) as reporter:
            result = run_search(search_config, reporter)
        _show_outcome(result, as_json)


def _show_outcome(result: "Run", as_json: bool) -> None:
    from pawtune.search.progress.reporter import leaderboard_table
    from pawtune.search.results.leaderboard import as_dicts
    from pawtune.search.results.selection_bias import describe_winner

    rows = result.rows()
    summary = result.summary()
    usable = [row for row in rows if row.best_epoch is not None]
    estimate = result.validation(rows)
    if as_json:
        validation = estimate.as_dict() if estimate else None
        outcome = {"run": result.name, **summary, "leaderboard": as_dicts(rows)}
        print_json({**outcome, "validation": validation})
    else:
        title = f"{result.name}: best of {count(len(rows), 'trial')}"
        console().print(leaderboard_table(rows[:10], title))
    reason = summary["reason"]
    if reason and not as_json:
        print(f"ended early: {reason}")
    if not usable:
        then = "continue: pawtune resume" if reason else "see what happened: pawtune leaderboard"
        print(
            f"pawtune: no trial finished an epoch; {then} {shlex.quote(result.folder.place)}",
            file=sys.stderr,
        )
        raise typer.Exit(130 if reason == "interrupted" else 1)
    if not as_json:
        best, place = usable[0], shortest(result)
        own = f", {best.own_metric} {best.score:.4f}" if best.own_metric else ""
        print(f"best: {best.name}{own}, val_accuracy {best.best_val_accuracy:.4f}")
        if winner := describe_winner(estimate, rows):
            print(winner)
        print(f"kept in {result.folder.place} ({summary['seconds']:.0f} s). Next:")
        if reason:
            print(f"  pawtune resume {place}                        # continue where it ended")
        print(f"  pawtune test {place}                          # score it once on the test split")
        print(f"  pawtune best {place} --out best.keras         # one complete Keras model")
        print(f"  pawtune leaderboard {place}                   # all {count(len(rows), 'trial')}")
    if reason == "interrupted":
        raise typer.Exit(130)
    if reason not in (None, "time budget"):
        raise typer.Exit(1)


def resume(
    run: RunArgument,
    trials: Annotated[
        str | None, typer.Option(metavar="+N", help="Propose N more trials than before.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run failed trials again.")
    ] = False,
    data: Annotated[str | None, typer.Option(help="Where the images are now, if moved.")] = None,
    address: Annotated[
        str | None,
        typer.Option(help="A Ray cluster, if another; a dashboard's URL: continue as a job there."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Submit a job without a token to another machine.")
    ] = False,
    quiet: Quiet = False,
    runs_dir: RunsDir = "runs",
    as_json: Json = False,
) -> None:
    """Continue a search: unfinished trials continue from their last state, finished ones stay.

    Example: pawtune resume pets --trials +20
    """
    from pawtune.search.cluster.head_address import probe_head
    from pawtune.search.errors import UserError
    from pawtune.search.progress.reporter import Reporter
    from pawtune.search.run import open_run
    from pawtune.search.storage.run_lock import refuse_if_held

    more = (trials or "+0").removeprefix("+")
    if not more.isdigit():
        raise UserError(
            f"--trials must be a number of trials to add, received {trials!r}; give +20"
        )
    if (address or "").startswith(("http://", "https://")):
        from pawtune.search.jobs import ray_jobs as jobs
        from pawtune.search.jobs.api import JobsApi

        job = jobs.resume(
            JobsApi(address, insecure),
            run,
            more_trials=int(more),
            retry_failed=retry_failed,
            data=data,
            quiet=quiet,
            runs_dir=runs_dir,
        )
        print_submitted("continues", job, address, insecure, as_json)
        return
    probe_head(address)  # before Ray is loaded, which takes seconds
    folder = open_run(run, runs_dir).folder
    refuse_if_held(folder)
    from pawtune.search.cluster.connection import leaving_ray
    from pawtune.search.driver import resume_search

    with leaving_ray():
        with Reporter(quiet=quiet) as reporter:
            result = resume_search(
                folder,
                more_trials=int(more),
                retry_failed=retry_failed,
                data=data,
                address=address,
                reporter=reporter,
            )
        _show_outcome(result, as_json)
