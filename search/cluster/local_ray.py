"""What Ray needs of this machine to start: a short temporary folder, a token's place, bash."""

import atexit
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import ray

from pawtune.search.cluster.node_events import Say
from pawtune.search.errors import UserError

# Ray's sockets lie at TMP/ray/session_<26 characters>_<process>/sockets/plasma_store, and Linux
# takes no path of a socket above 107 bytes.
MAX_BYTES = 107 - len("/ray/session_YYYY-MM-DD_hh-mm-ss_uuuuuu_4194304/sockets/plasma_store")
END_S = 60.0  # for Ray to shut down; it takes about 2 s
SHORT = ("/tmp", "/var/tmp", "/dev/shm")


def prepare_local_ray(say: Say) -> None:
    """Chooses other folders for a local Ray where the usual ones cannot be used.

    Args:
        say: Takes a line where another temporary folder is used than the one that was set.

    Raises:
        UserError: No folder serves.
    """
    _short_temporary_folder(say)
    _token_without_home()
    _path_with_a_shell()


def start_to_the_end(start: Callable[[], object]) -> None:
    """Starts Ray in a thread that lives as long as the process, and shuts it down there.

    Where the thread that started Ray has ended, `ray.shutdown` takes a minute and ends the process
    with an error. The main thread lives until Ray has ended; another thread may not.

    Args:
        start: Starts Ray; what it raises is raised here.
    """
    if threading.current_thread() is threading.main_thread():
        start()
        return
    started, over = Future[None](), threading.Event()

    def live() -> None:
        try:
            start()
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(None)
        over.wait()
        ray.shutdown()

    thread = threading.Thread(target=live, name="ray", daemon=True)
    thread.start()
    started.result()

    def end() -> None:
        over.set()
        thread.join(END_S)

    atexit.register(end)


def _short_temporary_folder(say: Say) -> None:
    try:
        usual = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    except OSError as error:
        raise _no_folder(str(error.strerror or error)) from error
    trouble = folder_trouble(Path(usual))
    if trouble is None:
        return
    for base in (usual, *SHORT):
        for folder in (Path(base), Path(base) / f"u{os.getuid()}"):
            if folder_trouble(folder) is None:
                os.environ["RAY_TMPDIR"] = str(folder)
                say(f"Ray uses {folder} for temporary files: {usual} {trouble}")
                return
    raise _no_folder(f"{usual} {trouble}")


def folder_trouble(folder: Path) -> str | None:
    """What keeps Ray from using a folder for temporary files; None where nothing does."""
    length = len(os.fsencode(folder))
    if length > MAX_BYTES:
        return f"has {length} bytes, and sockets there may have {MAX_BYTES}"
    for place in (folder, folder / "ray"):
        try:
            place.mkdir(mode=0o700 if place == folder else 0o777, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            return f"cannot be written ({error.strerror})"
    return None


def _no_folder(reason: str) -> UserError:
    return UserError(
        f"Ray needs a temporary folder of at most {MAX_BYTES} bytes that can be written, and there "
        f"is none: {reason}; name one: RAY_TMPDIR=/short/folder"
    )


def _token_without_home() -> None:
    """Ray keeps the token of a local cluster in ~/.ray; where it cannot be written, here."""
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    with suppress(OSError, RuntimeError):
        kept = Path.home() / ".ray"
        if (kept / "auth_token").is_file():
            return
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=kept):
            return
    folder = tempfile.mkdtemp(prefix="pawtune-")  # nobody else may read it
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    token = Path(folder) / "auth_token"
    token.write_text(secrets.token_hex(32))
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)


def _path_with_a_shell() -> None:
    """Ray starts workers by bash, found by PATH; without it a search would wait for ever."""
    if shutil.which("bash") is None:
        kept = os.environ.get("PATH")
        os.environ["PATH"] = os.pathsep.join(filter(None, (kept, "/usr/bin", "/bin")))
