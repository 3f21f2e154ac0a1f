"""The verbs that follow a search: confirm, refit, ensemble, audit, advise, reproduce."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pawtune.search.cli.options import (
    Json,
    MovedData,
    Quiet,
    Rank,
    RetrainingAddress,
    RunArgument,
    RunsDir,
    Trial,
)
from pawtune.search.cli.output import console, print_json, shortest

if TYPE_CHECKING:
    from pawtune.search.run import Run


def note_of(run: "Run", trial_id: str) -> str | None:
    """A warning where `confirm` found another trial better; None: nothing speaks against it."""
    from pawtune.search.config.search_config import NAME_RULE
    from pawtune.search.storage.run_folder import read_json

    file = run.folder.confirm_dir / "confirm.json"
    found = read_json(file) if file.exists() else {}
    suggested = str(found.get("suggested", trial_id))
    if suggested == trial_id or not NAME_RULE.fullmatch(suggested):
        return None
    return (
        f"note: with other seeds, trial {suggested} came out ahead of the leaderboard's "
        f"best by more than luck; see `pawtune confirm {shortest(run)}`"
    )


def confirm(
    run: RunArgument,
    top: Annotated[int, typer.Option(min=1, help="How many of the best trials.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="How many other seeds each.")] = 3,
    data: MovedData = None,
    address: RetrainingAddress = None,
    quiet: Quiet = False,
    runs_dir: RunsDir = "runs",
    as_json: Json = False,
) -> None:
    """Train the best trials again with other seeds: how much of their lead was luck.

    What is finished is kept in the run folder and not repeated: after Ctrl-C the same command
    continues.

    Example: pawtune confirm pets --top 3 --seeds 3
    """
    from pawtune.search.cli.tables.trust import confirmation_lines, confirmation_table
    from pawtune.search.progress.reporter import Reporter
    from pawtune.search.run import open_run

    opened = open_run(run, runs_dir)
    try:
        with Reporter(quiet=quiet) as reporter:
            result = opened.confirm(top, seeds, data=data, address=address, reporter=reporter)
    except KeyboardInterrupt:
        print("interrupted; finished epochs are kept, the same command continues", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        print_json(result.as_dict())
        return
    console().print(confirmation_table(result))
    for line in confirmation_lines(result):
        print(line)
    option = "" if result.suggested == result.trials[0].trial_id else f"--trial {result.suggested}"
    _next(opened, "test", option, note="score it once on the test split")
    _next(opened, "refit", option, note="train it on the validation images too")


def refit(
    run: RunArgument,
    trial: Trial = None,
    rank: Rank = None,
    data: MovedData = None,
    address: RetrainingAddress = None,
    quiet: Quiet = False,
    runs_dir: RunsDir = "runs",
    as_json: Json = False,
) -> None:
    """Train the best trial on training and validation images, for its best number of epochs.

    No validation image is left to choose an epoch or to score it: only the test split can.

    Example: pawtune refit pets
    """
    from pawtune.search.cli.tables.trust import refit_lines
    from pawtune.search.progress.reporter import Reporter
    from pawtune.search.run import open_run

    opened = open_run(run, runs_dir)
    with Reporter(quiet=quiet) as reporter:
        choice = opened.choose(trial, rank)
        result = opened.refit(choice, data=data, address=address, reporter=reporter)
    if as_json:
        print_json(result.as_dict())
        return
    for line in refit_lines(result):
        print(line)
    option = f"--refit --trial {result.trial_id}" if trial or (rank or 1) > 1 else "--refit"
    _next(opened, "test", option, note="score it once on the test split")
    _next(opened, "best", f"{option} --out best.keras", note="one complete Keras model")


def ensemble(
    run: RunArgument,
    top: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="How many of the best trials vote; by default 3. With --soup: how many may be "
            "averaged; by default all that can.",
        ),
    ] = None,
    soup: Annotated[
        bool,
        typer.Option("--soup", help="Average the weights of trials instead: a greedy soup."),
    ] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Keep it even if it does not win.")] = (
        False
    ),
    data: MovedData = None,
    runs_dir: RunsDir = "runs",
    as_json: Json = False,
) -> None:
    """Let the best trials vote, or average their weights; keep that if it wins on validation.

    It wins if its log loss on the validation images is lower than the best trial's and a paired
    t test gives p below 0.05, or if McNemar's test does for right answers. Nothing is trained. A
    vote costs as much as its trials together, a weight average no more than one of them: linear
    heads on the same features, or tops fine-tuned from the same cut; the validation images decide
    who is in it.

    Example: pawtune ensemble pets --soup
    """
    from pawtune.search.cli.tables.trust import ensemble_lines, ensemble_table
    from pawtune.search.progress.reporter import Reporter
    from pawtune.search.run import open_run

    opened = open_run(run, runs_dir)
    with Reporter() as reporter:
        found = opened.ensemble(top, anyway, soup=soup, data=data, reporter=reporter)
    if as_json:
        print_json(found.as_dict())
        return
    console().print(ensemble_table(found))
    for line in ensemble_lines(found):
        print(line)
    if found.kept:
        _next(opened, "test", "--ensemble", note="score it once on the test split")
        _next(opened, "best", "--ensemble --out best.keras", note="one complete Keras model")
    else:
        _next(opened, "test", note="score the best trial once on the test split")
        _next(opened, "confirm", note="train the best trials again with other seeds")


def reproduce(
    run: RunArgument,
    trial: Trial = None,
    rank: Rank = None,
    data: MovedData = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Allowed difference of a metric; default: 0, or 0.05 where the machine or a "
            "version differs.",
        ),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster; default: this machine.")
    ] = None,
    quiet: Quiet = False,
    runs_dir: RunsDir = "runs",
    as_json: Json = False,
) -> None:
    """Train a trial again from its run folder and compare every epoch; exit code 1 if it differs.

    Example: pawtune reproduce pets --trial 0007
    """
    from pawtune.search.cli.tables.trust import reproduction_lines, reproduction_table
    from pawtune.search.progress.reporter import Reporter
    from pawtune.search.run import open_run

    opened = open_run(run, runs_dir)
    with Reporter(quiet=quiet) as reporter:
        result = opened.reproduce(
            opened.choose(trial, rank),
            data=data,
            address=address,
            tolerance=tolerance,
            reporter=reporter,
        )
    if as_json:
        print_json(result.as_dict())
    else:
        console().print(reproduction_table(result))
        for line in reproduction_lines(result):
            print(line)
        if result.matches:
            _next(opened, "test", note="score the best trial once on the test split")
            _next(opened, "best", "--out best.keras", note="one complete Keras model")
        else:
            option = f"--trial {result.trial_id} --tolerance 0.01"
            _next(opened, "show", result.trial_id, note="what was recorded, and on which machine")
            _next(opened, "reproduce", option, note="allow for rounding")
    if not result.matches:
        raise typer.Exit(1)


def audit(
    run: RunArgument,
    retrain: Annotated[
        bool,
        typer.Option(
            "--retrain",
            help="Predict by the best trial, trained five times without a fifth of the images; "
            "default: by a ridge head, which takes seconds.",
        ),
    ] = False,
    test: Annotated[
        bool,
        typer.Option("--test", help="Labels of the test split too: a look at it, on record."),
    ] = False,
    data: MovedData = None,
    top: Annotated[int, typer.Option(min=0, help="Lines of each kind to print.")] = 5,
    address: RetrainingAddress = None,
    quiet: Quiet = False,
    runs_dir: RunsDir = "runs",
    as_json: Json = False,
) -> None:
    """Find wrong labels, copies across splits and outliers; write a page to decide on each.

    Each training and validation image is predicted by a head that was solved without it. Test
    images are touched only with --test.

    Example: pawtune audit pets
    """
    from pawtune.search.progress.reporter import Reporter
    from pawtune.search.run import open_run

    opened = open_run(run, runs_dir)
    with Reporter(quiet=quiet) as reporter:
        found, page = opened.audit(
            retrain=retrain, test=test, data=data, address=address, reporter=reporter
        )
    if as_json:
        print_json({"page": str(page), **found.as_dict()})
        return
    print(
        f"{found.images:,} training and validation images; {found.accuracy:.1%} of their labels "
        f"agree with predictions of each by {found.method}"
    )
    if found.look is not None:
        print(
            f"{found.test_images:,} test images, predicted by the best trial; this was look "
            f"{found.look} at the test split"
        )
    print(f"labels that are probably wrong: {len(found.labels)}")
    for issue in found.labels[:top]:
        print(
            f"  {issue.path} ({issue.split}): {issue.label}, rather {issue.suggested} "
            f"({issue.probability:.0%})"
        )
    if found.backbone is None:
        print("copies and outliers need a frozen backbone, which this run does not have")
    crossing = sum(copy.crosses for copy in found.copies)
    print(
        f"pairs so alike that they may be copies: {len(found.copies)}, {crossing} of them across "
        "splits"
    )
    for copy in found.copies[:top]:
        print(f"  {copy.path} ({copy.split}) and {copy.other_path} ({copy.other_split})")
    print(f"images like no other: {len(found.outliers)}")
    for outlier in found.outliers[:top]:
        print(f"  {outlier.path} ({outlier.label})")
    print(f"decide on each in {page}, save relabel.csv there, then search again:")
    place = shortest(opened)
    print(f"  pawtune run --config {place}/search.yaml --name NEW --relabel relabel.csv")


def advise(
    run: RunArgument,
    data: MovedData = None,
    top: Annotated[int, typer.Option(min=0, help="Classes to print.")] = 5,
    quiet: Quiet = False,
    runs_dir: RunsDir = "runs",
    as_json: Json = False,
) -> None:
    """Say what more images would bring, and for which classes they are most needed.

    Heads are solved on 10% to 80% of the training and validation images and scored on others; a
    power law is fitted to their errors. Test images are not touched.

    Example: pawtune advise pets
    """
    from pawtune.search.progress.reporter import Reporter
    from pawtune.search.run import open_run

    opened = open_run(run, runs_dir)
    with Reporter(quiet=quiet) as reporter:
        found = opened.advise(data=data, reporter=reporter)
    if as_json:
        print_json(found.as_dict())
        return
    print(f"a linear head on {found.backbone}, {found.images:,} images so far:")
    for images, accuracy in found.measured:
        print(f"  {images:>8,} images  {accuracy:.1%}  measured")
    for each in found.forecasts:
        low, high = each.band
        print(f"  {each.images:>8,} images  {each.accuracy:.1%}  90% band {low:.1%} to {high:.1%}")
    print("images are most needed for the classes of lowest recall:")
    for need in found.classes[:top]:
        print(f"  {need.name}: recall {need.recall:.1%}, {need.images:,} images")


def _next(run: "Run", verb: str, options: str = "", *, note: str) -> None:
    """Prints a command to type next, with this run's name."""
    command = " ".join(filter(None, ["pawtune", verb, shortest(run), options]))
    print(f"  {command:<44}  # {note}")
