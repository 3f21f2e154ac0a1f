"""Labels from a table: a CSV with a row for each image, beside a folder of images.

The first line names the columns. Which column names the images is seen from the files; which holds
the labels, and whether one holds splits, from the usual names, unless it is said. A value names an
image by its path below the folder, by its file name, or by either without the extension, as in
`id,breed`. Rows and files without a counterpart are listed.
"""

import csv
import io
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.safe_files import read_regular, shown
from pawtune.data_pipeline.splitting.folder_checks import class_name, listing
from pawtune.data_pipeline.splitting.folder_layout import (
    Candidate,
    Layout,
    Reject,
    layout_name,
)
from pawtune.data_pipeline.splitting.folder_tree import (
    Found,
    may_be_image,
    read_tree,
)
from pawtune.data_pipeline.splitting.split_names import (
    TRAIN,
    resolve_either,
    split_of_name,
)

MAX_TABLE_BYTES = 2**30
LABEL_COLUMNS = (
    "label", "labels", "class", "class_name", "classname", "category", "target", "breed",
    "species", "diagnosis", "dx", "y",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "phase", "usage", "data set", "dataset")
MATCHED_SHARE = 0.5  # of a column's values that name files: it is the column of paths
NO_FILE = "row at line"


@dataclass(frozen=True)
class LabelFile:
    """Where labels come from.

    file: here, or below the images' folder. Columns: as the first line names them; None: found out.
    """

    file: Path
    label_column: str | None = None
    path_column: str | None = None


@dataclass(frozen=True)
class Table:
    """A table as read. lines: of each row in the file, from 2."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

    def column(self, name: str) -> list[str]:
        """All values of a column, without surrounding blanks."""
        index = self.columns.index(name)
        return [row[index].strip() for row in self.rows]


class FileIndex:
    """Finds files by what a table calls them."""

    def __init__(self, found: Iterable[Found]) -> None:
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for item in found:
            path = PurePosixPath(_plain(item.path))
            names = {str(path), path.name, str(path.with_suffix("")), path.stem}
            for name in names:
                self._by_name[name].append(item.path)

    def find(self, value: str) -> list[str]:
        """The files that a value may mean: none, one, or several of one name."""
        path = PurePosixPath(_plain(value.replace("\\", "/")))
        parts = [part for part in path.parts if part not in ("/", ".", "..")]
        for start in range(len(parts)):  # a table may have been written one folder further up
            hits = self._by_name.get("/".join(parts[start:]), [])
            if hits:
                return hits
        return []


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def read_labels(root: Path, labels: LabelFile) -> Layout:
    """The layout that a table gives a folder.

    Raises:
        DataError: the table cannot be read, it is unclear which columns are which, none of its rows
            names a file, a split has an unknown name.
    """
    if not root.is_dir():
        raise DataError(f"{shown(root)}: --labels goes with a folder of images, and it is none")
    everything = list(read_tree(root).all_found())
    files = {item.path: item for item in everything if item.fault is None}
    index = FileIndex(files.values())
    below = root / labels.file
    table = read_table(below if below.exists() and not labels.file.exists() else labels.file)
    path_column = _path_column(table, labels.path_column, index)
    split_column, splits = _splits(table, path_column)
    label_column = _label_column(table, labels.label_column, {path_column, split_column})
    candidates, rejects = _match(table, path_column, label_column, splits, index, files)
    if not candidates:
        value = next(iter(table.column(path_column)), "")
        example = next((path for path in files if may_be_image(path)), "no image")
        raise DataError(
            f"{table.name}: no row names a file of {shown(root)} (column {path_column!r} has for "
            f"example {value!r}, the folder {shown(example)!r}); give the folder that the rows are "
            "about, or --path-column"
        )
    named = {found.path for found in candidates} | {reject.path for reject in rejects}
    rejects += [
        Reject(item.path, item.fault or f"not in {table.name}")
        for item in everything
        if item.path not in named
    ]
    unmatched = [reject for reject in rejects if reject.reason.startswith(NO_FILE)]
    names = tuple(sorted({found.label for found in candidates}))
    if len(names) < 2:
        raise DataError(
            f"{table.name}: at least 2 labels are needed, and column {label_column!r} has only "
            f"{names[0]!r}; give another with --label-column ({listing(table.columns)})"
        )
    note = (
        f"labels from {table.name}: images in column {path_column!r}, labels in "
        f"{label_column!r}{f', splits in {split_column!r}' if split_column else ''}; "
        f"{len(candidates):,} of {len(table.rows):,} rows are used"
        f"{f', {len(unmatched):,} name no file' if unmatched else ''}"
    )
    return Layout(
        layout_name(found.split for found in candidates),
        names,
        tuple(candidates),
        tuple(rejects),
        (note,),
    )


def read_table(path: Path) -> Table:
    """Reads a table, its separator seen from the first line.

    Raises:
        DataError: it cannot be read, or a row has more or fewer values than there are columns.
    """
    name = shown(path.name)
    try:
        text = read_regular(path, MAX_TABLE_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it must be UTF-8 text"
        raise DataError(
            f"--labels must name a CSV file, received {shown(path)}: {reason}"
        ) from error
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows, lines = [], []
    try:
        columns = tuple(word.strip() for word in next(reader, []))
        for row in reader:
            if not any(row):
                continue
            if len(row) != len(columns):
                raise DataError(
                    f"{name} line {reader.line_num}: every row must have {len(columns)} values as "
                    f"the first line, received {len(row)}"
                )
            rows.append(tuple(row))
            lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{name} line {reader.line_num}: {shown(str(error))}") from error
    if len(columns) < 2 or len(set(columns)) < len(columns) or not rows:
        raise DataError(
            f"{name}: the first line must name two or more columns, each once, and rows must "
            f"follow; received {shown(first[:80])!r} and {len(rows)} rows"
        )
    return Table(name, columns, tuple(rows), tuple(lines))


def _named(table: Table, given: str, option: str) -> str:
    if given not in table.columns:
        raise DataError(
            f"{option} must be a column of {table.name} ({listing(table.columns)}), received "
            f"{given!r}"
        )
    return given


def _path_column(table: Table, given: str | None, index: FileIndex) -> str:
    if given is not None:
        return _named(table, given, "--path-column")
    hits = {
        name: sum(bool(index.find(value)) for value in table.column(name)) for name in table.columns
    }
    best = max(table.columns, key=lambda name: hits[name])
    if hits[best] < MATCHED_SHARE * len(table.rows):
        raise DataError(
            f"{table.name}: one column must name the images, but of {len(table.rows):,} rows "
            f"{best!r} names {hits[best]:,} files; give it with --path-column "
            f"({listing(table.columns)}), or the folder that the rows are about with --data"
        )
    return best


def _label_column(table: Table, given: str | None, taken: set[str | None]) -> str:
    if given is not None:
        return _named(table, given, "--label-column")
    left = [name for name in table.columns if name not in taken]
    usual = [name for name in left if name.lower().replace("-", "_") in LABEL_COLUMNS]
    found = usual if len(usual) == 1 else left
    if len(found) == 1:
        return found[0]
    raise DataError(
        f"{table.name}: which column holds the labels is not clear; give it with --label-column "
        f"({listing(usual or left)})"
    )


def _splits(table: Table, path_column: str) -> tuple[str | None, Sequence[str | None]]:
    """The column of splits, if there is one, and the split of each row."""
    usual = [c for c in table.columns if c.lower() in SPLIT_COLUMNS and c != path_column]
    for column in usual:
        values = table.column(column)
        known = {value: split_of_name(value) for value in set(values)}
        if all(known.values()):
            resolved = resolve_either({value: split or "" for value, split in known.items()})
            if TRAIN in resolved.values() and len(set(resolved.values())) > 1:
                return column, [resolved[value] for value in values]
        elif column.lower() == "split":
            odd = sorted(value for value, split in known.items() if split is None)
            raise DataError(
                f"{table.name}: column {column!r} must hold train, validation and test, received "
                f"{listing(repr(value) for value in odd)}; rename these, or rename the column"
            )
    return None, [None] * len(table.rows)


def _match(
    table: Table,
    path_column: str,
    label_column: str,
    splits: Sequence[str | None],
    index: FileIndex,
    files: Mapping[str, Found],
) -> tuple[list[Candidate], list[Reject]]:
    """Files with their labels, and what has no counterpart."""
    rejects: list[Reject] = []
    said: dict[str, list[tuple[str, str | None, int]]] = defaultdict(list)
    rows: Iterator[tuple[str, str, str | None, int]] = zip(
        table.column(path_column), table.column(label_column), splits, table.lines, strict=True
    )
    for value, label, split, line in rows:
        hits = index.find(value)
        if len(hits) == 1:
            said[hits[0]].append((class_name(label), split, line))
        else:
            fault = f"{len(hits)} files have this name: give paths" if hits else "no such file"
            rejects.append(
                Reject(value or "(empty)", f"row at line {line} of {table.name}: {fault}")
            )
    candidates = []
    for path, given in said.items():
        label, split, line = given[0]
        odd = any(unicodedata.category(letter) in ("Cc", "Cs") for letter in label)
        if len({(each[0], each[1]) for each in given}) > 1:
            reason = listing(repr(each[0]) for each in given)
            rejects.append(Reject(path, f"several rows of {table.name}: {reason}"))
        elif not label or odd or len(label) > 255:
            rejects.append(
                Reject(path, f"no usable label at line {line} of {table.name}: {label!r}")
            )
        else:
            item = files[path]
            candidates.append(Candidate(path, label, split, item.size, item.modified_ns))
    return candidates, rejects
