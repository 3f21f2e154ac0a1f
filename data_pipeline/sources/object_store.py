"""Files in an object store, `s3://` or `gs://`, through the file systems that Ray uses (pyarrow).

An address may carry what its store needs besides bucket and path, as pyarrow reads it:
`s3://bucket/path?endpoint_override=http%3A%2F%2F127.0.0.1%3A9000&scheme=http`. Credentials are no
part of it, because addresses are written into runs: they come from the environment, from the
store's own files in the home folder, or from the machine's role.
"""

import random
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pawtune.data_pipeline.errors import DataError

SCHEMES = ("s3://", "gs://")
CHUNK_BYTES = 2**20
LONGEST_PAUSE_S = 5.0
REFUSED = re.compile(
    r"\b(ACCESS_DENIED|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|SIGNATURE_DOES_NOT_MATCH|"
    r"UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION_TOKEN|EXPIRED_TOKEN|UNAUTHENTICATED|"
    r"PERMISSION_DENIED|InvalidAccessKeyId|ExpiredToken|HTTP status 40[13])\b"
)
CREDENTIALS = (
    "credentials come from the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
    "GOOGLE_APPLICATION_CREDENTIALS), from ~/.aws, or from the machine's role"
)

Result = TypeVar("Result")


class StoreError(DataError, OSError):
    """A store refuses, or does not answer; the text is for people."""


@dataclass(frozen=True)
class Stored:
    """What a store says of a file: its size, and when it was written, by the store's clock."""

    size: int
    mtime_ns: int


def is_address(text: object) -> bool:
    """Whether this is the address of something in an object store."""
    return str(text).startswith(SCHEMES)


def join(address: str, *names: str) -> str:
    """The address of something below another.

    >>> join("s3://bucket/runs/?region=x", "pets")
    's3://bucket/runs/pets?region=x'
    """
    path, mark, options = address.partition("?")
    return "/".join([path.rstrip("/"), *names]) + mark + options


def split(address: str) -> tuple[str, str]:
    """The address above, and the last name; the reverse of `join`.

    >>> split("s3://bucket/runs/pets?region=x")
    ('s3://bucket/runs?region=x', 'pets')
    """
    path, mark, options = address.partition("?")
    parent, _, name = path.rstrip("/").rpartition("/")
    return parent + mark + options, name


def retry_store(
    use: Callable[[], Result],
    patience_s: float,
    say: Callable[[str], None] = lambda line: None,
) -> Result:
    """Does what needs a store again and again, at growing intervals, until it answers.

    Args:
        use: May be called several times.
        patience_s: Seconds of trying again; 0: one attempt. pyarrow itself tries for some 6 s.
        say: Called once when the store stops answering, and once when it answers again.

    Raises:
        OSError: The last failure. A file that is not there is not waited for.
    """
    deadline, pause, away = time.monotonic() + patience_s, 0.5, False
    while True:
        try:
            result = use()
        except FileNotFoundError:
            raise
        except OSError as error:
            if time.monotonic() + pause > deadline:
                raise
            if not away:
                say(f"the object store does not answer, trying again: {one_line(error)}")
            away = True
            time.sleep(pause * random.uniform(0.5, 1.0))  # many workers must not ask in step
            pause = min(2 * pause, LONGEST_PAUSE_S)
        else:
            if away:
                say("the object store answers again")
            return result


def one_line(error: BaseException) -> str:
    """An error's text for a person, without the store's request numbers."""
    return re.sub(r" \(Request ID: \S*\)", "", " ".join(str(error).split()))[:300]


def explained(address: str, error: OSError) -> StoreError:
    """What a person can do about a store that fails, in one line."""
    if isinstance(error, StoreError):
        return error
    text = one_line(error)
    if "NO_SUCH_BUCKET" in text or "NoSuchBucket" in text:
        return StoreError(f"{address}: there is no such bucket; make it, or name another")
    if REFUSED.search(text):
        return StoreError(f"{address}: the object store refuses access ({text}); {CREDENTIALS}")
    return StoreError(f"{address}: the object store does not answer ({text}); try again later")


class ObjectStore:
    """The files below one address, by their names relative to it.

    Raises:
        DataError: The address is none, or holds credentials.
    """

    def __init__(self, address: str) -> None:
        from pyarrow.fs import FileSystem

        user, at, _ = address.partition("?")[0].partition("://")[2].rpartition("@")
        if at and user != "anonymous":
            # Not shown: it may be a secret, and what is printed ends in logs.
            raise DataError(f"an address must hold no credentials before '@'; {CREDENTIALS}")
        options = address.partition("?")[2]
        # One request for a small file instead of three.
        extra = "&allow_delayed_open=true" if address.startswith("s3://") else ""
        shown = address.partition("?")[0] + ("?" + options if options else "")
        try:
            self._files, base = FileSystem.from_uri(
                address + (extra if options else extra.replace("&", "?", 1))
            )
        except OSError as error:
            raise explained(shown, error) from error
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{shown}: an address must be like s3://bucket/folder or gs://bucket/folder: "
                f"{one_line(error)}"
            ) from error
        self.address = shown
        self._base = str(base).rstrip("/")

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}" if name else self._base

    def files(self, folder: str = "") -> dict[str, Stored]:
        """All files below a folder; none where there is no such folder.

        Names that would lead out of a local copy are left out.
        """
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self._path(folder), recursive=True, allow_not_found=True)
        found = {}
        for info in self._files.get_file_info(selector):
            name = info.path.removeprefix(self._base).lstrip("/")
            if info.type == FileType.File and ".." not in PurePosixPath(name).parts:
                found[name] = Stored(info.size, info.mtime_ns or 0)
        return found

    def folders(self) -> list[str]:
        """Names of the folders directly below the address."""
        from pyarrow.fs import FileSelector, FileType

        found = self._files.get_file_info(FileSelector(self._base, allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == FileType.Directory)

    def stat(self, name: str = "") -> Stored | None:
        """One file; None where it is missing, or is a folder."""
        from pyarrow.fs import FileType

        info = self._files.get_file_info(self._path(name))
        return Stored(info.size, info.mtime_ns or 0) if info.type == FileType.File else None

    def bucket_exists(self) -> bool:
        """Whether the bucket does."""
        from pyarrow.fs import FileType

        return bool(
            self._files.get_file_info(self._base.partition("/")[0]).type != FileType.NotFound
        )

    def version(self, name: str = "") -> str:
        """Identifies this version of a file: the store's tag, or size and time."""
        with self._open(name) as stream:
            metadata = stream.metadata() or {}
        tag = metadata.get(b"ETag") or metadata.get(b"etag") or metadata.get(b"md5Hash")
        stored = self.stat(name)
        return tag.decode() if tag else f"{stored.size}-{stored.mtime_ns}" if stored else ""

    def read(self, name: str) -> bytes:
        """A file's content."""
        with self._open(name) as stream:
            return bytes(stream.read())

    def download(
        self, name: str, target: Path, received: Callable[[int], None] = lambda count: None
    ) -> None:
        """Writes a file's content to a local path, telling the bytes of each chunk."""
        with self._open(name) as stream, target.open("wb") as file:
            while chunk := stream.read(CHUNK_BYTES):
                file.write(chunk)
                received(len(chunk))

    def _open(self, name: str) -> Any:
        # compression: pyarrow would unpack a .gz by its name.
        return self._files.open_input_stream(self._path(name), compression=None)

    def write(self, name: str, content: bytes) -> None:
        """Writes a file whole or not at all, as object stores do."""
        with self._files.open_output_stream(self._path(name), compression=None) as stream:
            stream.write(content)

    def delete(self, name: str) -> None:
        """Deletes a file; one that is not there is no failure."""
        with suppress(FileNotFoundError):
            self._files.delete_file(self._path(name))
