"""`pawtune predict`: labels as a stream, with a progress bar on a terminal."""

import sys
from collections.abc import Sequence
from pathlib import Path

from pawtune.search.progress.reporter import Reporter
from pawtune.search.results.delivery.opened import OpenedModel
from pawtune.search.results.delivery.predict import (
    Counts,
    extra_columns,
    predict_labels,
    write_predictions,
)


def predict(
    model: OpenedModel, images: Sequence[Path], kind: str, out: Path | None = None
) -> Counts:
    """Labels files as `pawtune predict` does, with a progress bar on a terminal.

    Args:
        model: A delivered model, or one of a run.
        images: Files, and folders that are gone through at any depth.
        kind: csv, json, or lines for people.
        out: The file to write; None: stdout.

    Raises:
        UserError, DataError: As `predict_labels` and `write_predictions`.
    """
    reporter = Reporter()
    # No bar where the lines themselves show the progress on the same terminal, or in a pipe.
    watched = reporter.console.is_terminal and (out is not None or not sys.stdout.isatty())

    def show(done: int, total: int) -> None:
        reporter.stage("predict", done, total)

    try:
        records = predict_labels(model, images, show if watched else None)
        return write_predictions(records, kind, out, extra_columns(model))
    finally:
        reporter.close()
