"""The verbs that draw a run: report, plot, tensorboard."""

from pathlib import Path
from typing import Annotated

import typer

from pawtune.search.cli.options import Force, Json, MovedFolder, RunArgument, RunsDir
from pawtune.search.cli.output import print_json


def report(
    run: RunArgument,
    out: Annotated[Path | None, typer.Option(help="Default: in the run's folder.")] = None,
    kind: Annotated[
        str, typer.Option("--format", help="html: one self-contained page; md: for a README.")
    ] = "html",
    data: MovedFolder = None,
    force: Force = False,
    runs_dir: RunsDir = "runs",
    as_json: Json = False,
) -> None:
    """Write all there is to see of a run as one page."""
    from pawtune.search.report.page import write_report
    from pawtune.search.run import open_run

    path = write_report(open_run(run, runs_dir), out, kind, data, force=force)
    if as_json:
        print_json({"path": str(path), "bytes": path.stat().st_size})
        return
    print(f"{path} ({path.stat().st_size / 1e3:,.0f} kB)")


def plot(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="A .png, .svg or .pdf file.")] = Path("curves.png"),
    trials: Annotated[
        str | None, typer.Option(help="Ids or names, with commas; default: the best.")
    ] = None,
    runs_dir: RunsDir = "runs",
    as_json: Json = False,
) -> None:
    """Draw accuracy and loss by epoch of some trials beside the baselines."""
    from pawtune.search.report.history_plot import plot_histories
    from pawtune.search.run import open_run

    names = plot_histories(open_run(run, runs_dir), out, trials.split(",") if trials else ())
    if as_json:
        print_json({"path": str(out), "trials": names})
        return
    print(f"{out}: {', '.join(names)}")


def tensorboard(
    names: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="A run, or several to see together.")
    ],
    port: Annotated[
        int | None, typer.Option(help="Where to listen.", show_default="6006, or the next free one")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen. Others than this machine need no password!")
    ] = "127.0.0.1",
    runs_dir: RunsDir = "runs",
) -> None:
    """Show a run, or several together, in TensorBoard, while they run or when they are over."""
    from pawtune.search.run import open_run
    from pawtune.search.tensorboard.server import serve as serve_tensorboard

    folders = [open_run(name, runs_dir).folder for name in names]
    raise typer.Exit(serve_tensorboard(folders, host, port))
