"""`pawtune runs`: the runs of a folder: listed, compared with each other, deleted."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pawtune.models.words import count
from pawtune.search.cli.options import Json, RunsDir
from pawtune.search.cli.output import console, print_json

if TYPE_CHECKING:
    from pawtune.search.run import Run

runs_app = typer.Typer(help="List, compare and delete runs.", invoke_without_command=True)

Names = Annotated[list[str], typer.Argument(metavar="RUN...", help="Names of runs, or folders.")]


@runs_app.callback()
def runs(context: typer.Context, runs_dir: RunsDir = "runs", as_json: Json = False) -> None:
    """List the runs of a folder, the latest first.

    Example: pawtune runs --runs-dir /shared/runs
    """
    if context.invoked_subcommand is None:
        list_runs(runs_dir, as_json)


@runs_app.command("list")
def list_runs(runs_dir: RunsDir = "runs", as_json: Json = False) -> None:
    """List the runs of a folder, the latest first; as `pawtune runs` alone."""
    from rich.table import Table
    from rich.text import Text

    from pawtune.search.progress.run_list import find_runs

    found = find_runs(runs_dir)
    if as_json:
        print_json(found)
        return
    if not found:
        print(f"no runs in {runs_dir}")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("run", "began", "state", "trials"):
        table.add_column(title, no_wrap=title != "state")
    for title in ("best", "MB"):
        table.add_column(title, justify="right", no_wrap=True)
    for line in found:
        table.add_row(Text(line.name), line.began_text, Text(line.state), line.trials_text,
                      line.best_text, f"{line.megabytes:.1f}")  # fmt: skip
    console().print(table)


@runs_app.command("compare")
def compare(names: Names, runs_dir: RunsDir = "runs", as_json: Json = False) -> None:
    """Compare the winners of several runs: validation, corrected and test accuracy, time.

    Example: pawtune runs compare pets pets-again
    """
    from rich.table import Table
    from rich.text import Text

    from pawtune.search.run import open_run

    opened = [open_run(name, runs_dir) for name in names]
    found = [describe(run) for run in opened]
    same = len({facts["data_fingerprint"] for facts in found}) == 1
    if as_json:
        print_json({"same_data": same, "runs": found})
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    for facts in found:
        table.add_column(Text(str(facts["run"])))
    for key in [key for key in found[0] if key not in ("run", "data_fingerprint")]:
        table.add_row(key.replace("_", " "), *(Text(_cell(facts[key])) for facts in found))
    console().print(table)
    warn_of_other_data(opened)


def show_together(
    runs: "list[Run]", sort: str, top: int | None, *, as_csv: bool, as_json: bool
) -> None:
    """The trials of several runs as one leaderboard; trials are called RUN/NAME.

    Raises:
        UserError: A run is given twice, or the runs were searched for different metrics.
    """
    from dataclasses import replace

    from pawtune.search.config.own_metric import metric_name
    from pawtune.search.errors import UserError
    from pawtune.search.objective import Objective
    from pawtune.search.progress.reporter import leaderboard_table
    from pawtune.search.results.leaderboard import as_csv as to_csv
    from pawtune.search.results.leaderboard import as_dicts, rank_together, sort_rows

    places = [run.folder.place for run in runs]
    for place in places:
        if places.count(place) > 1:
            raise UserError(
                f"runs are ranked together once each, received {place!r} twice; leave one out"
            )
    metrics = sorted({run.config().metric for run in runs})
    if len(metrics) > 1:
        raise UserError(
            f"runs are ranked together by one metric, received {' and '.join(metrics)}; list them "
            "one by one, or type `pawtune runs compare`"
        )
    rows = [
        replace(row, trial_id=f"{run.name}/{row.trial_id}") for run in runs for row in run.rows()
    ]
    ranked = rank_together(rows, Objective(metric_name(metrics[0])))
    shown = sort_rows(ranked, sort)[:top]
    if as_json or as_csv:
        print_json(as_dicts(shown)) if as_json else print(to_csv(shown), end="")
        return
    names = ", ".join(run.name for run in runs)
    title = f"{names}: {len(shown)} of {count(len(rows), 'trial')}"
    console().print(leaderboard_table(shown, title))
    warn_of_other_data(runs)


def warn_of_other_data(runs: "list[Run]") -> None:
    """Says so where runs have other images or splits."""
    if len({fingerprint_of(run) for run in runs}) > 1:
        print(
            "warning: these runs have other images or splits: their accuracies answer different "
            "questions",
            file=sys.stderr,
        )


def describe(run: "Run") -> dict[str, Any]:
    """What a comparison shows of a run."""
    from pawtune.search.results.look_ledger import read_ledger

    rows, config = run.rows(), run.config()
    usable = [row for row in rows if row.best_epoch is not None]
    best = usable[0] if usable else None
    estimate = run.validation(rows)
    looks = read_ledger(run.folder)
    has_ended = run.folder.summary_file.exists()
    return {
        "run": run.name,
        "data_fingerprint": fingerprint_of(run),
        "trials": len(rows),
        "finished_an_epoch": len(usable),
        "metric": config.metric,
        "best": best.name if best else None,
        "val_accuracy": best.best_val_accuracy if best else None,
        "corrected": estimate.corrected_accuracy if estimate else None,
        "corrected_interval_95": list(estimate.interval_95) if estimate else None,
        "test_accuracy": looks[-1].accuracy if looks else None,
        "test_interval_95": list(looks[-1].interval_95) if looks else None,
        "looks_at_test": len(looks),
        "seconds": run.summary()["seconds"] if has_ended else None,
    }


def fingerprint_of(run: "Run") -> str | None:
    """Fingerprint of contents, labels and splits; None where the manifest cannot be read."""
    from pawtune.data_pipeline.errors import DataError

    try:
        return run.manifest().fingerprint
    except DataError:
        return None


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return " to ".join(f"{edge:.4f}" for edge in value)
    return f"{value:.4f}" if isinstance(value, float) and value <= 1 else str(value)


@runs_app.command("delete")
def delete(
    names: Names,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    runs_dir: RunsDir = "runs",
) -> None:
    """Delete runs with all that is in their folders; one that is being searched is refused.

    Example: pawtune runs delete pets-again --yes
    """
    from pawtune.search.errors import UserError
    from pawtune.search.run import open_run
    from pawtune.search.storage.run_folder import remove_run_folder
    from pawtune.search.storage.run_lock import is_running

    found = [open_run(name, runs_dir).folder for name in names]
    for folder in found:
        if is_running(folder):
            raise UserError(
                f"a run that is being searched cannot be deleted, received {folder.name!r}; stop "
                "its search first"
            )
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("delete asks, and there is no terminal to answer from; give --yes")
        places = "\n".join(f"  {folder.place}" for folder in found)
        if not typer.confirm(f"delete all of these?\n{places}\n"):
            print("nothing was deleted", file=sys.stderr)
            raise typer.Exit(1)
    for folder in found:
        remove_run_folder(folder)
        print(f"deleted {folder.place}")
