"""The verbs that use one model of a run: best, export, test, predict."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pawtune.search.cli.options import (
    Ensemble,
    Force,
    Json,
    MovedFolder,
    Rank,
    Refit,
    RunArgument,
    RunsDir,
    Trial,
    kind_of,
    milliseconds,
)
from pawtune.search.cli.output import console, print_json
from pawtune.search.cli.trust_verbs import note_of


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


def score(
    run: RunArgument,
    data: MovedFolder = None,
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
    from pawtune.search.cli.tables.evaluation import headlines, tables
    from pawtune.search.run import open_run

    kind = kind_of(refit, ensemble)
    opened = open_run(run, runs_dir)
    result = opened.test(data, opened.choose(trial, rank, kind))
    if as_json:
        print_json(result.as_dict())
        return
    for line in headlines(result):
        print(line)
    if note := note_of(opened, result.trial_id) if kind == "trial" else None:
        print(note)
    for table in tables(result):
        console().print(table)


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

    Documents, hidden and system files in a folder are passed over. Exit code 0: every file has a
    label; 3: some could not be read; 1: none could.

    Example: pawtune predict best.keras PHOTOS --out labels.csv
    """
    from pawtune.search.errors import UserError
    from pawtune.search.progress.reporter import Reporter
    from pawtune.search.results.delivery.inference import check_paths, count_passed_over
    from pawtune.search.results.delivery.opened import is_model_path, open_delivered
    from pawtune.search.results.delivery.out_files import refuse_existing
    from pawtune.search.results.delivery.predict import (
        choose_format,
        extra_columns,
        predict_labels,
        write_predictions,
    )
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
    with Reporter() as reporter:
        # No bar where the lines themselves show the progress on the same terminal, or in a pipe.
        watched = reporter.console.is_terminal and (out is not None or not sys.stdout.isatty())

        def show(done: int, total: int) -> None:
            reporter.stage("predict", done, total)

        records = predict_labels(opened, images, show if watched else None)
        counts = write_predictions(records, kind, out, extra_columns(opened))
    print(replace(counts, passed_over=count_passed_over(images)), file=sys.stderr)
    if counts.exit_code:
        raise typer.Exit(counts.exit_code)
