"""Waiting for what another process or thread does."""

import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


def wait_until(
    ask: Callable[[], Answer],
    timeout_s: float = 60,
    *,
    process: "subprocess.Popen[str] | subprocess.Popen[bytes] | None" = None,
    failure: Callable[[], object] = lambda: "it did not come",
    pause_s: float = 0.1,
) -> Answer:
    """Asks again and again until the answer is true, and returns it.

    The test fails with what `failure` gives where it takes too long, or `process` has ended before.
    """
    deadline = time.monotonic() + timeout_s
    while not (answer := ask()):
        assert process is None or process.poll() is None, (process.communicate(), failure())
        assert time.monotonic() < deadline, failure()
        time.sleep(pause_s)
    return answer
