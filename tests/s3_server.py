"""An S3 server on loopback, in a process of its own: it can go away and come back."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
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


@dataclass
class Server:
    """moto's server; what it holds lives as long as its process."""

    port: int
    process: subprocess.Popen[bytes] = field(repr=False)

    def address(self, path: str) -> str:
        """The address of something in the bucket."""
        endpoint = quote(f"http://127.0.0.1:{self.port}", safe="")
        return f"s3://{BUCKET}/{path}?endpoint_override={endpoint}&scheme=http&region=us-east-1"

    @contextmanager
    def away(self) -> Iterator[None]:
        """Stops answering; it holds all it held when it comes back."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def s3_server() -> Iterator[Server]:
    """Starts a server with an empty bucket; skips where moto is missing."""
    pytest.importorskip("moto", reason="moto is missing: pip install -e '.[dev]'")
    pytest.importorskip("flask_cors", reason="flask-cors is missing: pip install -e '.[dev]'")
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **CREDENTIALS},
    )
    try:
        _make_bucket(f"http://127.0.0.1:{port}/{BUCKET}", process)
        yield Server(port, process)
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
