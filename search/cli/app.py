"""The verbs of `pawtune`. Each reads its options, calls the one function behind it, and prints.

Nothing heavy is imported before a verb runs: `pawtune --help` must answer at once.
"""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pawtune.search.cli import job_verbs, trust_verbs
from pawtune.search.cli.integrations.card_verb import card
from pawtune.search.cli.integrations.push_verb import push
from pawtune.search.cli.integrations.serve_verb import serve
from pawtune.search.cli.options import (
    Data,
    Ensemble,
    Force,
    Json,
    LabelColumn,
    Labels,
    LearnFrom,
    MinClassSize,
    Objectives,
    PathColumn,
    Quiet,
    Rank,
    Refit,
    Relabel,
    RunArgument,
    RunsDir,
    Trial,
    add_family_option,
    add_metric_option,
    configured,
    kind_of,
    milliseconds,
)
from pawtune.search.cli.output import console, print_json, shortest
from pawtune.search.cli.runs_verb import runs_app, show_together

if TYPE_CHECKING:
    from pawtune.search.run import Run

app = typer.Typer(
    name="pawtune",
    help="Ray-distributed hyperparameter search for image classifiers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
cache_app = typer.Typer(help="What pawtune keeps between runs.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")
app.add_typer(runs_app, name="runs")


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"pawtune {version('pawtune')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Ray-distributed hyperparameter search for image classifiers."""


@app.command()
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
        _emit(plan, as_json)
        return
    from pawtune.search.cluster.head_address import probe_head

    probe_head(search_config.resources.address)  # before Ray is loaded, which takes seconds
    from pawtune.search.driver import run_search

    with Reporter(quiet=quiet) as reporter:
        result = run_search(search_config, reporter)
    _show_outcome(result, as_json)


def _show_outcome(result: "Run", as_json: bool) -> None:
    from pawtune.search.progress.reporter import leaderboard_table
    from pawtune.search.results.leaderboard import as_dicts

    rows = result.rows()
    summary = result.summary()
    usable = [row for row in rows if row.best_epoch is not None]
    estimate = result.validation(rows)
    if as_json:
        validation = estimate.as_dict() if estimate else None
        outcome = {"run": result.name, **summary, "leaderboard": as_dicts(rows)}
        print_json({**outcome, "validation": validation})
    else:
        console().print(leaderboard_table(rows[:10], f"{result.name}: best of {len(rows)} trials"))
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
        if estimate is not None:
            print(estimate)
        print(f"kept in {result.folder.place} ({summary['seconds']:.0f} s). Next:")
        if reason:
            print(f"  pawtune resume {place}                        # continue where it ended")
        print(f"  pawtune test {place}                          # score it once on the test split")
        print(f"  pawtune best {place} --out best.keras         # one complete Keras model")
        print(f"  pawtune leaderboard {place}                   # all {len(rows)} trials")
    if reason == "interrupted":
        raise typer.Exit(130)
    if reason not in (None, "time budget"):
        raise typer.Exit(1)


@app.command()
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
        job_verbs.resume_as_job(
            run,
            address or "",
            insecure,
            more_trials=int(more),
            retry_failed=retry_failed,
            data=data,
            quiet=quiet,
            runs_dir=runs_dir,
            as_json=as_json,
        )
        return
    probe_head(address)  # before Ray is loaded, which takes seconds
    folder = open_run(run, runs_dir).folder
    refuse_if_held(folder)
    from pawtune.search.driver import resume_search

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


@app.command()
def leaderboard(
    names: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="A run, or several to rank together.")
    ],
    top: Annotated[int | None, typer.Option(min=1, help="The first so many; default: all.")] = None,
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
    from pawtune.search.progress.reporter import leaderboard_table
    from pawtune.search.results.leaderboard import as_csv as to_csv
    from pawtune.search.results.leaderboard import as_dicts, sort_rows
    from pawtune.search.run import open_run

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
    listed = f"{len(shown)} of {len(rows)}" if len(shown) < len(rows) else f"{len(rows)}"
    console().print(leaderboard_table(shown, f"{opened.name}: {listed} trials"))
    estimate = opened.validation(rows)
    if estimate is not None:
        print(f"best trial, {estimate.trial_id}: {estimate}")
        if note := trust_verbs.note_of(opened, estimate.trial_id):
            print(note)
    for row in shown:
        if row.status == "failed":
            reason = opened.folder.trial(row.trial_id).read_status().reason
            print(f"{row.name} failed: {reason}")


@app.command()
def show(
    run: RunArgument,
    trial: Annotated[
        str, typer.Argument(metavar="TRIAL", help="A trial's id, such as 0007, or its name.")
    ],
    runs_dir: RunsDir = "runs",
    as_json: Json = False,
) -> None:
    """Show one trial: parameters, status, every epoch."""
    from pawtune.search.cli.trial_tables import describe_trial, trial_tables
    from pawtune.search.run import open_run

    details = describe_trial(open_run(run, runs_dir), trial)
    if as_json:
        print_json(details)
        return
    for table in trial_tables(details):
        console().print(table)
    if details["error"]:
        print(details["error"])


@app.command()
def best(
    run: RunArgument,
    out: Annotated[Path | None, typer.Option(help="The .keras file to write.")] = None,
    trial: Trial = None,
    rank: Rank = None,
    refit: Refit = False,
    ensemble: Ensemble = False,
    max_latency: Annotated[
        str | None,
        typer.Option(
            metavar="20ms",
            help="The best of the trials that answer within this time; needs --objectives "
            "accuracy,latency_ms.",
        ),
    ] = None,
    force: Force = False,
    runs_dir: RunsDir = "runs",
    as_json: Json = False,
) -> None:
    """Write the best trial's best epoch, or another model of the run, as one complete Keras model.

    Example: pawtune best pets --out best.keras
    """
    from pawtune.search.progress.reporter import Reporter
    from pawtune.search.run import open_run

    kind = kind_of(refit, ensemble)
    limit = milliseconds(max_latency) if max_latency is not None else None
    opened = open_run(run, runs_dir)
    choice = opened.choose(trial, rank, kind, max_latency_ms=limit)
    with Reporter() as reporter:
        chosen, path = opened.save_best(out, choice, force=force, reporter=reporter)
    row = chosen.row
    if as_json:
        names = {"trial_id": chosen.trial_id, "name": row.name, "model": kind}
        print_json({"path": str(path), **names})
        return
    about = f"epoch {row.best_epoch}, val_accuracy {row.best_val_accuracy:.4f}"
    about += f", {row.latency_ms:.1f} ms an image" if row.latency_ms is not None else ""
    print(f"{chosen.title} ({about}) → {path}" if kind == "trial" else f"{chosen.title} → {path}")
    print("It takes raw images of any size. Next:")
    print(f"  pawtune predict {path} IMAGE_OR_FOLDER")


@app.command()
def export(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="The file to write; a folder for savedmodel.")],
    kind: Annotated[
        str, typer.Option("--format", help="keras, savedmodel, onnx or tflite.")
    ] = "keras",
    trial: Trial = None,
    rank: Rank = None,
    refit: Refit = False,
    ensemble: Ensemble = False,
    dynamic: Annotated[
        bool,
        typer.Option(
            "--dynamic",
            help="A TFLite file for any number of images of any size; default: one image of the "
            "side that the model was trained at.",
        ),
    ] = False,
    force: Force = False,
    runs_dir: RunsDir = "runs",
    as_json: Json = False,
) -> None:
    """Write the best trial's best epoch in another format, checked against the Keras model.

    Example: pawtune export pets --format tflite --out pets.tflite
    """
    from pawtune.search.run import open_run

    opened = open_run(run, runs_dir)
    choice = opened.choose(trial, rank, kind_of(refit, ensemble))
    chosen, exported = opened.export(out, kind, choice, dynamic=dynamic, force=force)
    path, difference = str(exported.path), exported.max_difference
    if as_json:
        print_json(
            {
                "path": path,
                "format": kind,
                "trial_id": chosen.trial_id,
                "max_difference": difference,
                "input_shape": exported.input_shape,
            }
        )
        return
    shape = ", ".join("any" if side is None else str(side) for side in exported.input_shape)
    print(f"{chosen.title} as {kind} → {path}")
    print(f"takes uint8 pixels, ({shape})")
    print(f"checked: no probability differs from the Keras model's by more than {difference:.1e}")


@app.command("test")
def score(
    run: RunArgument,
    data: Annotated[
        Path | None, typer.Option(help="Where the images are now, if they moved.")
    ] = None,
    trial: Trial = None,
    rank: Rank = None,
    refit: Refit = False,
    ensemble: Ensemble = False,
    runs_dir: RunsDir = "runs",
    as_json: Json = False,
) -> None:
    """Score the best trial, or another model of the run, once on the held-out test split.

    Example: pawtune test pets
    """
    from pawtune.search.cli.evaluation_tables import headlines, tables
    from pawtune.search.run import open_run

    kind = kind_of(refit, ensemble)
    opened = open_run(run, runs_dir)
    result = opened.test(data, opened.choose(trial, rank, kind))
    if as_json:
        print_json(result.as_dict())
        return
    for line in headlines(result):
        print(line)
    if note := trust_verbs.note_of(opened, result.trial_id) if kind == "trial" else None:
        print(note)
    for table in tables(result):
        console().print(table)


@app.command()
def predict(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN", help="What `best` or `export` wrote, or a run, for its best trial."
        ),
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE_OR_FOLDER...")],
    out: Annotated[Path | None, typer.Option(help="A file to write; default: stdout.")] = None,
    kind: Annotated[
        str | None, typer.Option("--format", help="csv or json; default: as --out ends.")
    ] = None,
    trial: Trial = None,
    rank: Rank = None,
    refit: Refit = False,
    ensemble: Ensemble = False,
    coverage: Annotated[
        float | None,
        typer.Option(help="Also sets of labels that hold the true one so often, such as 0.95."),
    ] = None,
    force: Force = False,
    runs_dir: RunsDir = "runs",
    as_json: Json = False,
) -> None:
    """Label images with a model; what cannot be read has a reason in place of a label.

    Exit code 0: every file has a label; 3: some could not be read; 1: none could.

    Example: pawtune predict best.keras PHOTOS --out labels.csv
    """
    from pawtune.search.cli.predict import predict
    from pawtune.search.errors import UserError
    from pawtune.search.progress.reporter import Reporter
    from pawtune.search.results.delivery.inference import check_paths
    from pawtune.search.results.delivery.opened import is_model_path, open_delivered
    from pawtune.search.results.delivery.out_files import refuse_existing
    from pawtune.search.results.delivery.predict import choose_format
    from pawtune.search.run import open_run

    kind = choose_format("json" if as_json else kind, out)
    refuse_existing([out] if out is not None else [], force)
    check_paths(images)
    is_file = is_model_path(Path(model))
    if is_file and (trial or rank or refit or ensemble):
        raise UserError(
            f"--trial, --rank, --refit and --ensemble choose a model of a run, received the file "
            f"{model!r}; leave them out, or name a run"
        )
    if coverage is not None and (is_file or not 0 < coverage < 1):
        raise UserError(
            f"--coverage must be between 0 and 1, of a run, received {coverage:g} for {model!r}; "
            "name the run, whose validation predictions decide, and for example --coverage 0.95"
        )
    if is_file:
        opened = open_delivered(Path(model))
    else:
        try:
            run = open_run(model, runs_dir)
        except UserError:
            if Path(model).exists():
                open_delivered(Path(model))  # says why it is no model
            raise
        choice = run.choose(trial, rank, kind_of(refit, ensemble))
        with Reporter() as reporter:
            opened = run.predictor(choice, coverage=coverage, reporter=reporter)
    counts = predict(opened, images, kind, out)
    print(counts, file=sys.stderr)
    if counts.exit_code:
        raise typer.Exit(counts.exit_code)


@app.command()
def preview(
    data: Annotated[str, typer.Argument(metavar="DATA", help="As `run --data`.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("preview"),
    image_size: Annotated[int, typer.Option(help="Pixels a side.")] = 160,
    seed: Annotated[int, typer.Option(help="Of the splits.")] = 0,
    labels: Labels = None,
    label_column: LabelColumn = None,
    path_column: PathColumn = None,
    min_class_size: MinClassSize = None,
    as_json: Json = False,
) -> None:
    """Show what is in a data set: counts, rejects, sample and augmentation grids.

    Example: pawtune preview PHOTOS --labels labels.csv
    """
    from pawtune.data_pipeline.splitting.label_table import LabelFile
    from pawtune.search.cli.preview import preview_data
    from pawtune.search.progress.reporter import Reporter

    with Reporter() as reporter:
        shown = preview_data(
            data,
            out,
            image_size=image_size,
            seed=seed,
            labels=LabelFile(Path(labels), label_column, path_column) if labels else None,
            min_class_size=min_class_size or 0,
            reporter=reporter,
        )
    _emit(shown, as_json)


@app.command()
def report(
    run: RunArgument,
    out: Annotated[Path | None, typer.Option(help="Default: in the run's folder.")] = None,
    kind: Annotated[
        str, typer.Option("--format", help="html: one self-contained page; md: for a README.")
    ] = "html",
    data: Annotated[
        Path | None, typer.Option(help="Where the images are now, if they moved.")
    ] = None,
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


@app.command()
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


@app.command()
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


@app.command()
def doctor(
    data: Annotated[str | None, typer.Option(help="Look at these images, too.")] = None,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster; default: start one here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check what a search needs on this machine; exit code 1 where something is wrong.

    Example: pawtune doctor --data PHOTOS
    """
    from pawtune.search.doctor.checks import examine

    checks = []
    for check in examine(data, address):
        checks.append(check)
        if not as_json:
            print(f"{check.state.upper():<6} {check.name}: {check.found}", flush=True)
            if check.remedy:
                print(f"       → {check.remedy}", flush=True)
    if as_json:
        print_json([check.as_dict() for check in checks])
    if any(check.state == "wrong" for check in checks):
        raise typer.Exit(1)


job_verbs.add_to(app)
trust_verbs.add_to(app)
app.command()(card)
app.command()(push)
app.command()(serve)


@cache_app.command("list")
def cache_list(as_json: Json = False) -> None:
    """Say what the cache holds, by kind; --json names every entry."""
    from pawtune.data_pipeline.cache import CACHE_KINDS, cache_dir, list_cache

    entries = list_cache(cache_dir())
    if as_json:
        facts = ({"kind": e.kind, "name": e.name, "bytes": e.size_bytes} for e in entries)
        print_json(list(facts))
        return
    sizes: dict[str, int] = {}
    for entry in entries:
        sizes[entry.kind] = sizes.get(entry.kind, 0) + entry.size_bytes
    for kind, size in sizes.items():
        print(f"{kind:<10} {size / 1e6:10.1f} MB  {CACHE_KINDS.get(kind, '')}".rstrip())
    print(f"{'all':<10} {sum(sizes.values()) / 1e6:10.1f} MB  in {cache_dir()}")


@cache_app.command("clear")
def cache_clear(
    kinds: Annotated[
        list[str] | None, typer.Argument(metavar="[KIND]...", help="Default: everything.")
    ] = None,
) -> None:
    """Delete what is in the cache; it is made again when needed.

    Example: pawtune cache clear pixels banks
    """
    from pawtune.data_pipeline.cache import cache_dir, clear_cache

    print(f"{clear_cache(cache_dir(), kinds or ()) / 1e6:.1f} MB freed in {cache_dir()}")


def _emit(content: Any, as_json: bool) -> None:
    if as_json:
        print_json(content.as_dict())
    else:
        content.show(console())


add_family_option(app)
add_metric_option(app)
add_family_option(runs_app)
