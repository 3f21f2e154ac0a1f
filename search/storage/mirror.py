"""A run in an object store, and its copy on this machine, in which all code works.

The store holds the truth. Who opens a run pulls what changed; weights, predictions and states come
when they are asked for. A copy belongs to one process at a time, so that nobody replaces files
under a search: a second process on the machine gets a second copy.

A copied file has the store's time as its own, so equal sizes and times mean equal contents,
without an index that could be wrong. Stores count in seconds: of what was written last the content
may still change under the same time, hence such a file is marked half a second off, and is copied
again by the next pull.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pawtune.data_pipeline.cache import cache_dir, prepare_cache
from pawtune.data_pipeline.safe_files import link_or_copy
from pawtune.data_pipeline.sources.object_store import (
    ObjectStore,
    Stored,
    explained,
    retry_store,
    split,
)
from pawtune.search.storage.records import STATE

PATIENCE_S = 600.0  # once trials run; a first contact that fails is reported at once
AT_ONCE = 16  # requests; one takes 20 to 100 ms, nearly all of it waiting
LARGE = (".h5", ".npz", ".npy", ".keras")
OF_MANY = ("trials/", "backbones/", "best/", "confirm/")  # of these there may be gigabytes
CLAIMS = ".claims"
OURS = (".", "driver.lock", "tb/", "study.db")  # not sent by commands: scratch, or derived
UNSETTLED_NS = 500_000_000
TICK_NS = 2_000_000_000  # a store's clock ticks once a second

Result = TypeVar("Result")
_open: "weakref.WeakValueDictionary[str, Mirror]" = weakref.WeakValueDictionary()


def is_small(name: str) -> bool:
    """Whether a file comes with every pull: no weights, predictions or state to continue from."""
    large = name.endswith(LARGE) and name.startswith(OF_MANY)
    return not large and "/last/" not in name


def open_mirror(address: str) -> "Mirror":
    """This process' copy of the run at an address; empty until it is pulled.

    Raises:
        DataError: The address is none, or the cache cannot be written.
    """
    if address not in _open:
        _open[address] = mirror = Mirror(address)
        return mirror
    return _open[address]


class Mirror:
    """A run in an object store with its local copy.

    Attributes:
        root: The copy's folder; its name is the run's.
        store: The run's files in the store.
        is_driven: Whether a search of this process writes the copy.
    """

    def __init__(self, address: str) -> None:
        self.store = ObjectStore(address)
        self.address = self.store.address
        self.is_driven = False
        prepare_cache(cache_dir())
        copies = hashlib.sha256(self.address.encode()).hexdigest()[:32]
        place, handle = _free_place(cache_dir() / "runs" / copies)
        weakref.finalize(self, os.close, handle)
        self.root = place / split(self.address)[1]
        self.root.mkdir(parents=True, exist_ok=True)
        self._there: dict[str, Stored] = {}
        self._sent: dict[str, tuple[int, int]] = {}

    def pull(self) -> None:
        """Makes the copy equal to the store, but for large files.

        Raises:
            DataError: The store cannot be read.
        """
        listing = self._asked(self.store.files, 0.0)
        claims = {name: stored for name, stored in listing.items() if name.startswith(CLAIMS)}
        there = {name: stored for name, stored in listing.items() if name not in claims}
        # Later pulls remove what the store no longer has; the first also what it never had.
        ours = self._there if self._there else set(self._local_files())
        for name in set(ours) - set(there):
            (self.root / name).unlink(missing_ok=True)
        newest = max((stored.mtime_ns for stored in there.values()), default=0)
        self._there = there
        self._get_all([name for name in there if is_small(name)], newest, 0.0)
        self._copy_claim(claims)

    def pull_root(self, names: Iterable[str]) -> None:
        """Copies some files of the run's folder itself, and who holds the run.

        Raises:
            DataError: The store cannot be read.
        """
        for name in names:
            stored = self._asked(lambda n=name: self.store.stat(n), 0.0)  # type: ignore[misc]
            if stored is None:
                (self.root / name).unlink(missing_ok=True)
                self._there.pop(name, None)
                continue
            self._there[name] = stored
            self._get_all([name], stored.mtime_ns, 0.0)
        self._copy_claim(self._asked(lambda: self.store.files(CLAIMS), 0.0))

    def _copy_claim(self, claims: dict[str, Stored]) -> None:
        """Who holds the run, as the file that a run folder has for it."""
        file = self.root / "driver.lock"
        drivers = {n: s for n, s in claims.items() if n.startswith(f"{CLAIMS}/driver/")}
        file.unlink(missing_ok=True)
        if drivers:
            name = max(drivers, key=lambda name: drivers[name].mtime_ns)
            try:
                file.write_bytes(self.store.read(name))
            except OSError:
                return  # let go of in this moment
            os.utime(file, ns=(drivers[name].mtime_ns,) * 2)

    def pull_trial(self, trial_id: str) -> None:
        """Copies the large files of one trial, those that it continues from among them.

        Raises:
            DataError: The store was away for PATIENCE_S.
        """
        names = [name for name in self._there if name.startswith(f"trials/{trial_id}/")]
        newest = max((self._there[name].mtime_ns for name in names), default=0)
        self._get_all([name for name in names if not is_small(name)], newest, PATIENCE_S)

    def fetch(self, path: Path) -> Path:
        """A large file of the run: copied now unless the copy is current.

        Returns:
            The path, also where the store has no such file.

        Raises:
            DataError: The store cannot be read.
        """
        if self.is_driven and path.exists():
            return path  # nobody else has a later one
        name = self._name(path)
        stored = self._asked(lambda: self.store.stat(name), 0.0)
        if stored is not None:
            self._there[name] = stored
            newest = max(known.mtime_ns for known in self._there.values())
            self._get_all([name], newest, 0.0)
        return path

    def _get_all(self, names: list[str], newest: int, patience_s: float) -> None:
        wanted = [name for name in names if not self._is_current(name)]
        if not wanted:
            return
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda name: self._get(name, newest, patience_s), wanted))

    def _is_current(self, name: str) -> bool:
        local, there = _stat(self.root / name), self._there[name]
        return local is not None and (local.size, local.mtime_ns) == (there.size, there.mtime_ns)

    def _get(self, name: str, newest: int, patience_s: float) -> None:
        target, there = self.root / name, self._there[name]
        before = _stat(target)
        settled = there.mtime_ns <= newest - TICK_NS
        if before is not None and before.mtime_ns == there.mtime_ns - UNSETTLED_NS:
            settled = time.time_ns() - target.stat().st_ctime_ns >= TICK_NS
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.copy")
        try:
            self._asked(lambda: self.store.download(name, temporary), patience_s)
        except FileNotFoundError:
            temporary.unlink(missing_ok=True)  # deleted since it was listed
            return
        stamp = there.mtime_ns - (0 if settled else UNSETTLED_NS)
        os.utime(temporary, ns=(stamp, stamp))
        os.replace(temporary, target)

    def push(self, *paths: Path, patience_s: float = 0.0) -> None:
        """Sends files in this order; where the store fails, the rest is not sent.

        Raises:
            DataError: The store cannot be written.
        """
        for path in paths:
            name = self._name(path)
            content = path.read_bytes()
            self._asked(lambda n=name, c=content: self.store.write(n, c), patience_s)  # type: ignore[misc]
            stored = self._asked(lambda n=name: self.store.stat(n), patience_s)  # type: ignore[misc]
            if stored is not None:
                self._there[name] = stored
                os.utime(path, ns=(stored.mtime_ns, stored.mtime_ns))

    def push_new(self) -> None:
        """Sends what was written here since the pull; for commands, not beside a search.

        Raises:
            DataError: The store cannot be written.
        """
        files = [self.root / name for name in self._local_files() if not name.startswith(OURS)]
        self.push(*(path for path in sorted(files) if not self._is_known(path)))

    def _is_known(self, path: Path) -> bool:
        local, there = _stat(path), self._there.get(self._name(path))
        if local is None or there is None:
            return False
        times = (there.mtime_ns, there.mtime_ns - UNSETTLED_NS)
        return local.size == there.size and local.mtime_ns in times

    def _send(self, name: str, path: Path) -> None:
        """Sends a file if it changed since this process sent it; for the driver's thread."""
        local = _stat(path)
        if local is None or self._sent.get(name) == (local.size, local.mtime_ns):
            return
        if name not in self._sent and local == self._there.get(name):
            return  # as it was pulled
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return  # deleted since it was listed
        self.store.write(name, content)
        self._there.setdefault(name, Stored(local.size, 0))
        self._sent[name] = (local.size, local.mtime_ns)

    def send_trial(self, trial_id: str) -> None:
        """Sends what changed of a trial, and deletes in the store what was deleted here.

        Weights go before the small files that speak of them, and the state to continue from last
        of all: whoever reads finds an earlier epoch or this one.

        Raises:
            OSError: The store fails; what was sent is not sent again.
        """
        folder = f"trials/{trial_id}"
        with tempfile.TemporaryDirectory(prefix=".sending-", dir=self.root.parent) as scratch:
            if not _still_picture(self.root / folder, Path(scratch)):
                return  # the next round finds it at rest
            files = {
                f"{folder}/{path.relative_to(scratch).as_posix()}": path
                for path in Path(scratch).rglob("*")
                if path.is_file()
            }
            for name in sorted(files, key=_order):
                self._send(name, files[name])
        gone = {name for name in self._there if name.startswith(f"{folder}/")} - files.keys()
        self._delete([name for name in gone if is_small(name) or "/last/" in name])

    def send_folder(self, folder: Path) -> None:
        """The same for a folder of small files.

        Raises:
            OSError: The store fails.
        """
        files = {self._name(p): p for p in folder.rglob("[!.]*") if p.is_file()}
        self._send_all(files, [n for n in self._there if n.startswith(self._name(folder) + "/")])

    def send_root(self, leave: Container[str]) -> None:
        """The same for the files in the run's folder itself.

        Raises:
            OSError: The store fails.
        """
        files = {p.name: p for p in self.root.glob("[!.]*") if p.is_file() and p.name not in leave}
        self._send_all(files, [n for n in self._there if "/" not in n and n not in leave])

    def _send_all(self, files: Mapping[str, Path], there: Iterable[str]) -> None:
        for name in sorted(files):
            self._send(name, files[name])
        self._delete([name for name in there if name not in files])

    def _delete(self, names: Iterable[str]) -> None:
        for name in names:
            self.store.delete(name)
            self._there.pop(name, None)
            self._sent.pop(name, None)

    def drop(self, names: Iterable[str]) -> None:
        """Deletes those files of trials that are in the store.

        Raises:
            OSError: The store fails.
        """
        there = self.store.files("trials")
        self._delete([name for name in names if name in there])

    def discard(self) -> None:
        """Deletes the run, here and in the store, but for claims on it."""
        files = self._asked(self.store.files, 0.0)
        self._asked(lambda: self._delete([n for n in files if not n.startswith(CLAIMS)]), 0.0)
        self.empty()

    def adopt_store_times(self) -> None:
        """Gives sent files the store's times: the next to open this copy need not fetch them."""
        for name, stored in self.store.files().items():
            local = _stat(self.root / name)
            if local is not None and self._sent.get(name) == (local.size, local.mtime_ns):
                os.utime(self.root / name, ns=(stored.mtime_ns, stored.mtime_ns))
                self._sent[name] = (stored.size, stored.mtime_ns)
                self._there[name] = stored

    def empty(self) -> None:
        """Empties the copy."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        self._there, self._sent = {}, {}

    def _asked(self, use: Callable[[], Result], patience_s: float) -> Result:
        try:
            return retry_store(use, patience_s)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise explained(self.address, error) from error

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _local_files(self) -> list[str]:
        return [self._name(path) for path in self.root.rglob("*") if path.is_file()]


def _order(name: str) -> tuple[bool, bool, bool, str]:
    """Sort key of a trial's files: the specification, large files, small ones, the state's own."""
    return (not name.endswith("/spec.json"), name.endswith(f"/last/{STATE}"), is_small(name), name)


def _still_picture(trial: Path, into: Path) -> bool:
    """Links a consistent snapshot of a trial's files; False: its state was just replaced.

    What replaces a file takes its name: the link still leads to the contents of that moment.
    """
    state = trial / "last" / STATE
    before = _stat(state)
    try:
        for folder in ("best", ".", "last"):  # a best epoch before what keeps the one before it
            (into / folder).mkdir(exist_ok=True)
            for path in (trial / folder).glob("[!.]*"):
                if path.is_file():
                    link_or_copy(path, into / folder / path.name)
    except FileNotFoundError:
        return False
    return before == _stat(state)


def _stat(path: Path) -> Stored | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return Stored(found.st_size, found.st_mtime_ns)


def _free_place(home: Path) -> tuple[Path, int]:
    """The first numbered folder that no other process holds, and what holds it for this one."""
    home.mkdir(parents=True, exist_ok=True)
    number = 0
    while True:
        handle = os.open(home / f"{number}.lock", os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return home / str(number), handle
        except BlockingIOError:
            os.close(handle)
            number += 1
