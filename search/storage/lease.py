"""One driver at a time on a run in an object store: claims with a heartbeat.

pyarrow offers no conditional write. What stores do offer is that a listing shows all that was
written before it (S3 since December 2020, Google's always). So whoever wants a run writes a claim
and then lists all claims, and has it only where there is no other: of two that want it at once, the
one that lists later sees the other. All but the first by name then withdraw for a moment.

A claim without a heartbeat for STALE_S, by the store's clock, is taken over: a note beside it says
so, which its driver finds at its next heartbeat if it was asleep, and then ends. Between these two
moments, BEAT_S at most, both may write.
"""

import json
import random
import secrets
import threading
import time
from typing import Any, Self

from pawtune.data_pipeline.sources.object_store import Stored, explained, retry_store
from pawtune.search.errors import UserError
from pawtune.search.storage.mirror import CLAIMS, Mirror
from pawtune.search.storage.run_lock import (
    BEAT_S,
    STALE_S,
    described,
    lives_here,
    refusal,
    this_process,
)

HESITATION_S = 1.5  # so long a claim may be that of somebody who is about to withdraw
TAKEN = ".taken"
PATIENCE_S = 5.0


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
        self._claim = self._new_claim()
        self._wait_s = wait_s
        self._content = json.dumps(this_process()).encode()
        self._dead: set[str] = set()
        self._read: dict[str, dict[str, Any]] = {}
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self.lost = threading.Event()
        self.failing: OSError | None = None  # of the last heartbeat

    def __enter__(self) -> Self:
        try:
            self._acquire()
        except OSError as error:
            raise explained(self._store.address, error) from error
        self._thread.start()
        return self

    def _acquire(self) -> None:
        deadline = time.monotonic() + max(self._wait_s, HESITATION_S)
        while True:
            self._store.write(self._claim, self._content)
            claims = self._store.files(self._folder)
            others = self._live(claims)
            if not others:
                break
            refused = time.monotonic() > deadline
            if refused or self._claim != min([self._claim, *others]):
                self._store.delete(self._claim)  # the first by name stays, so that one gets it
                self._claim = self._new_claim()
            if refused:
                raise UserError(self._refusal(list(others.values())[0]))
            time.sleep(random.uniform(0.1, 0.3))
        for name in self._dead:
            self._store.delete(name)
        for name in self._stale(claims):  # the note is for a driver that was only suspended
            self._store.write(name + TAKEN, self._content)

    def _new_claim(self) -> str:
        return f"{self._folder}/{secrets.token_hex(8)}"

    def _stale(self, claims: dict[str, Stored]) -> list[str]:
        """Claims without a heartbeat that nobody has taken over yet."""
        latest = claims[self._claim].mtime_ns - STALE_S * 1e9
        others = (name for name in claims if not name.endswith(TAKEN))
        return [n for n in others if claims[n].mtime_ns <= latest and n + TAKEN not in claims]

    def _live(self, claims: dict[str, Stored]) -> dict[str, dict[str, Any]]:
        """Claims besides ours whose processes seem to live, and what they say."""
        gone = {self._claim, *self._stale(claims)}
        found = {}
        for name in claims:
            if name in gone or name.endswith(TAKEN) or name + TAKEN in claims:
                continue
            holder = self._holder(name)
            if holder is not None:
                found[name] = holder
        return found

    def _holder(self, name: str) -> dict[str, Any] | None:
        """What a claim says; None where it was withdrawn, or its process on this machine died."""
        try:
            if name not in self._read:
                text = retry_store(lambda: self._store.read(name), PATIENCE_S)
                self._read[name] = dict(json.loads(text))
            holder = self._read[name]
            if lives_here(holder) is False:
                self._dead.add(name)
                return None
            return holder
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            return {}  # none of ours; it goes stale

    def _refusal(self, holder: dict[str, Any]) -> str:
        name = self._mirror.root.name
        if not self._wait_s:
            return refusal(name, holder)
        return (
            f"{name} is held by {described(holder)}, for more than {self._wait_s:g} s; "
            "try again later"
        )

    def _beat(self) -> None:
        while not self._released.wait(BEAT_S):
            try:
                self._store.write(self._claim, self._content)
                if self._store.stat(self._claim + TAKEN) is not None:
                    self.lost.set()
                    return
                self.failing = None
            except OSError as error:  # the store is away for a while: the next beat may reach it
                self.failing = error

    def __exit__(self, *error: object) -> None:
        self._released.set()
        self._thread.join(timeout=2 * BEAT_S)
        try:
            retry_store(lambda: self._store.delete(self._claim), 20.0)
            if self.lost.is_set():
                self._store.delete(self._claim + TAKEN)
        except OSError:
            pass  # it goes stale by itself
