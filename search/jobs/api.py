"""Access to a cluster's jobs API: its address, its token, and errors where it does not answer."""

import http.client
import ipaddress
import json
import logging
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from pawtune.data_pipeline.safe_files import expanded
from pawtune.data_pipeline.url_credentials import without_secrets
from pawtune.search.errors import UserError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
TIMEOUT_S = 3.0  # of each of two questions: a wrong address is reported within 10 s
HEAD_KNOWN_S = 8.0  # a new cluster's dashboard answers 5 s before it knows its own nodes
NO_AGENT = "No available agent"  # Ray's word where a head cannot start jobs
TOKEN_REMEDY = (
    "put the cluster's token into ~/.ray/auth_token, or name its file in RAY_AUTH_TOKEN_PATH"
)


class JobsApi:
    """A cluster whose jobs API answers and lets us in.

    Args:
        address: "http://host:8265"; None: $RAY_API_SERVER_ADDRESS, else this machine's port 8265.
        insecure: Whether to continue without a token where the address is not this machine's.

    Raises:
        UserError: Nothing answers there, it is no Ray cluster, or the token is missing or wrong.
    """

    def __init__(self, address: str | None, insecure: bool = False) -> None:
        given = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
        self.address = _as_url(given)
        self.shown = without_secrets(self.address)
        with_token = use_token()
        if not with_token and not insecure and not self.is_loopback:
            raise UserError(
                f"--address {self.shown} is not this machine, and there is no token: whatever "
                f"answers there may be anybody's; {TOKEN_REMEDY}, or add --insecure"
            )
        self._probe()
        self._headers = {"Authorization": f"Bearer {_token()}"} if with_token else {}
        self.get("/api/jobs/")  # anybody may read the version, but not the jobs
        # Only now: Ray reads what use_token() set while it is imported.
        from ray.job_submission import JobSubmissionClient

        for handler in logging.getLogger("ray").handlers:
            handler.setLevel(logging.ERROR)  # it would tell of every package and socket
        self.client = JobSubmissionClient(self.address)

    @property
    def is_loopback(self) -> bool:
        """Whether the address is this machine's own, which may yet be one end of a tunnel."""
        host = urlsplit(self.address).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def is_on_this_machine(self) -> bool:
        """Whether the cluster's head runs here, where it sees the paths that we see.

        A loopback address alone does not say so: `ray dashboard` forwards one to a far cluster.
        """
        if not self.is_loopback:
            return False
        deadline = time.monotonic() + HEAD_KNOWN_S
        while not (heads := self._heads()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return heads == [socket.gethostname()]

    def _heads(self) -> list[str]:
        nodes = self.get("/nodes?view=summary")["data"]["summary"]
        return [node["hostname"] for node in nodes if node["raylet"].get("isHeadNode")]

    def get(self, path: str) -> Any:
        """The JSON at a path of the dashboard.

        Raises:
            UserError: It is not there, or we are not let in.
        """
        request = urllib.request.Request(self.address + path, headers=self._headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (401, 403):
                problem = "needs a token" if error.code == 401 else "refused our token"
                raise UserError(f"the cluster at {self.shown} {problem}; {TOKEN_REMEDY}") from None
            raise UserError(self._no_cluster(f"it answered {error.code}")) from None
        except OSError as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(self._no_cluster(reason)) from None
        except http.client.HTTPException:  # its text holds raw bytes
            reason = "that port does not speak HTTP: it may be the one that workers join"
            raise UserError(self._no_cluster(reason)) from None
        except ValueError:
            raise UserError(self._no_cluster("that page is not the Ray dashboard")) from None

    def ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """What a method of Ray's client returns.

        Raises:
            UserError: It failed, or the cluster has gone.
        """
        with self.explained():
            return getattr(self.client, method)(*arguments, **options)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turns errors of Ray's client into one line."""
        try:
            yield
        except (RuntimeError, OSError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            if NO_AGENT in first:
                raise UserError(
                    f"the cluster at {self.shown} takes no job: its head has no dashboard agent, "
                    "as where another Ray on that machine holds its port (52365 unless chosen); "
                    "start the head with --dashboard-agent-listen-port and a free port"
                ) from error
            raise UserError(
                f"the cluster at {self.shown} failed: {first}; check that it is up: "
                f"`pawtune list --address {self.shown}`"
            ) from error

    def _probe(self) -> None:
        """Fails at once where nothing listens; Ray's own client would wait without end."""
        parts = urlsplit(self.address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            socket.create_connection((parts.hostname or "", port), timeout=TIMEOUT_S).close()
        except OSError as error:
            raise UserError(self._no_cluster(error.strerror or str(error))) from None

    def _no_cluster(self, reason: str) -> str:
        return (
            f"--address must be that of a Ray cluster's dashboard, received {self.shown}: "
            f"{reason}; start one with `ray start --head`, or forward one with "
            "`ray dashboard cluster.yaml`"
        )


def use_token() -> bool:
    """Has Ray use a token where there is one; to be called before Ray is imported.

    Raises:
        UserError: RAY_AUTH_MODE asks for a token, and there is none.
    """
    there = _token() is not None
    mode = os.environ.setdefault("RAY_AUTH_MODE", "token" if there else "disabled")
    if mode.lower() == "token" and not there:
        raise UserError(f"RAY_AUTH_MODE asks for a token, received none; {TOKEN_REMEDY}")
    return mode.lower() == "token"


def _token() -> str | None:
    """The token that Ray takes: of the environment, of the file it names, or of the home folder."""
    given = os.environ.get("RAY_AUTH_TOKEN")
    if given:
        return given.strip()
    for name in (os.environ.get("RAY_AUTH_TOKEN_PATH"), "~/.ray/auth_token"):
        with suppress(OSError, UnicodeError):
            if name:
                return expanded(name).read_text().strip()
    return None


def _as_url(address: str) -> str:
    """An address as http://host:port without anything after it.

    >>> _as_url("head:8265/")
    'http://head:8265'
    """
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or address in ("auto", "local"):
        raise UserError(
            "--address must be the URL of a cluster's dashboard, received "
            f"{without_secrets(address)!r}; give for example {DEFAULT_ADDRESS}"
        )
    return f"{parts.scheme}://{parts.netloc}"
