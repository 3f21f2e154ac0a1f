"""Copies of files and folders in an object store, made once for each state that they are in."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.progress import Progress
from pawtune.data_pipeline.sources.object_store import ObjectStore, Stored, explained, retry_store

PATIENCE_S = 60.0
AT_ONCE = 16  # requests; one takes 20 to 100 ms, nearly all of it waiting


def find_stored(address: str) -> tuple[ObjectStore, dict[str, Stored]]:
    """What lies at an address: one file, named "", or all files below it.

    Raises:
        DataError: There is nothing, or the store cannot be read.
    """
    store = ObjectStore(address)
    try:
        file = store.stat()
        found = {"": file} if file is not None else store.files()
        if found:
            return store, found
        if not store.bucket_exists():
            raise DataError(f"{store.address}: there is no such bucket; check its name")
    except OSError as error:
        raise DataError(str(explained(store.address, error))) from error
    raise DataError(f"{store.address}: there is nothing; check the path below the bucket")


def state_of(store: ObjectStore, found: Mapping[str, Stored]) -> str:
    """A key that changes with any file: by names, sizes and times of writing."""
    rows = [store.address, *(f"{n}\0{s.size}\0{s.mtime_ns}" for n, s in sorted(found.items()))]
    return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def copy_stored(
    store: ObjectStore, found: Mapping[str, Stored], target: Path, progress: Progress
) -> None:
    """Copies files into a folder, or one file, named "", to a path.

    Raises:
        DataError: The store cannot be read, or a name cannot be written here.
    """
    total = sum(stored.size for stored in found.values())
    done, mutex = 0, Lock()

    def received(count: int) -> None:
        nonlocal done
        with mutex:
            done += count
            progress("download", min(done, total), total)

    def copy(name: str) -> None:
        file = target / name if name else target
        file.parent.mkdir(parents=True, exist_ok=True)
        retry_store(lambda: store.download(name, file, received), PATIENCE_S)

    progress("download", 0, total)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        copies = {pool.submit(copy, name): name for name in found}
        for copied, name in copies.items():
            try:
                copied.result()
            except OSError as error:
                pool.shutdown(cancel_futures=True)
                if error.errno and error.filename:  # of this machine
                    raise DataError(
                        f"{store.address}: {name!r} cannot be written here: {error.strerror}"
                    ) from error
                raise DataError(str(explained(store.address, error))) from error


def stored_file(address: str, cache: Path, progress: Progress) -> Path:
    """One file, such as weights, copied into the cache once.

    Raises:
        DataError: There is no such file, or the store cannot be read.
    """
    store, found = find_stored(address)
    if list(found) != [""]:
        raise DataError(f"{store.address}: it must be a file, and is a folder; name a file in it")
    name = store.address.partition("?")[0].rpartition("/")[2]
    target = cache / "stored" / state_of(store, found) / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{name}.part")
        copy_stored(store, found, part, progress)
        part.replace(target)
    return target
