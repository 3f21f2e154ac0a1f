"""Which files of a folder are candidates, under which label, in which split they were given.

Two layouts are known: `root/<class>/…`, and `root/{train,validation[,test]}/<class>/…` (`training`,
`val` and `valid` are understood too, in any case of letters). Below a class folder any depth will
do. Every file under the root is either a candidate or a reject, so that totals add up.
"""

import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.safe_files import shown

SPLITS = ("train", "validation", "test")
SPLIT_OF_FOLDER = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}
HIDDEN = "hidden or system file"
UNLISTED = "folder cannot be listed"
EXPECTED = (
    "expected ROOT/<class>/<images> or ROOT/train/<class>/<images> beside ROOT/validation/<class>"
)


@dataclass(frozen=True)
class Reject:
    """A file that is left out. path: relative to the root, posix."""

    path: str
    reason: str


@dataclass(frozen=True)
class Candidate:
    """A regular file in a class folder, not yet opened. split: None where it is ours to decide."""

    path: str
    label: str
    split: str | None
    size: int
    modified_ns: int


@dataclass(frozen=True)
class Found:
    """Something below a folder that is no folder. fault: why it cannot be opened; else None."""

    path: str
    fault: str | None
    size: int = 0
    modified_ns: int = 0


@dataclass(frozen=True)
class Layout:
    """What a root folder holds. name: "classes", "train_validation" or "train_validation_test"."""

    name: str
    class_names: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    rejects: tuple[Reject, ...]


def is_junk(name: str) -> bool:
    """Whether a file or folder is a system's own: hidden by a dot, or macOS' archive shadow."""
    return name.startswith(".") or name == "__MACOSX"


def read_layout(root: Path) -> Layout:
    """Walks a root folder; reads no file.

    Raises:
        DataError: no such folder, no class folders, one class only, differing class sets.
    """
    if not root.exists():
        raise DataError(f"no such folder: {shown(root)}")
    if not root.is_dir():
        raise DataError(f"{shown(root)} is a file; a folder of class folders is due")
    top = _folders(root)
    split_folders = _split_folders(root, top)
    if split_folders:
        classes = _common_classes(root, split_folders)
        name = "_".join(split for split in SPLITS if split in split_folders.values())
    else:
        classes, name = top, "classes"
    _check_classes(root, classes)
    candidates, rejects = [], []
    for found in walk_files(root):
        placed = _place(found, split_folders, classes)
        if isinstance(placed, Reject):
            rejects.append(placed)
        else:
            candidates.append(placed)
    return Layout(name, tuple(classes), tuple(candidates), tuple(rejects))


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and not is_junk(entry.name)
            )
    except OSError as error:
        raise DataError(f"{shown(folder)}: cannot be listed: {error.strerror or error}") from error


def _split_folders(root: Path, top: list[str]) -> dict[str, str]:
    """{folder: split}; empty where the top folders are classes.

    A lone `train` may be a class (of vehicles, say): it takes `validation` beside it to tell.
    """
    found = {name: SPLIT_OF_FOLDER[name.lower()] for name in top if name.lower() in SPLIT_OF_FOLDER}
    splits = sorted(found.values())
    if len(set(splits)) < len(splits):
        raise DataError(
            f"{shown(root)}: two folders for one split among {', '.join(found)}; keep one"
        )
    if {"train", "validation"} <= set(splits):
        return found
    if found and len(found) == len(top):
        raise DataError(
            f"{shown(root)}: found {', '.join(found)}, but train and validation must both be "
            "there; "
            "add the missing one, or give a folder of class folders to have splits made"
        )
    return {}


def _common_classes(root: Path, split_folders: dict[str, str]) -> list[str]:
    classes = {name: _folders(root / name) for name in split_folders}
    first, *others = classes
    for other in others:
        missing = sorted(set(classes[first]) ^ set(classes[other]))
        if missing:
            name = missing[0]
            has, lacks = (first, other) if name in classes[first] else (other, first)
            raise DataError(
                f"{shown(root)}: every split must have the same class folders; {name!r} is in "
                f"{has} and "
                f"not in {lacks} ({len(missing)} such); add it, or remove it from the other"
            )
    return classes[first]


def _check_classes(root: Path, classes: list[str]) -> None:
    if not classes:
        raise DataError(f"{shown(root)}: no class folders; {EXPECTED}")
    for name in classes:
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            raise DataError(
                f"{shown(root)}: the name of class folder {name!r} must be printable UTF-8; "
                "rename it"
            )
    if len(classes) == 1:
        inner = _folders(root / classes[0])
        hint = f"; did you mean {shown(root / classes[0])}?" if len(inner) > 1 else ""
        raise DataError(
            f"{shown(root)}: one class only ({classes[0]!r}); at least 2 class folders are "
            f"needed{hint}"
        )


def walk_files(root: Path) -> Iterator[Found]:
    """Everything below a folder that is no folder itself, sorted within each; a folder at a time.

    Nothing is left out: what is hidden, a link that leads out, or no file to open says so in its
    `fault`, and so does a folder that cannot be listed.
    """
    yield from _walk(root, "")


def _walk(root: Path, relative: str) -> Iterator[Found]:
    try:
        with os.scandir(root / relative) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        yield Found(relative, f"{UNLISTED}: {error.strerror}")
        return
    for entry in found:
        path = f"{relative}/{entry.name}" if relative else entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, path)
            continue
        try:
            yield _look_at(root, path, entry)
        except OSError as error:  # gone since it was listed; a link to a name that cannot be
            yield Found(path, f"cannot be looked at: {error.strerror or error}")


def _look_at(root: Path, path: str, entry: os.DirEntry[str]) -> Found:
    if any(is_junk(part) for part in path.split("/")):
        return Found(path, HIDDEN)
    fault = _fault(root, entry)
    if fault:
        return Found(path, fault)
    status = entry.stat()
    return Found(path, None, status.st_size, status.st_mtime_ns)


def _place(found: Found, split_folders: dict[str, str], classes: list[str]) -> Candidate | Reject:
    *folders, _ = found.path.split("/")
    if found.fault == HIDDEN or (found.fault or "").startswith(UNLISTED):
        return Reject(found.path, found.fault or "")
    split = None
    if split_folders:
        split = split_folders.get(folders[0]) if folders else None
        if split is None:
            return Reject(found.path, "outside the train, validation and test folders")
        folders = folders[1:]
    if found.fault:
        return Reject(found.path, found.fault)
    if not folders or folders[0] not in classes:
        return Reject(found.path, "not in a class folder")
    return Candidate(found.path, folders[0], split, found.size, found.modified_ns)


def _fault(root: Path, entry: os.DirEntry[str]) -> str | None:
    """Why a directory entry is no file to open, if so."""
    if entry.is_symlink():
        target = Path(os.path.realpath(entry.path))
        if not target.is_relative_to(os.path.realpath(root)):
            return "symbolic link that leaves the folder"
        if target.is_dir():
            return "symbolic link to a folder, which is not followed"
        if not target.exists():
            return "broken symbolic link"
    if not stat.S_ISREG(entry.stat().st_mode):
        return "not a regular file"
    return None
