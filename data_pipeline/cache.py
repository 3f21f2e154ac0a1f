"""What pawtune keeps between runs on a machine: one folder, by kind; all of it can be made again.

Everything in it appears whole or not at all. What searches compute is dropped when the cache holds
more than its limit, what was used longest ago first; what a running search uses is kept.
"""

import fcntl
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.safe_files import write_atomically

# Backup tools skip a folder with this file, and clear_cache deletes no other:
# https://bford.info/cachedir/
CACHE_TAG = "CACHEDIR.TAG"
CACHE_TAG_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# Made by pawtune.\n"


LIMIT = "PAWTUNE_CACHE_GB"
DEFAULT_LIMIT_GB = 50.0
# Computed by searches, and only these are dropped: the rest was downloaded, or is small.
COMPUTED_KINDS = ("activations", "banks", "copies", "derived", "features", "pixels")
IN_USE_S = 3600.0  # what was used within this time may be in use by another search


def cache_dir() -> Path:
    """Where downloads and other work are kept: $XDG_CACHE_HOME/pawtune or ~/.cache/pawtune.

    Where that cannot be written, as with a read-only home, it is a folder of this user's own among
    the temporary files.

    Raises:
        DataError: Neither can be written.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    with suppress(OSError, RuntimeError):  # the latter: nobody knows this user's home
        # The XDG specification: a relative path is to be ignored.
        folder = (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "pawtune"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    try:
        folder = Path(tempfile.gettempdir()) / f"pawtune-cache-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.lstat().st_uid == os.getuid():
            return folder
        reason = f"{folder} is another user's"
    except OSError as error:
        reason = str(error)
    raise DataError(
        f"the cache needs a folder that can be written, and there is none: {reason}; name one: "
        "XDG_CACHE_HOME=/some/folder"
    )


# What the folders of the cache hold; all of it can be made or fetched again.
CACHE_KINDS = {
    "archives": "unpacked archives, downloaded or given",
    "backbones": "frozen backbones, as Keras models",
    "activations": "activations below the cut of a fine-tuned backbone",
    "banks": "feature banks",
    "copies": "features and pixels from the driver's node",
    "derived": "what was computed of features, such as their decompositions",
    "downloads": "which archive an address gave",
    "features": "features of images under frozen backbones",
    "hashes": "hashes of the images in folders",
    "models": "downloaded ImageNet weights",
    "near": "which images of folders are near duplicates",
    "pixels": "decoded training and validation images",
    "runs": "local copies of runs in object stores",
    "samples": "the images of --data sample",
    "sent": "weights that another node sent",
    "stored": "images and weights from object stores",
}


@dataclass(frozen=True)
class CacheEntry:
    """Something in the cache. kind: its folder there, such as "archives"."""

    kind: str
    name: str
    path: Path
    size_bytes: int


def prepare_cache(cache: Path) -> None:
    """Makes the cache folder and marks it as one.

    Raises:
        DataError: it cannot be written.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not (cache / CACHE_TAG).exists():
            write_atomically(cache / CACHE_TAG, CACHE_TAG_TEXT)
    except OSError as error:
        raise DataError(
            f"cannot write the cache {cache}: {error.strerror or error}; set XDG_CACHE_HOME to a "
            "folder that can be written"
        ) from error


def list_cache(cache: Path) -> list[CacheEntry]:
    """What the cache holds, by kind and name."""
    return [
        CacheEntry(kind.name, path.name, path, _size(path))
        for kind in sorted(path for path in cache.glob("*") if path.is_dir())
        for path in sorted(kind.glob("[!.]*"))  # the others stand for turns
    ]


def clear_cache(cache: Path, kinds: Sequence[str] = ()) -> int:
    """Deletes what the cache holds but for what running searches use; returns the bytes freed.

    Args:
        cache: pawtune's cache folder.
        kinds: names of CACHE_KINDS to delete; none means all.

    Raises:
        DataError: the folder is not marked as pawtune's cache, or there is no such kind.
    """
    for kind in kinds:
        if kind not in CACHE_KINDS:
            raise DataError(f"KIND must be one of {', '.join(CACHE_KINDS)}, received {kind!r}")
    if not cache.exists():
        return 0
    tag = cache / CACHE_TAG
    if cache.name != "pawtune" and not (tag.is_file() and "pawtune" in tag.read_text()):
        raise DataError(f"{cache} has no {CACHE_TAG} of pawtune: not deleted, it may be yours")
    before = _size(cache)
    for path in cache.iterdir():
        if kinds and path.name not in kinds:
            continue
        if path.is_dir() and not path.is_symlink():
            for entry in path.iterdir():
                _drop(entry)
            with suppress(OSError):  # not empty
                path.rmdir()
        elif path != tag:
            path.unlink(missing_ok=True)
    return before - _size(cache)


class EntryHold:
    """Keeps a folder of the cache from being dropped or cleared, for as long as this object lives.

    It belongs to the process that made it: pickled, it is None.
    """

    def __init__(self, folder: Path) -> None:
        """Holds the folder, once nobody is deleting it.

        Raises:
            OSError: It is not there.
        """
        handle = os.open(folder, os.O_RDONLY)
        weakref.finalize(self, os.close, handle)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_SH)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """None, in another process."""
        return type(None), ()


def _drop(entry: Path) -> bool:
    """Deletes an entry, from which another process may be deleting as well; False: it is held."""
    if not entry.is_dir() or entry.is_symlink():
        entry.unlink(missing_ok=True)
        return True
    try:
        handle = os.open(entry, os.O_RDONLY)
    except OSError:
        return not entry.exists()
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # a file system without locks
        while entry.exists():
            with suppress(FileNotFoundError):
                shutil.rmtree(entry)
    finally:
        os.close(handle)
    return True


def _size(path: Path) -> int:
    """Bytes; nothing for what another process deletes meanwhile."""
    try:
        if path.is_dir() and not path.is_symlink():
            return sum(_size(inner) for inner in path.iterdir())
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def cache_limit() -> int:
    """Bytes that computed entries may take together, from PAWTUNE_CACHE_GB (default 50).

    Raises:
        DataError: it is no number above 0.
    """
    given = os.environ.get(LIMIT, str(DEFAULT_LIMIT_GB))
    try:
        gigabytes = float(given)
    except ValueError:
        gigabytes = 0.0
    if not gigabytes > 0:
        raise DataError(
            f"{LIMIT} must be a number of gigabytes above 0, received {given!r}: "
            f"set it to {DEFAULT_LIMIT_GB:g}, the default, or unset it"
        )
    return int(gigabytes * 1e9)


def shrink_cache(cache: Path, limit: int) -> int:
    """Drops computed entries, those used longest ago first, until the rest is within the limit.

    What a running search holds stays, and what was used in the last hour: one may have it open.

    Args:
        cache: pawtune's cache folder.
        limit: size that may stay, in bytes, see `cache_limit`.

    Returns:
        The bytes that were freed.
    """
    entries = [entry for entry in list_cache(cache) if entry.kind in COMPUTED_KINDS]
    used = {entry.path: _used_at(entry.path) for entry in entries}
    total = sum(entry.size_bytes for entry in entries)
    before = total
    for entry in sorted(entries, key=lambda entry: used[entry.path]):
        if total <= limit or time.time() - used[entry.path] < IN_USE_S:
            break
        with suppress(OSError):
            total -= entry.size_bytes if _drop(entry.path) else 0
    return before - total
