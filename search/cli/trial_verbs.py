"""The verbs that list the trials of a run: leaderboard, show."""

from typing import Annotated

import typer

from pawtune.models.words import count
from pawtune.search.cli.options import Json, RunArgument, RunsDir
from pawtune.search.cli.output import console, print_json
from pawtune.search.cli.runs_verb import show_together
from pawtune.search.cli.trust_verbs import note_of

TABLE_ROWS = 1000  # without --top; Rich takes 0.5 s for as many


def leaderboard(
    names: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="A run, or several to rank together.")
    ],
    top: Annotated[
        int | None,
        typer.Option(min=1, help="The first so many; default: all, in a table 1,000 at most."),
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            help="A column of --csv, the largest first; with a - before it, the smallest."
        ),
    ] = "rank",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV alone on stdout.")] = False,
    runs_dir: RunsDir = "runs",
    as_json: Json = False,
) -> None:
    """List all trials of a run, or of several, best first.

    Example: pawtune leaderboard pets --sort seconds --top 10
    """
    from pawtune.search.errors import UserError
    from pawtune.search.progress.reporter import leaderboard_table
    from pawtune.search.results.leaderboard import as_csv as to_csv
    from pawtune.search.results.leaderboard import as_dicts, sort_rows
    from pawtune.search.results.selection_bias import describe_winner
    from pawtune.search.run import open_run

    if as_csv and as_json:
        raise UserError("a leaderboard is printed in one form, received --csv and --json; give one")
    if top is None and not (as_csv or as_json):
        top = TABLE_ROWS
    if len(names) > 1:
        opened_runs = [open_run(name, runs_dir) for name in names]
        show_together(opened_runs, sort, top, as_csv=as_csv, as_json=as_json)
        return
    opened = open_run(names[0], runs_dir)
    rows = opened.rows()
    shown = sort_rows(rows, sort)[:top]
    if as_json or as_csv:
        print_json(as_dicts(shown)) if as_json else print(to_csv(shown), end="")
        return
    part = f"{len(shown)} of " if len(shown) < len(rows) else ""
    console().print(leaderboard_table(shown, f"{opened.name}: {part}{count(len(rows), 'trial')}"))
    if winner := describe_winner(opened.validation(rows), rows):
        print(f"best trial, {rows[0].trial_id}: {winner}")
        if note := note_of(opened, rows[0].trial_id):
            print(note)
    for row in shown:
        if row.status == "failed":
            print(f"{row.name} failed: {row.reason}")


def show(
    run: RunArgument,
    trial: Annotated[
        str, typer.Argument(metavar="TRIAL", help="A trial's id, such as 0007, or its name.")
    ],
    runs_dir: RunsDir = "runs",
    as_json: Json = False,
) -> None:
    """Show one trial: parameters, status, every epoch."""
    from pawtune.search.cli.tables.trial import describe_trial, trial_tables
    from pawtune.search.run import open_run

    details = describe_trial(open_run(run, runs_dir), trial)
    if as_json:
        print_json(details)
        return
    for table in trial_tables(details):
        console().print(table)
    if details["error"]:
        print(details["error"])
