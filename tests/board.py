"""`pawtune tensorboard` for tests: started, asked over HTTP, ended."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.waiting import wait_until


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def run_board(run: Path, num_runs: int) -> Iterator[str]:
    """TensorBoard on a run; yields its address as soon as it shows `num_runs` runs."""
    port = free_port()
    command = [sys.executable, "-m", "pawtune", "tensorboard", str(run), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until(
            lambda: len(fetch(f"{address}/data/runs") or ()) >= num_runs,
            process=process,
            failure=lambda: "TensorBoard did not show all runs within 60 s",
        )
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:  # a loaded machine: its end is tested elsewhere
            process.kill()
            process.communicate()


def fetch(address: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON at an address; None where there is none (yet)."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except OSError:
        return None
