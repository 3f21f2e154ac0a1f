"""An S3 server on loopback, in a process of its own: it can go away and come back."""

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import quote

import pytest

from tests.ray_head import free_ports

BUCKET = "bucket"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-test",
    "AWS_EC2_METADATA_DISABLED": "true",
}
CODE = """
import sys
from moto.server import main
main(["-H", "127.0.0.1", "-p", sys.argv[1]])
"""


class Door:
    """A port of loopback that leads to another, and can be shut: connections are refused then."""

    def __init__(self, port: int, behind: int) -> None:
        self.port = port
        self._behind = behind
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None

    def open(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(128)
        self._listener = listener
        threading.Thread(target=self._let_in, args=(listener,), daemon=True).start()

    def shut(self) -> None:
        assert self._listener is not None
        for connection in [self._listener, *self._open]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._open.clear()

    def _let_in(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                outside, _ = listener.accept()
                inside = socket.create_connection(("127.0.0.1", self._behind))
                self._open += [outside, inside]
                for pair in ((outside, inside), (inside, outside)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                target.sendall(data)
        for connection in (source, target):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


@dataclass
class Server:
    """moto's server behind a door; what it holds lives as long as its process."""

    door: Door
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def port(self) -> int:
        return self.door.port

    def address(self, path: str) -> str:
        """The address of something in the bucket."""
        endpoint = quote(f"http://127.0.0.1:{self.port}", safe="")
        return f"s3://{BUCKET}/{path}?endpoint_override={endpoint}&scheme=http&region=us-east-1"

    @contextmanager
    def away(self) -> Iterator[None]:
        """Cannot be reached; it holds all it held when it comes back."""
        self.door.shut()
        try:
            yield
        finally:
            self.door.open()


@contextmanager
def s3_server() -> Iterator[Server]:
    """Starts a server with an empty bucket; skips where moto is missing."""
    pytest.importorskip("moto", reason="moto is missing: pip install -e '.[dev]'")
    pytest.importorskip("flask_cors", reason="flask-cors is missing: pip install -e '.[dev]'")
    port, outside = free_ports(2)
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **CREDENTIALS},
    )
    try:
        _make_bucket(f"http://127.0.0.1:{port}/{BUCKET}", process)
        door = Door(outside, port)
        door.open()
        try:
            yield Server(door, process)
        finally:
            door.shut()
    finally:
        process.kill()
        process.wait(20)


def _make_bucket(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=5).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
            raise
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
