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
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.waiting import wait_until

START_S = 60
IP = "127.0.0.2"  # loopback; Ray would turn 127.0.0.1 into the address that others reach
NODE_PORTS = (
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "runtime-env-agent-port",
    "node-manager-port",
    "object-manager-port",
)


@dataclass(frozen=True)
class Head:
    """A head, and the environment in which a person would use it."""

    address: str
    environment: dict[str, str]
    gcs_address: str = ""
    process_id: int = 0

    def pawtune(
        self, *arguments: object, cwd: Path, timeout_s: float = 60, **changes: str | None
    ) -> subprocess.CompletedProcess[str]:
        """Runs one command line; `changes` are of the environment, None leaves one out."""
        environment = {**self.environment, **{k: v for k, v in changes.items() if v is not None}}
        for name in (name for name, value in changes.items() if value is None):
            environment.pop(name, None)
        command = [sys.executable, "-m", "pawtune", *map(str, arguments)]
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout_s
        )

    def begin(self, *arguments: object, cwd: Path) -> "subprocess.Popen[str]":
        """The same of a command that is not waited for."""
        words = [sys.executable, "-m", "pawtune", *map(str, arguments), "--address", self.address]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(words, cwd=cwd, env=self.environment, text=True, **pipes)

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
def ray_head(
    with_token: bool,
    num_cpus: int = 2,
    autoscaling: dict[str, Any] | None = None,
    chosen: Mapping[str, int] | None = None,
    **changes: str,
) -> Iterator[Head]:
    """Starts a head; ends it and all that it started.

    Args:
        with_token: Whether it asks for one.
        num_cpus: That it has for trials.
        autoscaling: What scales its cluster, as `--autoscaling-config` takes it.
        chosen: Ports by option, in place of free ones.
        **changes: Of its environment.
    """
    folder = Path(tempfile.mkdtemp(prefix="pt-", dir="/tmp"))  # sockets take short paths only
    environment = {**_environment(folder, with_token), **changes}
    names = ("port", "dashboard-port", "ray-client-server-port", *NODE_PORTS)
    ports = {**dict(zip(names, free_ports(len(names)), strict=True)), **(chosen or {})}
    address, gcs = f"http://127.0.0.1:{ports['dashboard-port']}", f"{IP}:{ports['port']}"
    options = [f"--{name}={port}" for name, port in ports.items()]
    options += [f"--temp-dir={folder}", "--dashboard-host=127.0.0.1", f"--num-cpus={num_cpus}"]
    if autoscaling is not None:
        file = folder / "autoscaling.json"  # which is YAML too
        provider = {**autoscaling["provider"], "gcs_address": gcs}
        file.write_text(json.dumps({**autoscaling, "provider": provider}))
        options.append(f"--autoscaling-config={file}")
    with _ray_start(folder, environment, "--head", *options) as process:
        said = (folder / "log").read_text
        wait_until(lambda: _is_up(address), START_S, process=process, failure=said)
        yield Head(address, environment, gcs, process.pid)


@contextmanager
def ray_node(head: Head, num_cpus: int = 1) -> Iterator[int]:
    """Starts another node of a head's cluster; yields its process, and ends it."""
    folder = Path(tempfile.mkdtemp(prefix="pt-", dir="/tmp"))
    ports = dict(zip(NODE_PORTS, free_ports(len(NODE_PORTS)), strict=True))
    options = [f"--{name}={port}" for name, port in ports.items()]
    options += [f"--address={head.gcs_address}", f"--num-cpus={num_cpus}"]
    with _ray_start(folder, head.environment, *options) as process:
        said = (folder / "log").read_text
        wait_until(lambda: "Ray runtime started" in said(), START_S, process=process, failure=said)
        yield process.pid


@contextmanager
def _ray_start(
    folder: Path, environment: dict[str, str], *options: str
) -> Iterator["subprocess.Popen[bytes]"]:
    common = [f"--node-ip-address={IP}", "--min-worker-port=0", "--max-worker-port=0"]
    common += ["--num-gpus=0", "--object-store-memory=150000000", "--disable-usage-stats"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "ray"), "start", "--block", *common, *options],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:  # it waits for jobs that still run
            kill_tree(process.pid)
            process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def kill_tree(pid: int) -> None:
    """SIGKILL to a process that a test started and to all that came of it, as a machine dies."""
    for member in tree_of(pid):
        with suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)


def tree_of(pid: int) -> list[int]:
    """A process and all that came of it."""
    tree, parents = [pid], _parents()
    for member in tree:  # grows while it is walked
        tree += [child for child, parent in parents.items() if parent == member]
    return tree


def _parents() -> dict[int, int]:
    found = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            found[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
    return found


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


def _is_up(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/api/jobs/", timeout=2).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == 401  # it asks for the token
    except OSError:
        return False
    return True
