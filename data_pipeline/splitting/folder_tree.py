"""Everything below a folder of images, walked once, for training and for `predict` alike.

No file is opened, and /proc, /sys and /dev are not entered. Links are followed, to files and to
folders: the user named the folder, and data set caches consist of links. (An archive cannot bring
any: unpacking refuses links.) A link to a folder that contains it is not followed. What pawtune
itself wrote is one item, as is a Python environment. What hidden and system folders hold is
listed, and is no data.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path, PurePosixPath

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.safe_files import shown

HIDDEN = "hidden or system file"
OWN_OUTPUT = "written by pawtune"
ENVIRONMENT = "a Python environment"
UNLISTED = "folder cannot be listed"
BROKEN_LINK = "broken symbolic link"
LINK_CYCLE = "symbolic link to a folder that contains it"
SYSTEM_FILES = "files that the system makes up"
MAX_ITEMS = 5_000_000
# No file there lies on a disk, some block or never end, and links lead from them to everywhere.
MADE_UP = ("/proc", "/sys", "/dev")

SYSTEM_FOLDERS = {
    "#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recently-snapshot", "@recycle",
    "@sharebin", "@tmp", "__macosx", "__pycache__", "found.000", "lost+found", "recycler",
    "system volume information",
    # of other programs, which leave pictures there
    "lightning_logs", "mlartifacts", "mlruns", "node_modules", "site-packages", "tb_logs", "wandb",
}  # fmt: skip
OUTPUT_MARK = "made-by-pawtune.txt"
"""A file that `pawtune preview` writes beside its pictures, and nothing else does."""
ENVIRONMENT_MARKS = {"pyvenv.cfg", "conda-meta"}
RUN_MARK = "search.yaml"
RUN_ITEMS = {"manifest.json", "stage.json", "summary.json", "trials", "driver.lock"}

# Of files that are no images for certain; any other may be one, whatever its name.
DOCUMENT_SUFFIXES = {
    ".arrow", ".bat", ".bib", ".cfg", ".css", ".csv", ".db", ".doc", ".docx", ".h5", ".htm",
    ".html", ".ini", ".ipynb", ".js", ".json", ".jsonl", ".keras", ".lmdb", ".log", ".mat", ".md",
    ".mdb", ".npz", ".onnx", ".parquet", ".pb", ".pickle", ".pkl", ".pt", ".pth", ".py", ".rst",
    ".sh", ".tex", ".tflite", ".toml", ".tsv", ".txt", ".xls", ".xlsx", ".xml", ".yaml", ".yml",
}  # fmt: skip
# Of files that are no images, but are where images were expected, if a folder holds no others.
PACKED_SUFFIXES = {
    ".7z", ".bz2", ".gz", ".pdf", ".rar", ".tar", ".tbz", ".tgz", ".txz", ".xz", ".zip", ".zst",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """An item below a folder.

    path: relative to the root, posix. fault: why it is not opened or entered; None for a file that
    can be. size: bytes. is_folder: a folder (with a fault: one that is not entered).
    """

    path: str
    fault: str | None = None
    size: int = 0
    modified_ns: int = 0
    is_folder: bool = False


@dataclass
class Folder:
    """A folder with what is in it. skipped: folders that were not entered, links that failed."""

    path: str
    folders: dict[str, "Folder"] = field(default_factory=dict)
    files: list[Found] = field(default_factory=list)
    skipped: list[Found] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @cached_property
    def own_images(self) -> int:
        """Files directly in it that may be images, by their names."""
        return sum(not found.fault and may_be_image(found.path) for found in self.files)

    @cached_property
    def num_images(self) -> int:
        """Files in it, at any depth, that may be images, by their names."""
        return self.own_images + sum(inner.num_images for inner in self.folders.values())

    def all_found(self) -> Iterator[Found]:
        """Files and skipped items, at any depth."""
        yield from self.files
        yield from self.skipped
        for inner in self.folders.values():
            yield from inner.all_found()


def may_be_image(path: str) -> bool:
    """Whether a file may be an image, by its name: neither a document, nor a name in capitals.

    >>> [may_be_image(name) for name in ("a.JPG", "d1f0", "README", "notes.txt")]
    [True, True, False, False]
    """
    name = PurePosixPath(path)
    suffix = name.suffix.lower()
    if suffix in DOCUMENT_SUFFIXES or suffix in PACKED_SUFFIXES:
        return False
    return bool(suffix) or not name.name.isupper()


def is_system_folder(name: str) -> bool:
    """Whether a folder is a system's own, or hidden."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def read_tree(root: Path) -> Folder:
    """Walks a folder.

    Raises:
        DataError: it cannot be listed, or holds more than MAX_ITEMS items.
    """
    top = Folder("")
    folders = {"": top}
    for count, found in enumerate(_walk(root), start=1):
        parent = folders[found.path.rpartition("/")[0]] if found.path else top
        if found.is_folder and found.fault is None:
            inner = Folder(found.path)
            folders[found.path] = parent.folders[inner.name] = inner
        elif not found.path:
            raise DataError(f"{shown(root)}: {found.fault}")
        elif found.fault is None or found.fault == HIDDEN:
            parent.files.append(found)
        else:
            parent.skipped.append(found)
        if count > MAX_ITEMS:
            raise DataError(
                f"{shown(root)}: a folder may hold {MAX_ITEMS:,} files, and this holds more (the "
                f"last was {shown(found.path)}); does a link lead somewhere else?"
            )
    return top


def walk_files(root: Path) -> Iterator[Found]:
    """Every file below a folder, sorted within each, and every item that is not entered."""
    return (found for found in _walk(root) if not found.is_folder or found.fault is not None)


def _walk(root: Path) -> Iterator[Found]:
    real, status = os.path.realpath(root), os.stat(root)
    if status.st_dev in _made_up():
        yield Found("", SYSTEM_FILES, is_folder=True)
        return
    yield from _enter(root, real, "", frozenset({(status.st_dev, status.st_ino)}), False)


def _enter(
    root: Path, real_root: str, relative: str, above: frozenset[tuple[int, int]], hidden: bool
) -> Iterator[Found]:
    try:
        with os.scandir(root / relative) as entries:
            items = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        yield Found(relative, f"{UNLISTED}: {error.strerror}", is_folder=True)
        return
    if relative:
        names = {entry.name for entry in items}
        if not hidden and (names & ENVIRONMENT_MARKS or _is_own_output(names)):
            fault = ENVIRONMENT if names & ENVIRONMENT_MARKS else OWN_OUTPUT
            yield Found(relative, fault, is_folder=True)
            return
        yield Found(relative, is_folder=True)
    for entry in items:
        path = f"{relative}/{entry.name}" if relative else entry.name
        try:
            status = entry.stat()
            concealed = hidden or is_system_folder(entry.name)
            if not stat.S_ISDIR(status.st_mode) or (concealed and entry.is_symlink()):
                yield Found(path, HIDDEN) if concealed else _look_at(path, status)
            elif status.st_dev in _made_up():
                yield Found(path, SYSTEM_FILES, is_folder=True)
            elif entry.is_symlink() and _contains(entry.path, status, real_root, above):
                yield Found(path, LINK_CYCLE, is_folder=True)
            else:
                here = (status.st_dev, status.st_ino)
                yield from _enter(root, real_root, path, above | {here}, concealed)
        except OSError as error:
            if entry.is_symlink() and isinstance(error, FileNotFoundError):
                yield Found(path, BROKEN_LINK)
            else:  # gone since it was listed; a link to itself, or to a name that cannot be
                yield Found(path, f"cannot be looked at: {error.strerror or error}")


@cache
def _made_up() -> frozenset[int]:
    """Devices of MADE_UP, as far as they are file systems of their own."""
    disk = os.stat("/").st_dev
    return frozenset(os.stat(place).st_dev for place in MADE_UP if os.path.isdir(place)) - {disk}


def _is_own_output(names: set[str]) -> bool:
    """A run folder, or the pictures of `preview`; recognised by what is in it, not by its name."""
    return OUTPUT_MARK in names or (RUN_MARK in names and bool(names & RUN_ITEMS))


def _contains(
    link: str, status: os.stat_result, real_root: str, above: frozenset[tuple[int, int]]
) -> bool:
    target = os.path.realpath(link)
    inside = real_root == target or real_root.startswith(target.rstrip("/") + "/")
    return inside or (status.st_dev, status.st_ino) in above


def _look_at(path: str, status: os.stat_result) -> Found:
    if not stat.S_ISREG(status.st_mode):
        return Found(path, "not a regular file")
    return Found(path, None, status.st_size, status.st_mtime_ns)
