"""Which column of a table names the images, which holds the labels, which the splits.

The files decide which names the images, and usual names the rest. Where two columns would do and
say different things, the table is refused.
"""

from collections.abc import Collection, Mapping, Sequence

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.splitting.folder_checks import listing
from pawtune.data_pipeline.splitting.label_tables.file_index import FileIndex
from pawtune.data_pipeline.splitting.label_tables.table_file import Table
from pawtune.data_pipeline.splitting.split_names import (
    TEST,
    TRAIN,
    VALIDATION,
    resolve_either,
    split_of_name,
)

PATH_COLUMNS = (
    "image", "images", "img", "image_file", "image_id", "image_name", "image_path", "file",
    "file_name", "file_path", "filename", "filepath", "path",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "labels", "class", "class_name", "classname", "category", "target", "breed",
    "species", "diagnosis", "dx", "y",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "phase", "usage", "data_set", "dataset")
# Columns of yes and no, and the split of the rows with yes.
FLAG_COLUMNS = {
    "is_test": TEST, "test": TEST, "is_train": TRAIN, "is_training": TRAIN,
    "is_val": VALIDATION, "is_validation": VALIDATION,
}  # fmt: skip
OTHER_SPLIT_COLUMNS = ("fold", "folds", "kfold", "is_valid")  # the last may be of valid images
FLAGS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
MATCHED_SHARE = 0.5  # of a column's values that name files: it is the column of paths
SEVERAL = "several labels per image are not supported"


def find_path_column(
    table: Table, given: str | None, label_column: str | None, index: FileIndex
) -> str:
    """The column that names the images, another than that of labels, where one was given."""
    if given is not None:
        return _named(table, given, "--path-column")
    files = {name: [index.find(value) for value in table.column(name)] for name in table.columns}
    hits = {name: sum(map(bool, found)) for name, found in files.items()}
    clear = {name: sum(len(hit) == 1 for hit in found) for name, found in files.items()}
    least = MATCHED_SHARE * len(table.rows)
    fit = [name for name in table.columns if hits[name] >= least and name != label_column]
    fit = [name for name in fit if clear[name] >= least] or fit
    _check_header(table, {name: files[name] for name in fit}, index)
    # Numbers of classes name a few files again and again where files are numbers too.
    different = {name: len({path for hit in files[name] for path in hit}) for name in fit}
    many = [name for name in fit if 2 * different[name] > max(different.values())]
    named = [name for name in many if name]
    usual = [name for name in table.columns if _plain(name) in PATH_COLUMNS]
    fit = [name for name in fit if name in usual] or named or ([] if usual else many)
    if not fit:
        best = max(usual or table.columns, key=lambda name: hits[name])
        raise DataError(
            f"{table.name}: one column must name the images, but of {len(table.rows):,} rows "
            f"{best!r} names {hits[best]:,} files ({index.example(table.column(best))}); give it "
            f"with --path-column ({listing(table.columns)}), or the folder that the rows are about "
            "with --data"
        )
    best = max(fit, key=lambda name: clear[name])
    for other in fit:
        for row, (one, two) in enumerate(zip(files[best], files[other], strict=True)):
            if one and two and not set(one) & set(two):
                pair = f"{table.column(best)[row]!r} and {table.column(other)[row]!r}"
                raise DataError(
                    f"{table.name}: one column must name the images, but {best!r} and {other!r} "
                    f"name different files (line {table.lines[row]}: {pair}); give the right one "
                    "with --path-column"
                )
    return best


def _check_header(
    table: Table, files: Mapping[str, Sequence[Sequence[str]]], index: FileIndex
) -> None:
    """The first line must not be a row: a file that no other row of the column names."""
    for name, found in files.items():
        own = set(index.find(name))
        if own and _plain(name) not in PATH_COLUMNS and not any(own & set(hit) for hit in found):
            others = iter(["label", *(f"other{n}" for n in range(1, len(table.columns)))])
            line = ",".join("image" if each == name else next(others) for each in table.columns)
            raise DataError(
                f"{table.name}: the first line must name the columns, but {name!r} is a file; add "
                f"a line above it: {line}"
            )


def find_splits(
    table: Table, path_column: str, label_column: str | None
) -> tuple[str | None, Sequence[str | None], set[str]]:
    """The column of splits, if there is one, the split of each row, and columns that are not used.

    Args:
        path_column: The column that names the images.
        label_column: The column of labels, where it was given.
    """
    taken = (path_column, label_column)
    others = [name for name in table.columns if name not in taken]
    found = {name: splits for name in others if (splits := _splits_of_column(table, name))}
    words = [name for name in found if _plain(name) in SPLIT_COLUMNS][:1]
    chosen = words or list(found)
    if len(chosen) > 1:
        raise DataError(
            f"{table.name}: {' and '.join(map(repr, chosen))} both give splits; put them in one "
            "column named split that holds train, validation and test"
        )
    for name in chosen:
        return name, found[name], set()
    known = (*SPLIT_COLUMNS, *FLAG_COLUMNS, *OTHER_SPLIT_COLUMNS)
    return None, [None] * len(table.rows), {name for name in others if _plain(name) in known}


def _splits_of_column(table: Table, name: str) -> list[str] | None:
    values = table.column(name)
    plain = _plain(name)
    known: dict[str, str | None]
    if plain in SPLIT_COLUMNS:
        known = {value: split_of_name(value) for value in set(values)}
    elif plain in FLAG_COLUMNS:
        yes = FLAG_COLUMNS[plain]
        splits = {True: yes, False: "holdout" if yes == TRAIN else TRAIN, None: None}
        known = {value: splits[FLAGS.get(value.lower())] for value in set(values)}
    else:
        return None
    odd = sorted(value for value, split in known.items() if split is None)
    if not odd:
        resolved = resolve_either({value: split or "" for value, split in known.items()})
        if TRAIN in resolved.values() and len(set(resolved.values())) > 1:
            return [resolved[value] for value in values]
    elif plain == "split" or plain.startswith("is_"):
        expected = "train, validation and test" if plain == "split" else "0 and 1"
        raise DataError(
            f"{table.name}: column {name!r} must hold {expected}, received "
            f"{listing(repr(value) for value in odd)}; rename these, or rename the column"
        )
    return None


def find_label_column(
    table: Table, given: str | None, taken: Collection[str | None], unused: Collection[str]
) -> str:
    """The column that holds the labels: none that is taken, or unused though named as of splits."""
    if given is not None:
        return _named(table, given, "--label-column")
    free = [name for name in table.columns if name not in taken]
    left = [name for name in free if name not in unused]
    usual = [name for name in left if _plain(name) in LABEL_COLUMNS]
    found = usual if len(usual) == 1 else left
    if len(found) == 1:
        return found[0]
    _check_one_hot(table, left)
    raise DataError(
        f"{table.name}: which column holds the labels is not clear; give it with --label-column "
        f"({listing(usual or left or free or table.columns)})"
    )


def _check_one_hot(table: Table, names: Sequence[str]) -> None:
    columns = [[FLAGS.get(value.lower()) for value in table.column(name)] for name in names]
    if not names or any(None in column for column in columns):
        return
    rule = f"{table.name}: one column must hold the labels, but {listing(names)} hold 0 and 1"
    rows = list(zip(*columns, strict=True))
    for line, row in zip(table.lines, rows, strict=True):
        if sum(map(bool, row)) > 1:
            raise DataError(f"{rule}, {sum(map(bool, row))} of them 1 at line {line}: {SEVERAL}")
    for line, row in zip(table.lines, rows, strict=True):
        if True in row:
            raise DataError(
                f"{rule} (one-hot); add a column named label that holds the name of the class: "
                f"{names[row.index(True)]!r} at line {line}"
            )


def _named(table: Table, given: str, option: str) -> str:
    if given not in table.columns:
        raise DataError(
            f"{option} must be a column of {table.name} ({listing(table.columns)}), received "
            f"{given!r}"
        )
    return given


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")
