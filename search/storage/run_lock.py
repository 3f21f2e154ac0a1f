"""One driver at a time on a run: a lock file with a heartbeat."""

import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pawtune.data_pipeline.file_lock import build_lock
from pawtune.data_pipeline.safe_files import read_regular, shown
from pawtune.search.errors import UserError, not_writable
from pawtune.search.storage.run_folder import RunFolder, write_text

LOCK = "driver.lock"
MAX_BYTES = 10_000  # of a lock file
BEAT_S = 5.0
STALE_S = 60.0  # without a heartbeat, from a machine that cannot be asked


class RunLock:
    """Holds a run for this process, as a context manager.

    A lock that a dead process of this machine left behind is taken over; so is one of another
    machine whose heartbeat has stopped. Heartbeats are judged by the file system's own clock.

    Raises:
        UserError: Another driver holds the run.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._file = run.root / LOCK
        self._token = secrets.token_hex(8)
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        content = {**this_process(), "token": self._token}
        try:
            with self._file.open("x", encoding="utf-8") as stream:
                json.dump(content, stream)
        except FileExistsError:
            with build_lock(self._file) as turn:  # who finds the same dead lock then finds ours
                try:
                    self._refuse_if_held()
                    write_text(self._file, json.dumps(content))
                finally:
                    turn.unlink(missing_ok=True)
        except OSError as error:
            raise not_writable(self._run.root, error) from error
        self._thread.start()
        return self

    def _refuse_if_held(self) -> None:
        holder = read_holder(self._run)
        if "process" not in holder:
            return  # half-written by a driver that died at once
        lives = lives_here(holder)
        if self._beats() if lives is None else lives:
            raise UserError(refusal(self._run.name, holder))

    def _beats(self) -> bool:
        age = self._age()
        if age >= -BEAT_S:
            return age < STALE_S
        # Of the future: the file system's clock was set back. Whoever lives beats by the new time.
        before = self._file.stat().st_mtime
        time.sleep(BEAT_S + 1)
        return self._file.stat().st_mtime != before

    def _age(self) -> float:
        probe = self._file.with_name(f".{self._file.name}.{self._token}")
        probe.touch()
        try:
            return probe.stat().st_mtime - self._file.stat().st_mtime
        finally:
            probe.unlink()

    def _beat(self) -> None:
        while not self._released.wait(BEAT_S):
            try:
                os.utime(self._file)
            except OSError:  # storage is away for a while: the next beat may reach it
                continue

    def __exit__(self, *error: object) -> None:
        self._released.set()
        self._thread.join(timeout=BEAT_S)
        with suppress(OSError):  # a lock whose process is gone holds nobody up
            self._file.unlink(missing_ok=True)


def this_process() -> dict[str, Any]:
    """What a lock says of the process that holds it."""
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "process": process_start(os.getpid()),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def read_holder(run: RunFolder) -> dict[str, Any]:
    """What a run's lock says of the process that holds it; empty where it cannot be read."""
    try:
        return dict(json.loads(read_regular(run.root / LOCK, MAX_BYTES, follow_links=False)))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def lives_here(holder: Mapping[str, Any]) -> bool | None:
    """Whether a holder on this machine, by its word, lives; None: it is of another machine."""
    if holder.get("host") != platform.node():
        return None
    pid = holder.get("pid")
    start = process_start(pid) if isinstance(pid, int) and 0 < pid < 2**31 else None
    return start is not None and start == holder.get("process")


def described(holder: Mapping[str, Any]) -> str:
    """The process that holds a lock, in words."""
    pid, host, since = (shown(str(holder.get(key))) for key in ("pid", "host", "since"))
    return f"process {pid} on {host} since {since}"


def refusal(run: str, holder: Mapping[str, Any]) -> str:
    """The message for a run that another driver holds."""
    return (
        f"a run has one driver at a time, and {run} is held by {described(holder)}; "
        f"wait for it, or stop it (kill -INT {shown(str(holder.get('pid')))} there) first"
    )


def refuse_if_held(run: RunFolder) -> None:
    """Refuses a held run before Ray is loaded, which takes seconds; the lock itself comes later.

    Raises:
        UserError: Another driver holds the run.
    """
    if run.mirror is None:
        RunLock(run)._refuse_if_held()


def is_running(folder: RunFolder) -> bool:
    """Whether a driver holds the run: its lock has a heartbeat, which outlives it by a minute."""
    try:
        beat = (folder.root / LOCK).stat().st_mtime
    except OSError:  # a driver that ends removes it
        return False
    return time.time() - beat < STALE_S and lives_here(read_holder(folder)) is not False


def process_start(pid: int) -> str | None:
    """When a process started: a later process may have its number. None: it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        if Path("/proc/self").exists():
            return None
    try:  # no /proc on this system: whether it lives is all that can be known
        os.kill(pid, 0)
    except OSError:
        return None
    return "alive"
