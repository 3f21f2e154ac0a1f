"""What cannot be is refused within ten seconds, in one line, with exit code 2.

Timed from the start of the command, in a process of its own, as a person waits for it.
"""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pawtune.search.storage.run_folder import RunFolder, create_run_folder
from pawtune.search.storage.run_lock import RunLock
from tests.ray_head import Head, ray_head

AT_ONCE_S = 60.0  # answers are given up after seconds; a crowded machine takes the rest


def refused(
    *arguments: object,
    environment: dict[str, str] | None = None,
    program: Sequence[str] = ("-m", "pawtune"),
) -> str:
    """The one line that a command is refused with."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        env=environment or dict(os.environ),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    seconds = time.monotonic() - started
    assert done.returncode == 2, done
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("pawtune: ")
    print(f"\n{seconds:.1f} s: {lines[0]}")
    assert seconds < AT_ONCE_S
    return lines[0]


def search(images: Path, *options: object) -> tuple[object, ...]:
    return ("run", "--data", images, "--families=conv", "--trials=1", *options)


@pytest.fixture
def silent() -> Iterator[str]:
    """Takes calls, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def chatty() -> Iterator[str]:
    """A server of something else."""

    def answer() -> None:
        while True:
            try:
                caller, _ = server.accept()
            except OSError:
                return
            with caller:
                caller.recv(100)
                caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_an_address_where_nothing_listens(tiny_images: Path, runs_dir: Path) -> None:
    said = refused(*search(tiny_images, "--address=127.0.0.1:1", "--runs-dir", runs_dir))
    assert "--address must be that of a running Ray cluster, received '127.0.0.1:1'" in said
    assert "Connection refused" in said
    assert not runs_dir.exists(), "something was left behind"


@pytest.mark.slow
def test_addresses_that_are_no_head(tiny_images: Path, silent: str, chatty: str) -> None:
    assert "timed out" in refused(*search(tiny_images, f"--address={silent}"))
    said = refused(*search(tiny_images, f"--address={chatty}"))
    assert "it is probably the Ray dashboard" in said
    assert f"take as http://{chatty};" in said
    assert "use `pawtune submit`" in refused(*search(tiny_images, "--address=ray://127.0.0.1:1"))
    assert "host:port" in refused(*search(tiny_images, "--address=somewhere"))


@pytest.mark.slow
def test_dashboards_that_are_not_there(tiny_images: Path, silent: str) -> None:
    for address, problem in [("127.0.0.1:1", "Connection refused"), (silent, "timed out")]:
        where = f"--address={address}"
        for command in [("list",), ("logs", "job"), ("stop", "job"), ("status", "job")]:
            assert problem in refused(*command, where)
        assert problem in refused("submit", "--data", tiny_images, where)


def test_no_such_run_and_a_run_in_use(runs_dir: Path) -> None:
    for verb in ("resume", "status"):
        said = refused(verb, "nope", "--runs-dir", runs_dir)
        assert "nope" in said
    run = create_run_folder(runs_dir, "held")
    assert isinstance(run, RunFolder)
    (run.root / "search.yaml").write_text("data: sample\n")
    with RunLock(run):
        said = refused("resume", run.root)
    assert f"held by process {os.getpid()}" in said


@pytest.fixture(scope="module")
def guarded() -> Iterator[Head]:
    with ray_head(with_token=True) as head:
        yield head


@pytest.mark.slow
def test_the_head_that_is_found_here_is_gone_or_shut(guarded: Head, tiny_images: Path) -> None:
    """Ray itself would ask either for minutes. Which of this machine's heads it finds is set."""
    environment = {**guarded.environment, "RAY_AUTH_TOKEN": "ab" * 32}
    del environment["RAY_AUTH_TOKEN_PATH"]
    command = search(tiny_images, "--address=auto")
    for found, problem in [
        ("127.0.0.2:1", "Connection refused"),
        (guarded.gcs_address, "put the cluster's token into ~/.ray/auth_token"),
    ]:
        finds = "import functools, ray._private.services as services; "
        finds += f"services.find_gcs_addresses = functools.cache(lambda: ['{found}']); "
        finds += "services.find_bootstrap_address = lambda folder: None; "
        program = ("-c", finds + "from pawtune.search.cli.main import main; main()")
        said = refused(*command, environment=environment, program=program)
        assert f"received 'auto', here {found}: " in said
        assert problem in said


@pytest.mark.slow
def test_more_than_a_cluster_can_ever_give(guarded: Head, tiny_images: Path) -> None:
    for option, words in [
        (
            "--gpus-per-trial=1",
            "--gpus-per-trial must fit on one node, received 1: the largest node",
        ),
        (
            "--cpus-per-trial=3",
            "--cpus-per-trial must fit on one node, received 3: the largest node",
        ),
    ]:
        command = search(tiny_images, f"--address={guarded.gcs_address}", option)
        assert words in refused(*command, environment=guarded.environment)


@pytest.mark.slow
def test_a_token_that_is_not_the_clusters(guarded: Head, tiny_images: Path) -> None:
    environment = {**guarded.environment, "RAY_AUTH_TOKEN": "ab" * 32}
    environment.pop("RAY_AUTH_TOKEN_PATH")
    command = search(tiny_images, f"--address={guarded.gcs_address}")
    said = refused(*command, environment=environment)
    assert "token is missing or incorrect" in said
    assert "RAY_AUTH_TOKEN_PATH" in said
    assert "abab" not in said
    assert shutil.which("ray") is None or "ray get-auth-token" not in said
    where = f"--address={guarded.address}"
    assert "refused our token" in refused("list", where, environment=environment)
