"""A real Ray head in processes of its own, on loopback, apart from any other on this machine."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_S = 60


@dataclass(frozen=True)
class Head:
    """A head, and the environment in which a person would use it."""

    address: str
    environment: dict[str, str]

    def pawtune(
        self, *arguments: object, cwd: Path, timeout_s: float = 60, **changes: str | None
    ) -> subprocess.CompletedProcess[str]:
        """Runs one command line; `changes` are of the environment, None leaves one out."""
        environment = {**self.environment, **{k: v for k, v in changes.items() if v is not None}}
        for name in (name for name, value in changes.items() if value is None):
            environment.pop(name, None)
        command = [sys.executable, "-m", "search", *map(str, arguments)]
        return subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def json(self, *arguments: object, cwd: Path) -> Any:
        """What a command prints with --json."""
        done = self.pawtune(*arguments, "--json", "--address", self.address, cwd=cwd)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now; held together, so that all differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.2", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def ray_head(with_token: bool) -> Iterator[Head]:
    """Starts a head of 2 CPUs; ends it and all that it started."""
    folder = Path(tempfile.mkdtemp(prefix="pt-", dir="/tmp"))  # sockets take short paths only
    environment = _environment(folder, with_token)
    names = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port")
    names += ("dashboard-agent-grpc-port", "metrics-export-port", "runtime-env-agent-port")
    names += ("node-manager-port", "object-manager-port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    options = [f"--{name}={port}" for name, port in ports.items()]
    options += [f"--temp-dir={folder}", "--node-ip-address=127.0.0.2", "--dashboard-host=127.0.0.1"]
    options += ["--min-worker-port=0", "--max-worker-port=0", "--num-cpus=2", "--num-gpus=0"]
    options += ["--object-store-memory=150000000", "--disable-usage-stats"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", *options],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        head = Head(f"http://127.0.0.1:{ports['dashboard-port']}", environment)
        _wait(head.address, process, folder / "log")
        yield head
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:  # it waits for jobs that still run
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def _environment(folder: Path, with_token: bool) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    home = folder / "home"  # without ~/.ray/auth_token
    home.mkdir()
    environment = {
        **kept,
        "HOME": str(home),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
    }
    if with_token:
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    return environment


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/api/jobs/", timeout=2).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 401:  # it is up, and asks for the token
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"no Ray head at {address}:\n{log.read_text()}")
