"""Labels from a table: a CSV with a row for each image, beside a folder of images.

The first line names the columns. Which column names the images is seen from the files; which holds
the labels, and whether one holds splits, from the usual names, unless it is said. A value names an
image by its path below the folder, by its file name, or by either without the extension, as in
`id,breed`. Rows and files without a counterpart are listed.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.safe_files import shown
from pawtune.data_pipeline.splitting.folder_checks import class_name, describe_alike, listing
from pawtune.data_pipeline.splitting.folder_layout import (
    Candidate,
    Layout,
    Reject,
    layout_name,
)
from pawtune.data_pipeline.splitting.folder_tree import Found, read_tree
from pawtune.data_pipeline.splitting.label_tables.file_index import FileIndex
from pawtune.data_pipeline.splitting.label_tables.table_columns import (
    SEVERAL,
    find_label_column,
    find_path_column,
    find_splits,
)
from pawtune.data_pipeline.splitting.label_tables.table_file import Table, read_table

NO_FILE = "row at line"
# How programs write a missing value; in lower case, none and na may be classes.
MISSING = ("<NA>", "N/A", "NA", "NULL", "NaN", "None", "nan", "null")
WHOLE_NUMBER = re.compile(r"(-?)0*([0-9]+)(?:\.0*)?")
SEPARATORS = "|,;/+& "


@dataclass(frozen=True)
class LabelFile:
    """Where labels come from.

    file: here, or below the images' folder. Columns: as the first line names them; None: found out.
    """

    file: Path
    label_column: str | None = None
    path_column: str | None = None


def read_labels(root: Path, labels: LabelFile) -> Layout:
    """The layout that a table gives a folder.

    Raises:
        DataError: the table cannot be read, it is unclear which columns are which, none of its rows
            names a file, a split has an unknown name, a label is several.
    """
    if not root.is_dir():
        raise DataError(f"{shown(root)}: --labels goes with a folder of images, and it is none")
    everything = list(read_tree(root).all_found())
    files = {item.path: item for item in everything if item.fault is None}
    index = FileIndex(files)
    below = root / labels.file
    table = read_table(below if below.exists() and not labels.file.exists() else labels.file)
    path_column = find_path_column(table, labels.path_column, labels.label_column, index)
    split_column, splits, unused = find_splits(table, path_column, labels.label_column)
    taken = {path_column, split_column}
    label_column = find_label_column(table, labels.label_column, taken, unused)
    candidates, rejects = _match(table, path_column, label_column, splits, index, files)
    if not candidates:
        for reject in rejects:
            if not reject.reason.startswith(NO_FILE):
                raise DataError(
                    f"{table.name}: no row has a usable label in column {label_column!r} "
                    f"({shown(reject.path)}: {reject.reason}); give another with --label-column "
                    f"({listing(table.columns)})"
                )
        raise DataError(
            f"{table.name}: no row names a file of {shown(root)} in column {path_column!r} "
            f"({index.example(table.column(path_column))}); give the folder that the rows are "
            "about, or --path-column"
        )
    _check_labels(table, candidates)
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
        (
            note,
            *(
                f"column {name!r} is not used, new splits are made: to give them, add a column "
                "named split that holds train, validation and test"
                for name in sorted(unused)
            ),
            *_describe_missing(table.column(label_column)),
            *describe_alike(names),
        ),
    )


def _check_labels(table: Table, candidates: Sequence[Candidate]) -> None:
    """One class must not be written in two ways, nor a label be several."""
    examples = {found.label: found.path for found in reversed(candidates)}
    numbers: dict[tuple[str, ...], str] = {}
    for label in sorted(examples):
        number = WHOLE_NUMBER.fullmatch(label)
        other = numbers.setdefault(number.groups(), label) if number else label
        if other != label:
            raise DataError(
                f"{table.name}: labels {other!r} and {label!r} are one number written in two ways; "
                "write it in one way, or with a letter before it if they are two classes"
            )
        for separator in SEPARATORS:
            parts = {part.strip() for part in label.split(separator)}
            if len(parts) > 1 and parts <= examples.keys():
                raise DataError(
                    f"{table.name}: every image must have one label, but {shown(examples[label])} "
                    f"has {label!r}, whose parts are labels too: {SEVERAL}; keep one, or join the "
                    "words with _ if it is one class"
                )


def _describe_missing(labels: Sequence[str]) -> list[str]:
    words = Counter(label for label in labels if label in MISSING)
    if not words:
        return []
    return [
        f"without a label: {words.total():,} rows with {', '.join(map(repr, sorted(words)))}; if "
        "one of these is a class, give it another name"
    ]


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
        elif not label or label in MISSING or odd or len(label) > 255:
            rejects.append(
                Reject(path, f"no usable label at line {line} of {table.name}: {label!r}")
            )
        else:
            item = files[path]
            candidates.append(Candidate(path, label, split, item.size, item.modified_ns))
    return candidates, rejects
