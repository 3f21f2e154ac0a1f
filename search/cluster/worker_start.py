"""The error of a Ray worker that cannot start, read from the log of its node."""

import re
from contextlib import suppress
from pathlib import Path

# Python's last line; what the loader, the shell, C++ and Python itself say before they end.
ERROR_LINE = re.compile(
    r"(\w+\.)*\w*(Error|Exception|SystemExit)\b.*"
    r"|Fatal Python error: .+|terminate called .+|what\(\): .+|Segmentation fault.*|Killed"
    r"|\S+: error while loading shared libraries: .+"
    r"|.*\b(?i:cannot allocate memory|not found|permission denied)$"
)
PATIENCE_S = 20.0  # Ray starts a worker again whose first start failed
TAIL_BYTES = 65_536


def worker_error(session: Path) -> str | None:
    """The last error that a worker wrote while it started; None where none did.

    Args:
        session: The folder of Ray's session.
    """
    for log in sorted(session.glob("logs/raylet.err")):
        with suppress(OSError):
            tail = log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
            lines = [line.strip() for line in tail.splitlines() if ERROR_LINE.match(line.strip())]
            if lines:
                return lines[-1][:300]
    return None
