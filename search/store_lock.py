"""One driver at a time on a run in an object store: claims with a heartbeat.

pyarrow offers no conditional write. What stores do offer is that a listing shows all that was
written before it (S3 since December 2020, Google's always). So whoever wants a run writes a claim
and then lists all claims: of two that want it at once, the one that lists later sees the other,
and withdraws its own. Both may withdraw, and try again after a random pause; both may not hold.

A claim without a heartbeat for STALE_S, by the store's clock, is taken over: a note beside it says
so, which its driver finds at its next heartbeat if it was asleep, and then ends. Between these two
moments, BEAT_S at most, both may write.
"""

import json
import os
import platform
import random
import secrets
import threading
import time
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from data_pipeline.buckets import Stored, explained, insist
from search.errors import UserError
from search.lock import BEAT_S, STALE_S, process_start
from search.mirror import CLAIMS, Mirror

ATTEMPTS = 4
TAKEN = ".taken"


class StoreLock:
    """Holds something of a run for this process, as a context manager.

    Args:
        mirror: The run.
        what: "driver", or another name for another right.
        wait_s: How long to wait for a holder.

    Raises:
        UserError: Another process holds it, or the store cannot be written.
    """

    def __init__(self, mirror: Mirror, what: str = "driver", wait_s: float = 0.0) -> None:
        self._mirror = mirror
        self._store = mirror.store
        self._folder = f"{CLAIMS}/{what}"
        self._claim = f"{self._folder}/{secrets.token_hex(8)}"
        self._wait_s = wait_s
        self._content = json.dumps(
            {
                "host": platform.node(),
                "pid": os.getpid(),
                "process": process_start(os.getpid()),
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        ).encode()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self.lost = threading.Event()

    def __enter__(self) -> Self:
        try:
            self._acquire()
        except OSError as error:
            raise explained(self._store.address, error) from error
        self._thread.start()
        return self

    def _acquire(self) -> None:
        deadline = time.monotonic() + self._wait_s
        attempt = 0
        while True:
            attempt += 1
            self._store.write(self._claim, self._content)
            claims = self._store.files(self._folder)
            others = self._live(claims)
            if not others:
                break
            self._store.delete(self._claim)
            if attempt >= ATTEMPTS and time.monotonic() > deadline:
                raise UserError(self._refusal(others))
            time.sleep(random.uniform(0.1, 0.4) * min(attempt, 4))
        for name in claims:  # of dead drivers; a note tells one that only slept
            if name != self._claim and not name.endswith(TAKEN) and name + TAKEN not in claims:
                self._store.write(name + TAKEN, self._content)

    def _live(self, claims: dict[str, Stored]) -> list[dict[str, Any]]:
        """Those who hold a claim besides ours and seem to live."""
        now = claims[self._claim].mtime_ns
        found = []
        for name, stored in claims.items():
            if name == self._claim or name.endswith(TAKEN) or name + TAKEN in claims:
                continue
            try:
                holder = json.loads(self._store.read(name))
                host, pid = holder["host"], int(holder["pid"])
                process = holder["process"]
            except FileNotFoundError:
                continue  # withdrawn
            except (ValueError, KeyError, TypeError):
                holder, host, pid, process = {}, "", 0, None
            here = host == platform.node()
            dead = here and process_start(pid) != process
            if not dead and now - stored.mtime_ns < STALE_S * 1e9:
                found.append(holder)
        return found

    def _refusal(self, others: list[dict[str, Any]]) -> str:
        holder = others[0]
        name = self._mirror.root.name
        who = f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"
        if self._wait_s:
            return f"{name} is held by {who}, for more than {self._wait_s:g} s; try again later"
        return (
            f"a run has one driver at a time, and {name} is held by {who}; wait for it, or stop it "
            f"(kill -INT {holder.get('pid')} there) first"
        )

    def _beat(self) -> None:
        while not self._released.wait(BEAT_S):
            try:
                self._store.write(self._claim, self._content)
                if self._store.stat(self._claim + TAKEN) is not None:
                    self.lost.set()
                    return
            except OSError:  # the store is away for a while: the next beat may reach it
                continue

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._released.set()
        self._thread.join(timeout=2 * BEAT_S)
        try:
            insist(lambda: self._store.delete(self._claim), 20.0)
            if self.lost.is_set():
                self._store.delete(self._claim + TAKEN)
        except OSError:
            pass  # it goes stale by itself
