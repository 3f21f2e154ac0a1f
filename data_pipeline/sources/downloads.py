"""Downloading a file once: resumed where the server can, otherwise begun again.

What has come is kept in TARGET.part with the server's name for this version of the file (ETag or
Last-Modified); the next try asks for the rest of that version, and gets the whole if it changed
(RFC 9110, sections 13.1.5 and 14). Only a complete file gets its name.
"""

import http.client
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.progress import Progress, silent
from pawtune.data_pipeline.safe_files import write_atomically
from pawtune.data_pipeline.url_credentials import split_login, without_secrets

TIMEOUT_S = 8.0
CHUNK_BYTES = 2**18
REMEDY = "check the connection, or download the archive elsewhere and give its path instead"


def download(url: str, target: Path, progress: Progress | None = None) -> Path:
    """Downloads a URL to a file, telling progress ("download", bytes, bytes in all or None).

    User and password in the URL are sent to its host, and to none that it redirects to.

    Raises:
        DataError: no answer within TIMEOUT_S, a refusal, or an end before the end.
    """
    progress = progress or silent
    part, version = Path(f"{target}.part"), Path(f"{target}.version")
    target.parent.mkdir(parents=True, exist_ok=True)
    done = part.stat().st_size if part.exists() and _read(version) else 0
    headers = {"User-Agent": "pawtune", "Accept-Encoding": "identity"}
    if done:
        headers |= {"Range": f"bytes={done}-", "If-Range": _read(version)}
    shown = without_secrets(url)
    try:
        address, login = split_login(url)
        request = urllib.request.Request(address, headers=headers)
        if login is not None:
            request.add_unredirected_header("Authorization", login)
        response = _open(request, shown)
    except ValueError as error:  # no host, a space, a port that is no number
        if isinstance(error, DataError):
            raise
        raise DataError(f"{shown}: not an address: {without_secrets(str(error))}") from None
    except urllib.error.HTTPError as error:
        error.close()
        if done and error.code == 416:  # nothing is left after our part: it is not of this file
            part.unlink()
            return download(url, target, progress)
        raise DataError(f"{shown}: the server answered {error.code} {error.reason}") from error
    with response:
        if not _continues(response, done):
            done = 0
            part.unlink(missing_ok=True)
            write_atomically(version, _version(response))
        length = response.headers.get("Content-Length")
        total = done + int(length) if length and length.isdigit() else None
        with part.open("ab") as file:
            done = _receive(shown, response, file, done, total, progress)
    if total is not None and done != total:
        raise DataError(f"{shown}: {_broke_off(done, total)}")
    os.replace(part, target)
    version.unlink()
    return target


def _read(path: Path) -> str:
    return path.read_text("utf-8") if path.exists() else ""


def _open(request: urllib.request.Request, shown: str) -> http.client.HTTPResponse:
    """Opens a URL within TIMEOUT_S in all.

    The time limit of urlopen holds for each address of a host and not for looking up its name,
    which alone may take half a minute without a network; hence the thread.
    """
    outcome: list[http.client.HTTPResponse | BaseException] = []

    def work() -> None:
        try:
            outcome.append(urllib.request.urlopen(request, timeout=TIMEOUT_S))
        except BaseException as error:  # handed to the caller's thread
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    result = outcome[0] if outcome else TimeoutError(f"no answer within {TIMEOUT_S:g} s")
    if isinstance(result, urllib.error.HTTPError):
        raise result
    if isinstance(result, BaseException):
        reason = getattr(result, "reason", result)
        text = f"{shown}: cannot be reached ({without_secrets(str(reason))}); {REMEDY}"
        raise DataError(text) from None
    return result


def _continues(response: http.client.HTTPResponse, done: int) -> bool:
    """Whether the answer is the rest of what is there."""
    content_range = response.headers.get("Content-Range", "")
    return bool(done) and response.status == 206 and content_range.startswith(f"bytes {done}-")


def _version(response: http.client.HTTPResponse) -> str:
    """What the server calls this version; empty, so that nothing is resumed, if it does not say.

    A weak ETag names files that may differ in bytes, so it must not be used to continue one.
    """
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _receive(
    url: str,
    response: http.client.HTTPResponse,
    file: IO[bytes],
    done: int,
    total: int | None,
    progress: Progress,
) -> int:
    progress("download", done, total)
    try:
        while chunk := response.read(CHUNK_BYTES):
            file.write(chunk)
            done += len(chunk)
            progress("download", done, total)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url}: {_broke_off(done, total)} ({error})") from error
    return done


def _broke_off(done: int, total: int | None) -> str:
    whole = f" of {total:,}" if total is not None else ""
    return f"broke off after {done:,}{whole} bytes; give the same command again to continue"
