"""Credentials are used and written nowhere: not in files, not in what is printed, not in a process
list. A search runs on a URL with a password and a token, then everything is looked through."""

import base64
import os
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pawtune.data_pipeline.cache import cache_dir, clear_cache
from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.sources.resolve import resolve_source
from pawtune.data_pipeline.url_credentials import (
    has_secrets,
    is_blotted,
    split_login,
    without_secrets,
)
from pawtune.search.config.search_config import default_name, dump_config, load_config
from tests.command_line import pawtune

USER, PASSWORD, TOKEN = "canary-user", "canary-pass%2Fword", "canary-token-4711"
CLOUD_KEY = "canary-cloud-key-0815"
LOGIN = "Basic " + base64.b64encode(b"canary-user:canary-pass/word").decode()
CANARIES = (PASSWORD, "canary-pass/word", TOKEN, CLOUD_KEY, LOGIN.split()[1])


class Server(ThreadingHTTPServer):
    """Serves an archive to those who know user, password and token."""

    daemon_threads = True
    content = b""
    served = 0
    moved_to: str | None = None
    seen: list[str | None]

    @property
    def url(self) -> str:
        login = f"{USER}:{PASSWORD}@"
        return f"http://{login}127.0.0.1:{self.server_port}/pets.zip?token={TOKEN}&version=7"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append(self.headers["Authorization"])
        if self.server.moved_to:
            self.send_response(302)
            self.send_header("Location", self.server.moved_to)
            self.end_headers()
        elif self.headers["Authorization"] != LOGIN or f"token={TOKEN}&" not in self.path:
            self.send_error(401)
        else:
            self.server.served += 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.server.content)))
            self.end_headers()
            self.wfile.write(self.server.content)

    def log_message(self, format: str, *args: object) -> None:
        """Not to the test's output."""


@pytest.fixture
def server(tiny_images: Path, tmp_path: Path) -> Iterator[Server]:
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for path in sorted(tiny_images.rglob("*.*")):
            archive.write(path, path.relative_to(tiny_images))
    with Server(("127.0.0.1", 0), Handler) as server:
        server.content = (tmp_path / "pets.zip").read_bytes()
        (tmp_path / "pets.zip").unlink()
        server.seen = []
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield server
        server.shutdown()


class ProcessWatch:
    """Notes every command line of this machine's processes that holds a canary."""

    def __init__(self) -> None:
        self.found: set[bytes] = set()
        self.looks = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "ProcessWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.3):
            self.looks += 1
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    line = (process / "cmdline").read_bytes()
                except OSError:  # it has ended
                    continue
                if any(canary.encode() in line for canary in CANARIES):
                    self.found.add(line)


def holding(folder: Path, secrets: list[bytes]) -> list[str]:
    """Files below a folder that hold, or are named by, one of the secrets."""
    found = []
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        if any(secret in content or secret in os.fsencode(path) for secret in secrets):
            found.append(str(path))
    return found


@pytest.mark.slow
def test_a_search_on_a_secret_address_leaves_no_trace_of_the_secret(
    server: Server,
    runs_dir: Path,
    tmp_path: Path,
    ray_cluster: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import ray

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CLOUD_KEY)
    ray_token = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_bytes().strip()
    settings = tmp_path / "settings" / "search.yaml"
    settings.parent.mkdir()
    settings.write_text(
        f"data: {server.url}\nruns_dir: {runs_dir}\nfamilies: conv\nimage_size: 32\n"
        "trials: 1\nepochs: 1\nbaselines: off\n"
    )
    said = []
    with ProcessWatch() as watch:
        ended = pawtune(capsys, "run", "--config", settings, "--name=pets")
        said.append(ended)
        assert ended.code == 0, ended.err
        run = runs_dir / "pets"
        # What the run folder keeps of the address is enough to find the archive in the cache.
        said.append(pawtune(capsys, "resume", run, "--trials=+1"))
        assert said[-1].code == 0, said[-1].err
        assert server.served == 1
        said.append(pawtune(capsys, "run", "--config", settings, "--dry-run"))
        said.append(pawtune(capsys, "run", "--config", settings, "--dry-run", "--json"))
        for verb in ("leaderboard", "report", "best"):
            said.append(pawtune(capsys, verb, run))
            assert said[-1].code == 0, said[-1].err
    clear_cache(cache_dir())
    said.append(pawtune(capsys, "resume", run, "--trials=+1"))
    assert said[-1].code == 2
    assert "the address was kept without its credentials" in said[-1].err

    assert watch.looks > 3
    assert watch.found == set()
    secrets = [canary.encode() for canary in CANARIES] + [ray_token]
    assert len(ray_token) > 20
    assert "***" in (run / "search.yaml").read_text()
    assert holding(runs_dir, secrets) == []
    assert holding(tmp_path / "cache", secrets) == []
    logs = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
    assert any(logs.iterdir())
    assert holding(logs, secrets) == []
    for ended in said:
        assert not any(secret.decode() in ended.out + ended.err for secret in secrets)


def test_a_refused_password_is_not_in_the_message(server: Server, tmp_path: Path) -> None:
    wrong = server.url.replace(USER, "canary-intruder").replace(TOKEN, TOKEN[::-1])
    with pytest.raises(
        DataError, match=r"http://\*\*\*@127.0.0.1:\d+/pets.zip\?token=\*\*\*"
    ) as told:
        resolve_source(wrong, cache=tmp_path / "cache")
    assert "the server answered 401" in str(told.value)
    assert TOKEN[::-1] not in str(told.value)


def test_a_password_does_not_follow_to_another_host(server: Server, tmp_path: Path) -> None:
    with Server(("127.0.0.1", 0), Handler) as other:
        other.seen = []
        threading.Thread(target=other.serve_forever, args=(0.01,)).start()
        server.moved_to = f"http://127.0.0.1:{other.server_port}/pets.zip"
        with pytest.raises(DataError, match="the server answered 401"):
            resolve_source(server.url, cache=tmp_path / "cache")
        other.shutdown()
    assert server.seen == [LOGIN]
    assert other.seen == [None]


@pytest.mark.parametrize("bad", ["http://", "http://[", "http://a b/", "http://h:port/a.zip"])
def test_an_address_that_is_none_is_refused(bad: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not an address|cannot be reached"):
        resolve_source(bad, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://me:pw@host/a.zip", "https://***@host/a.zip"),
        ("https://me:p@w@host/a.zip", "https://***@host/a.zip"),
        ("https://token@host/a", "https://***@host/a"),
        (
            "https://b.example/a.zip?X-Amz-Credential=AK%2F1&X-Amz-Date=1&X-Amz-Signature=ab",
            "https://b.example/a.zip?X-Amz-Credential=***&X-Amz-Date=1&X-Amz-Signature=***",
        ),
        ("https://h/a?AWSAccessKeyId=A&Signature=s&Expires=1", None),
        ("https://h/a?sv=2024&sig=a%2Bb%3D", "https://h/a?sv=2024&sig=***"),
        ("https://h/a?access_token=t#secret=u", "https://h/a?access_token=***#secret=***"),
        ("https://h/a.zip?version=7", "https://h/a.zip?version=7"),
        ("/data/cats", "/data/cats"),
    ],
)
def test_what_looks_like_a_credential_is_blotted_out(address: str, shown: str | None) -> None:
    blotted = without_secrets(address)
    if shown is not None:
        assert blotted == shown
    else:
        assert blotted == "https://h/a?AWSAccessKeyId=***&Signature=***&Expires=1"
    assert without_secrets(blotted) == blotted
    assert is_blotted(blotted) == (blotted != address) == has_secrets(address)


def test_logins_are_decoded() -> None:
    assert split_login("http://me:a%40b@h:81/x?y=1") == ("http://h:81/x?y=1", "Basic bWU6YUBi")
    assert split_login("http://h/x@2") == ("http://h/x@2", None)


def test_settings_are_kept_without_secrets_and_paths_as_they_are() -> None:
    config = load_config(None, [], {"data": "https://h/a?key=1", "runs_dir": "/data/key=5"})
    assert load_config(None, [], {"data": "x"}) != config
    text = dump_config(config)
    assert "key=1" not in text
    assert "/data/key=5" in text
    assert "key=1" in dump_config(config, with_secrets=True)
    assert default_name(config).startswith("a-")
