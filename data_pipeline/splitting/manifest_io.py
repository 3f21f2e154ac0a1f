"""manifest.csv and manifest.json: written atomically, checked when read.

File names are kept as they are, but for bytes that are no UTF-8 (which Python holds as lone
surrogates): byte 0xE9 is written as the six characters \\udce9, and a backslash that would read
as the start of such a group as \\udc5c. Both files are thus valid UTF-8 and give every name back.

Rows are checked a column at a time, by one pattern each; only where a
check fails are they gone through one by one, to name the row and the rule.
"""

import csv
import io
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.safe_files import read_regular, shown, write_atomically

FORMAT = 2  # 1 has no notes, no grey_bits, and given near duplicates never in two splits
MAX_BYTES = 2**30  # some 250 bytes an image
MAX_CLASSES = 100_000


# A line that needs no quotes; names in it are as csv writes them.
PLAIN_LINE = re.compile(r'[^",\r\n]*(?:,[^",\r\n]*){7}')
_HEX = re.compile("[0-9a-f]{64}")
_SIDE = re.compile("[1-9][0-9]{0,8}")
# Of the columns of EntryRow. Paths that climb, start at the root or hold a zero byte are left to
# the careful reading, and so is whatever else is rare.
COLUMN_RULES = (
    re.compile(r"(?!/)(?!.*\.\.)[^\0]+", re.DOTALL),
    re.compile("(?s).+"),
    re.compile("train|validation|test"),
    _HEX,
    re.compile("[0-9a-f]{16}"),
    _HEX,
    _SIDE,
    _SIDE,
)


def escape(path: str) -> str:
    """A file name as it is written; see the module's text."""
    if path.isascii() and "\\udc" not in path:
        return path
    path = re.sub(r"\\(?=udc[0-9a-f]{2})", lambda _: r"\udc5c", path)
    return re.sub("[\udc80-\udcff]", lambda match: f"\\u{ord(match[0]):x}", path)


def unescape(text: str) -> str:
    """The file name that escape() was given."""
    return re.sub(
        r"\\udc([0-9a-f]{2})",
        lambda match: "\\" if match[1] == "5c" else chr(0xDC00 + int(match[1], 16)),
        text,
    )


def _file_name(text: str) -> str:
    """A written path as the file system takes it."""
    path = unescape(text)
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise ValueError(f"no file can have the name {text!r}") from None
    if "\0" in path:
        raise ValueError(f"a path must hold no zero byte, got {text!r}")
    return path


def _inside_root(text: str) -> str:
    path = _file_name(text)
    parts = PurePosixPath(path).parts
    if not parts or parts[0].startswith("/") or ".." in parts:
        raise ValueError(f"a path must stay below the root, got {text!r}")
    return path


def _printable(text: str) -> str:
    """A class name: it is drawn, printed and put into pages, and folders keep to the same rule."""
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        raise ValueError(f"a class name must be printable, got {text!r}")
    return text


EscapedPath = Annotated[str, AfterValidator(_inside_root)]
ClassName = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_printable)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class EntryRow(BaseModel):
    """A row of manifest.csv, as read; the fields of ManifestEntry."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: EscapedPath
    label: str
    split: Literal["train", "validation", "test"]
    sha256: Sha256
    perceptual_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    group: Sha256
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]


class RejectRow(BaseModel):
    """An item of `rejects` in manifest.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Annotated[str, AfterValidator(_file_name)]
    reason: str


class Header(BaseModel):
    """manifest.json, as read; the fields of Manifest but for its entries."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal[1, 2]
    root: Annotated[str, AfterValidator(_file_name)]
    class_names: Annotated[list[ClassName], Field(min_length=2, max_length=MAX_CLASSES)]
    rejects: list[RejectRow]
    warnings: list[str]
    seed: int
    layout: Literal["classes", "train_validation", "train_validation_test", "train_test"]
    fingerprint: Sha256
    notes: list[str] = []
    grey_bits: Literal[8, 10, 12, 14, 16] = 16


Row = tuple[str, str, str, str, str, str, int, int]
"""The values of an EntryRow, in its order."""


def save(folder: Path, rows: Iterable[Row], header: Mapping[str, Any]) -> None:
    """Writes both files, each atomically; the folder is made."""
    lines = [",".join(EntryRow.model_fields) + "\n"]
    for path, *rest in rows:
        line = ",".join((escape(path), *map(str, rest)))
        if PLAIN_LINE.fullmatch(line):
            lines.append(line + "\n")
        else:
            lines.append(_csv_line((escape(path), *rest)))
    rejects = [{**reject, "path": escape(reject["path"])} for reject in header["rejects"]]
    content = {"format": FORMAT, **header, "root": escape(header["root"]), "rejects": rejects}
    write_atomically(folder / "manifest.csv", "".join(lines))
    write_atomically(
        folder / "manifest.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    )


def _csv_line(row: Sequence[Any]) -> str:
    """One line of CSV. A lone carriage return must be quoted: readers take it for a line's end.

    Python's writer quotes what its own line end consists of, so that must hold one; it is dropped
    here, as ours is a line feed.
    """
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\r\n").writerow(row)
    return line.getvalue().removesuffix("\r\n") + "\n"


def load(folder: Path) -> tuple[list[Row], Header]:
    """Reads both files and checks every value by itself and against the class names.

    Raises:
        DataError: a file is missing or a value is not as save() writes it.
    """
    try:
        header = Header.model_validate_json(_read(folder / "manifest.json"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = shown(f"{folder / 'manifest.json'}: {where}: {first['msg']}")
        raise DataError(reason) from error
    rows = _read_rows(folder / "manifest.csv")
    known = set(header.class_names)
    for row in rows:
        if row[1] not in known:
            raise DataError(
                f"{shown(folder / 'manifest.csv')}: label {row[1]!r} of {shown(row[0])} is "
                f"not among the class names {', '.join(header.class_names[:20])}"
            )
    return rows, header


def _read(path: Path) -> str:
    try:
        return read_regular(path, MAX_BYTES, follow_links=False).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{shown(path)}: the manifest cannot be read: {reason}") from error


def _read_rows(path: Path) -> list[Row]:
    text = _read(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header, *rows = reader
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(COLUMN_RULES)
        if tuple(header) == tuple(EntryRow.model_fields) and _are_sound(columns):
            paths = [_inside_root(path) if "\\udc" in path else path for path in columns[0]]
            widths, heights = map(int, columns[6]), map(int, columns[7])
            return list(zip(paths, *columns[1:6], widths, heights, strict=True))
    except (csv.Error, ValueError):
        pass  # the careful reading says what is wrong, and where
    return _read_rows_carefully(path, text)


def _are_sound(columns: Sequence[Sequence[str]]) -> bool:
    """Whether all values are as save() writes them, but for what only careful reading tells."""
    return len(columns) == len(COLUMN_RULES) and all(
        all(map(rule.fullmatch, column)) for rule, column in zip(COLUMN_RULES, columns, strict=True)
    )


def _read_rows_carefully(path: Path, text: str) -> list[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    columns = tuple(EntryRow.model_fields)
    rows: list[Row] = []
    try:
        if tuple(reader.fieldnames or ()) != columns:
            found = ", ".join(reader.fieldnames or ()) or "none"
            raise DataError(
                f"{shown(path)}: the columns must be {', '.join(columns)}; got {shown(found)[:200]}"
            )
        for given in reader:
            row = EntryRow.model_validate(given)
            rows.append(tuple(dict(row).values()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = f"{path} line {reader.line_num}: {where}: {first['msg']}"
        raise DataError(shown(reason)) from error
    except csv.Error as error:
        raise DataError(shown(f"{path} line {reader.line_num}: {error}")) from error
    return rows
