"""`pawtune predict`: labels for image files from a delivered model, as lines, CSV or JSON."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.decode import resize
from pawtune.data_pipeline.safe_files import expanded, replacing, shown
from pawtune.data_pipeline.splitting.manifest_io import escape
from pawtune.models.out_of_fold.conformal import label_set
from pawtune.models.words import count
from pawtune.search.errors import UserError
from pawtune.search.results.delivery.inference import check_paths, find_files, predict_files
from pawtune.search.results.delivery.opened import OpenedModel
from pawtune.search.results.delivery.out_files import writing

FORMATS = ("csv", "json")
CSV_COLUMNS = ("path", "label", "confidence", "reason")
NOVELTY = "novelty"  # the column of novelty, where the model keeps what to compare with
SETS = "labels"  # the column of label sets, where they are asked for
REPORTED_EVERY = 16  # files between two moves of the progress bar

Record = dict[str, Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Counts:
    """How many files got a label, could not be read, or are no images and were passed over."""

    labelled: int
    unreadable: int
    passed_over: int = 0

    @property
    def exit_code(self) -> int:
        """0: every file has a label; 3: some could not be read; 1: none could."""
        return 1 if not self.labelled else 3 if self.unreadable else 0

    def __str__(self) -> str:
        total = self.labelled + self.unreadable
        text = f"{count(total, 'file')}: {self.labelled:,} labelled, "
        text += f"{self.unreadable:,} not readable"
        if not self.passed_over:
            return text
        return f"{text}; {self.passed_over:,} passed over (documents, hidden and system files)"


def predict_labels(
    model: OpenedModel, images: Sequence[Path], progress: Progress | None = None
) -> Iterator[Record]:
    """Streams one record a file: `path`, `label`, `confidence`, `probabilities` by class name, and
    `novelty` where the model gives it.

    A file that cannot be read has no label, confidence or probabilities, and a `reason`. Bytes of
    a path that are no UTF-8 are written as in manifest.csv.

    Args:
        model: Model from `open_delivered`.
        images: Files, and folders that are gone through at any depth: documents (by their name),
            hidden and system files there are passed over.
        progress: Called with (files done, files in all).

    Raises:
        DataError: A path does not exist, or a folder holds nothing to label.
    """
    check_paths(images)
    total = sum(1 for _ in find_files(images)) if progress else 0
    files = find_files(images)
    predict = model.predict_novelty or model.predict
    found = predict_files(predict, files, model.image_size, model.decoding)
    for done, item in enumerate(found, start=1):
        record: Record = {"path": escape(item.path), "label": None, "confidence": None}
        if item.probabilities is None:
            record |= {"probabilities": {}, "reason": item.reason}
        else:
            record |= _labelled(model, item.probabilities)
        yield record
        if progress and (done % REPORTED_EVERY == 0 or done == total):
            progress(done, total)


def predict_images(
    model: OpenedModel, images: str | Path | Sequence[str | Path] | NDArray[np.uint8]
) -> list[Record]:
    """The same for Python users, flat: `path`, `label`, `confidence`, `probability.<class>`.

    Args:
        model: Model from `open_delivered`, or of a run.
        images: A file or folder, several of them, or (N, H, W, 3) uint8 pixels.

    Raises:
        DataError: A path does not exist, or pixels have another shape or type.
    """
    if isinstance(images, np.ndarray):
        return _predict_pixels(model, images)
    given: Any = images  # from Python it may be anything
    paths = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    for path in paths:
        if not isinstance(path, str | Path):
            raise DataError(
                f"images must be paths, or an array of pixels, received {path!r:.60}; give files"
            )
    records = predict_labels(model, [expanded(path) for path in paths])
    return [_flat(record) for record in records]


def _predict_pixels(model: OpenedModel, pixels: NDArray[np.uint8]) -> list[Record]:
    sides = pixels.shape[1:3]
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or 0 in sides or pixels.dtype != np.uint8:
        raise DataError(
            "images must be (N, H, W, 3) uint8 pixels, or paths, received an array of shape "
            f"{pixels.shape}, {pixels.dtype}; convert it, or give the files"
        )
    size, predict = model.image_size, model.predict_novelty or model.predict
    records = []
    for image in pixels:
        fitting = resize(image, size, model.decoding.resizing) if size else image
        records.append(_labelled(model, predict(fitting[None])[0]))
    return [_flat(record) for record in records]


def _labelled(model: OpenedModel, row: NDArray[np.float32]) -> Record:
    names = model.class_names
    probabilities = row[: len(names)]
    best = int(np.argmax(probabilities))
    values = (float(p) for p in probabilities)
    record: Record = {
        "label": names[best],
        "confidence": float(probabilities[best]),
        "probabilities": dict(zip(names, values, strict=True)),
    }
    if model.predict_novelty is not None:
        record[NOVELTY] = float(row[-1])
    if model.set_threshold is not None:
        chosen = label_set(probabilities, model.set_threshold)
        record[SETS] = [names[place] for place in chosen]
    return record


def _flat(record: Record) -> Record:
    flat = {name: value for name, value in record.items() if name != "probabilities"}
    return flat | {f"probability.{name}": p for name, p in record["probabilities"].items()}


def choose_format(kind: str | None, out: Path | None) -> str:
    """What to write: as asked for, else as the file's ending says, else lines for people.

    Raises:
        UserError: Neither says csv or json where it must.
    """
    kind = kind or (out.suffix.removeprefix(".") if out is not None else "lines")
    if kind not in (*FORMATS, *(() if out is not None else ("lines",))):
        raise UserError(
            f"--format must be csv or json, received {kind!r}; or give --out a name that ends in "
            ".csv or .json"
        )
    return kind


def write_predictions(
    records: Iterable[Record], kind: str, out: Path | None = None, columns: Sequence[str] = ()
) -> Counts:
    """Writes records as they come: to a file, whole or not at all, or to stdout.

    Args:
        records: Records from `predict_labels`.
        kind: csv, json, or lines for people.
        out: The file; None: stdout.
        columns: Columns beside `CSV_COLUMNS`: `novelty`, `labels` (with | between labels).

    Raises:
        UserError: `out` cannot be written.
    """
    if out is None:
        return _write(records, kind, sys.stdout, columns)
    with (
        writing(out),
        replacing(out) as part,
        part.open("w", encoding="utf-8", newline="") as stream,
    ):
        return _write(records, kind, stream, columns)


def _write(records: Iterable[Record], kind: str, stream: TextIO, columns: Sequence[str]) -> Counts:
    if kind == "json":
        write = _json_writer(stream)
    else:
        write = {"csv": _csv_writer, "lines": _line_writer}[kind](stream, columns)
    labelled = unreadable = 0
    for record in records:
        labelled += record["label"] is not None
        unreadable += record["label"] is None
        write(record)
    if kind == "json":
        stream.write("\n]\n" if labelled + unreadable else "[]\n")
    return Counts(labelled, unreadable)


def _joined_set(record: Record) -> str:
    return "|".join(record.get(SETS, ()))


def _shown_novelty(record: Record) -> str:
    return f"{record[NOVELTY]:.2f}" if NOVELTY in record else ""


_EXTRA = {NOVELTY: _shown_novelty, SETS: _joined_set}


def extra_columns(model: OpenedModel) -> tuple[str, ...]:
    """The columns that a model's records have beside `CSV_COLUMNS`."""
    novelty = (NOVELTY,) if model.predict_novelty is not None else ()
    return (*novelty, SETS) if model.set_threshold is not None else novelty


def _csv_writer(stream: TextIO, columns: Sequence[str]) -> Callable[[Record], object]:
    # Its usual line end, a carriage return and a line feed, has it quote either in a name.
    writer = csv.DictWriter(stream, (*CSV_COLUMNS, *columns), extrasaction="ignore")
    writer.writeheader()
    return lambda record: writer.writerow({**record, SETS: _joined_set(record)})


def _json_writer(stream: TextIO) -> Callable[[Record], object]:
    """An array whose items are written as they come."""
    before = iter(("[\n",))

    def write(record: Record) -> None:
        stream.write(next(before, ",\n") + json.dumps(record, allow_nan=False))

    return write


def _line_writer(stream: TextIO, columns: Sequence[str]) -> Callable[[Record], object]:
    """The columns of CSV with tabs between, names escaped so that each file takes one line."""
    print("\t".join((*CSV_COLUMNS, *columns)), file=stream)

    def write(record: Record) -> None:
        confidence = record["confidence"]
        cells = (
            record["path"],
            record["label"] or "",
            "" if confidence is None else f"{confidence:.4f}",
            record.get("reason", ""),
            *(_EXTRA[name](record) for name in columns),
        )
        print("\t".join(shown(cell) for cell in cells), file=stream)

    return write
