"""manifest.csv and manifest.json: written atomically, checked when read.

File names are kept as they are, but for bytes that are no UTF-8 (which Python holds as lone
surrogates): byte 0xE9 is written as the six characters \\udce9, and a backslash that would read
as the start of such a group as \\udc5c. Both files are thus valid UTF-8 and give every name back.
"""

import csv
import io
import json
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.safe_files import read_regular, shown, write_atomically

FORMAT = 1
MAX_BYTES = 2**30  # some 250 bytes an image
MAX_CLASSES = 100_000


def escape(path: str) -> str:
    """A file name as it is written; see the module's text."""
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

    format: Literal[1]
    root: Annotated[str, AfterValidator(_file_name)]
    class_names: Annotated[list[ClassName], Field(min_length=2, max_length=MAX_CLASSES)]
    rejects: list[RejectRow]
    warnings: list[str]
    seed: int
    layout: Literal["classes", "train_validation", "train_validation_test"]
    fingerprint: Sha256


def save(folder: Path, entries: Sequence[Mapping[str, Any]], header: Mapping[str, Any]) -> None:
    """Writes both files, each atomically; the folder is made."""
    columns = tuple(EntryRow.model_fields)
    rows = [
        columns,
        *(tuple({**e, "path": escape(e["path"])}[c] for c in columns) for e in entries),
    ]
    rejects = [{**reject, "path": escape(reject["path"])} for reject in header["rejects"]]
    content = {"format": FORMAT, **header, "root": escape(header["root"]), "rejects": rejects}
    write_atomically(folder / "manifest.csv", "".join(_csv_line(row) for row in rows))
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


def load(folder: Path) -> tuple[list[EntryRow], Header]:
    """Reads both files and checks every value by itself and against the class names.

    Raises:
        DataError: a file is missing or a value is not as save() writes it.
    """
    try:
        header = Header.model_validate_json(_read(folder / "manifest.json"))
        rows = _read_rows(folder / "manifest.csv")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        told = shown(f"{folder / 'manifest.json'}: {where}: {first['msg']}")
        raise DataError(told) from error
    for row in rows:
        if row.label not in header.class_names:
            raise DataError(
                f"{shown(folder / 'manifest.csv')}: label {row.label!r} of {shown(row.path)} is "
                f"not among the class names {', '.join(header.class_names[:20])}"
            )
    return rows, header


def _read(path: Path) -> str:
    try:
        return read_regular(path, MAX_BYTES, follow_links=False).decode()
    except (OSError, UnicodeDecodeError) as error:
        told = getattr(error, "strerror", None) or error
        raise DataError(f"{shown(path)}: the manifest cannot be read: {told}") from error


def _read_rows(path: Path) -> list[EntryRow]:
    reader = csv.DictReader(io.StringIO(_read(path), newline=""), strict=True)
    columns = tuple(EntryRow.model_fields)
    rows = []
    try:
        if tuple(reader.fieldnames or ()) != columns:
            found = ", ".join(reader.fieldnames or ()) or "none"
            raise DataError(
                f"{shown(path)}: the columns must be {', '.join(columns)}; got {shown(found)[:200]}"
            )
        for row in reader:
            rows.append(EntryRow.model_validate(row))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        told = f"{path} line {reader.line_num}: {where}: {first['msg']}"
        raise DataError(shown(told)) from error
    except csv.Error as error:
        raise DataError(shown(f"{path} line {reader.line_num}: {error}")) from error
    return rows
