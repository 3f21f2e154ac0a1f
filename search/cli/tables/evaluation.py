"""A look at the test split in words and tables, for a terminal."""

from collections.abc import Iterator, Sequence

from rich.markup import escape
from rich.table import Table

from pawtune.models.words import count
from pawtune.search.results.evaluation import TestResult
from pawtune.search.results.metrics import LEARNED_NOTHING

LISTED = 20  # mistakes on a terminal; `--json` has all
SQUARE = 5  # classes whose confusion has a column each: as many as fit 80 characters
CONFUSED = 3  # of more classes each is listed with those that it was most often taken for


def headlines(result: TestResult) -> Iterator[str]:
    """The figures that matter, a line each."""
    low, high = result.interval_95
    scored = f"trial {result.trial_id}"
    if result.model != "trial":
        scored = f"{result.title} ({result.trial_id})"
    yield (
        f"test accuracy {result.accuracy:.4f} ({result.correct} of {result.n}), "
        f"95% interval {low:.4f} to {high:.4f}, {scored}"
    )
    if result.majority is not None:
        nothing = result.majority.is_all_of(result.accuracy)
        yield f"{result.majority}" + (f"; {LEARNED_NOTHING}" if nothing else "")
    before = result.calibration_error_before
    uncalibrated = "" if before is None else f", {before:.4f} before calibration"
    yield f"expected calibration error {result.calibration_error:.4f}{uncalibrated}"
    if result.baseline is not None and result.comparison is not None:
        yield (
            f"{result.baseline.kind} {result.baseline.name}: {result.baseline.accuracy:.4f} on the "
            "same images"
        )
        paired = result.comparison
        against = "baseline" if result.baseline.kind == "best baseline" else "first trial"
        yield (
            f"only the {result.model} is right on {count(paired.only_first, 'image')}, only "
            f"the {against} on {paired.only_second}: exact McNemar p = {paired.p_value:.4g}"
        )
    if result.looks > 1:
        yield (
            f"this is look {result.looks} at this test split: a figure chosen after several "
            "looks is no longer an honest test"
        )


def tables(result: TestResult) -> Iterator[Table]:
    """Classes with their confusion, then the mistakes."""
    classes = Table(title="classes", title_justify="left", header_style="bold")
    names = [_plain(name) for name in result.class_names]
    square = len(names) <= SQUARE
    classes.add_column("class", overflow="fold")
    for column in ("images", "precision", "recall", "F1"):
        classes.add_column(column, justify="right")
    for column in [f"→ {name}" for name in names] if square else ["taken for"]:
        classes.add_column(column, justify="right" if square else "left", overflow="fold")
    for place, (score, counts) in enumerate(zip(result.classes, result.confusion, strict=True)):
        shares = [_share(value) for value in (score.precision, score.recall, score.f1)]
        cells = [str(number) for number in counts] if square else [_taken_for(place, counts, names)]
        classes.add_row(names[place], str(score.images), *shares, *cells)
    yield classes
    if result.mistakes:
        yield _mistakes(result)


def _taken_for(place: int, counts: Sequence[int], names: Sequence[str]) -> str:
    """The classes that images of one are most often taken for: `cat 3, dog 1`."""
    others = [other for other in range(len(names)) if other != place and counts[other]]
    others.sort(key=lambda other: -counts[other])
    listed = [f"{names[other]} {counts[other]}" for other in others[:CONFUSED]]
    return ", ".join(listed) + (" …" if len(others) > CONFUSED else "")


def _mistakes(result: TestResult) -> Table:
    listed = result.mistakes[:LISTED]
    more = len(result.mistakes) - len(listed)
    title = f"mistakes: {len(result.mistakes)}" + (f", {len(listed)} shown" if more else "")
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in ("file", "label", "predicted", "probability"):
        table.add_column(column, overflow="fold")
    for mistake in listed:
        names = [_plain(name) for name in (mistake.path, mistake.label, mistake.predicted)]
        table.add_row(*names, f"{mistake.probability:.4f}")
    return table


def _plain(name: str) -> str:
    """A name that a terminal can show, whatever is in it."""
    return escape(name if name.isprintable() else repr(name))


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
