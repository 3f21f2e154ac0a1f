"""manifest.csv and manifest.json: written atomically, checked when read.

File names are kept as they are, but for bytes that are no UTF-8 (which Python holds as lone
surrogates): byte 0xE9 is written as the six characters \\udce9, and a backslash that would read
as the start of such a group as \\udc5c. Both files are thus valid UTF-8 and give every name back.

A file without quotes, which is nearly every one, is taken apart by its commas and line ends at
once, and checked a column at a time; only where a check fails are rows gone through one by one, to
name the row and the rule.

What `status` and `leaderboard` need, the sizes of the splits and the validation labels, stands
apart, so that they do not read a row for each image.
"""

import csv
import io
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.decode import Resizing
from pawtune.data_pipeline.safe_files import read_regular, replacing, shown, write_atomically

FORMAT = 2  # 1 has no notes, grey_bits and resizing, and given near duplicates never in two splits
MAX_BYTES = 2**30  # some 250 bytes an image
MAX_CLASSES = 100_000
LABELS = "validation_labels.npy"


# A line that needs no quotes; names in it are as csv writes them.
PLAIN_LINE = re.compile(r'[^",\r\n]*(?:,[^",\r\n]*){7}')
_SIDE = re.compile("[1-9][0-9]{0,8}")
_HEX_DIGITS = b"0123456789abcdef"
_NO_SEPARATORS = bytes({*range(256)} - {*b",\n"})
_LONGEST_PATH = 4096  # whatever is longer is left to the careful reading


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
        raise ValueError(f"a path must hold no zero byte, received {text!r}")
    return path


def _inside_root(text: str) -> str:
    path = _file_name(text)
    parts = PurePosixPath(path).parts
    if not parts or parts[0].startswith("/") or ".." in parts:
        raise ValueError(f"a path must stay below the root, received {text!r}")
    return path


def _printable(text: str) -> str:
    """A class name: it is drawn, printed and put into pages, and folders keep to the same rule."""
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        raise ValueError(f"a class name must be printable, received {text!r}")
    return text


EscapedPath = Annotated[str, AfterValidator(_inside_root)]
ClassName = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_printable)]
Split = Literal["train", "validation", "test"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class EntryRow(BaseModel):
    """A row of manifest.csv, as read; the fields of ManifestEntry."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: EscapedPath
    label: str
    split: Split
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
    resizing: Resizing = "bilinear"
    sizes: dict[Split, Annotated[int, Field(ge=0)]] | None = None


Columns = tuple[Sequence[Any], ...]
"""The values of EntryRow's fields, one sequence each."""

Row = tuple[str, str, str, str, str, str, int, int]
"""The values of an EntryRow, in its order."""


def save(
    folder: Path, rows: Iterable[Row], header: Mapping[str, Any], labels: NDArray[np.int32]
) -> None:
    """Writes all files, each atomically; the folder is made.

    Args:
        folder: folder of the manifest.
        rows: lines of the table.
        header: the rest, JSON values by name.
        labels: (N,) int32 of the validation images, see `read_labels`.
    """
    lines = [",".join(EntryRow.model_fields) + "\n"]
    for path, *rest in rows:
        line = ",".join((escape(path), *map(str, rest)))
        if PLAIN_LINE.fullmatch(line):
            lines.append(line + "\n")
        else:
            lines.append(_csv_line((escape(path), *rest)))
    rejects = [{**reject, "path": escape(reject["path"])} for reject in header["rejects"]]
    content = {"format": FORMAT, **header, "root": escape(header["root"]), "rejects": rejects}
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / LABELS) as temporary:
        np.save(temporary, labels, allow_pickle=False)
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


def load(folder: Path) -> tuple[Columns, Header]:
    """Reads table and header; checks every value by itself and against the class names.

    Raises:
        DataError: a file is missing or a value is not as save() writes it.
    """
    header = read_header(folder)
    columns = _read_columns(folder / "manifest.csv")
    known = set(header.class_names)
    if not known.issuperset(columns[1]):
        path, label = next(row for row in zip(*columns[:2], strict=True) if row[1] not in known)
        raise DataError(
            f"{shown(folder / 'manifest.csv')}: label {label!r} of {shown(path)} is "
            f"not among the class names {', '.join(header.class_names[:20])}"
        )
    return columns, header


def read_header(folder: Path) -> Header:
    """Reads manifest.json alone.

    Raises:
        DataError: it is missing or a value is not as save() writes it.
    """
    try:
        return Header.model_validate_json(_read(folder / "manifest.json"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = shown(f"{folder / 'manifest.json'}: {where}: {first['msg']}")
        raise DataError(reason) from error


def read_sizes(folder: Path) -> Mapping[str, int]:
    """Images by split, from the header; counted in the table where an early version wrote it.

    Raises:
        DataError: a file is missing or damaged.
    """
    sizes = read_header(folder).sizes
    if sizes is not None:
        return {str(split): size for split, size in sizes.items()}
    return Counter(_read_columns(folder / "manifest.csv")[2])


def read_labels(folder: Path, header: Header) -> NDArray[np.int32] | None:
    """(N,) int32 classes of the validation images, without the table; None where there are none.

    Args:
        folder: folder of the manifest.
        header: the manifest's header, which says how many they are.
    """
    count = (header.sizes or {}).get("validation")
    if count is None:
        return None
    try:
        data = read_regular(folder / LABELS, 4 * count + 1_000, follow_links=False)
        labels = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception:  # NumPy raises many types for a damaged file
        return None
    fits = labels.dtype == np.int32 and labels.shape == (count,)
    if not fits or (count and not 0 <= labels.min() <= labels.max() < len(header.class_names)):
        return None
    return np.asarray(labels)


def _read(path: Path) -> str:
    try:
        return read_regular(path, MAX_BYTES, follow_links=False).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{shown(path)}: the manifest cannot be read: {reason}") from error


def _read_columns(path: Path) -> Columns:
    text = _read(path)
    return _plain_columns(text) or tuple(zip(*_read_rows_carefully(path, text), strict=True))


def _plain_columns(text: str) -> Columns | None:
    """The columns of a table without quotes; None where a quoted table needs the CSV reader."""
    names = tuple(EntryRow.model_fields)
    head = ",".join(names) + "\n"
    body = text[len(head) :]
    if not (text.startswith(head) and body.endswith("\n")) or '"' in body or "\r" in body:
        return None
    line = b",,,,,,,\n"
    separators = body.encode().translate(None, _NO_SEPARATORS)
    if separators != line * (len(separators) // len(line)):
        return None
    values = body.replace("\n", ",").split(",")
    columns = [values[start : -1 : len(names)] for start in range(len(names))]
    return _checked(columns) if columns[0] else None


def _checked(columns: Sequence[list[str]]) -> Columns | None:
    """The columns as values, if they are as save() writes them."""
    paths, labels, splits, hashes, perceptual, groups, widths, heights = columns
    sides = {*widths, *heights}
    are_sound = (
        _are_paths(paths)
        and "" not in set(labels)
        and {*splits} <= {"train", "validation", "test"}
        and all(map(_are_hex, (hashes, perceptual, groups), (64, 16, 64)))
        and all(map(_SIDE.fullmatch, sides))
    )
    if not are_sound:
        return None
    numbers = {text: int(text) for text in sides}
    same = {text: text for text in {*labels, *splits}}  # one string each for all images
    return (
        paths,
        [*map(same.__getitem__, labels)],
        [*map(same.__getitem__, splits)],
        hashes,
        perceptual,
        groups,
        [*map(numbers.__getitem__, widths)],
        [*map(numbers.__getitem__, heights)],
    )


def _are_paths(paths: list[str]) -> bool:
    """Whether they stay below the root; what is rare is left to the careful reading."""
    text = "\n" + "\n".join(paths) + "\n"
    rare = ("\n/", "\n\n", "\\udc", "\0", "..")
    return not any(part in text for part in rare) and max(map(len, paths)) <= _LONGEST_PATH


def _are_hex(texts: list[str], length: int) -> bool:
    joined = "".join(texts)
    return (
        {*map(len, texts)} == {length}
        and joined.isascii()
        and not joined.encode().translate(None, _HEX_DIGITS)
    )


def _read_rows_carefully(path: Path, text: str) -> list[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    columns = tuple(EntryRow.model_fields)
    rows: list[Row] = []
    try:
        if tuple(reader.fieldnames or ()) != columns:
            found = ", ".join(reader.fieldnames or ()) or "none"
            raise DataError(
                f"{shown(path)}: the columns must be {', '.join(columns)}; received "
                f"{shown(found)[:200]}"
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
