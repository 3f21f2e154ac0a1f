"""What `--data` may be, and the folder of images that it stands for.

A folder is used in place. An archive is unpacked once into the cache, under the hash of its bytes.
A URL is downloaded once, its archive unpacked and then dropped. `sample` is drawn once. All of it
is made under a temporary name and moved into place, so that what is in the cache is whole.

Of a URL with credentials in it only what `without_secrets` leaves is written down. That is enough
to find the unpacked archive again; not to download it once more.
"""

import difflib
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from pawtune.data_pipeline.cache import prepare_cache
from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.file_lock import build_lock
from pawtune.data_pipeline.images.decode import open_image, read_file
from pawtune.data_pipeline.progress import Progress, silent
from pawtune.data_pipeline.safe_files import shown, write_atomically
from pawtune.data_pipeline.sources import archives, sample
from pawtune.data_pipeline.sources.downloads import download
from pawtune.data_pipeline.sources.object_store import is_address
from pawtune.data_pipeline.sources.stored_files import copy_stored, find_stored, state_of
from pawtune.data_pipeline.splitting.folder_tree import is_system_folder
from pawtune.data_pipeline.url_credentials import has_secrets, is_blotted, without_secrets

CATS_AND_DOGS_URL = "https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip"
NAMES = ("cats_and_dogs", "sample")


def is_path(data: str) -> bool:
    """Whether `--data` is a path: a name wins over a folder called so, and an address is none."""
    return data not in NAMES and "://" not in data


def resolve_source(data: str, *, cache: Path, progress: Progress | None = None) -> Path:
    """The root folder of images for a name, URL, archive or folder; absolute.

    A name wins over a folder of the same name: write `./sample` for the folder.

    Raises:
        DataError: nothing of that name, an unsafe or broken archive, a failed download.
    """
    progress = progress or silent
    if data == "sample":
        return _sample(cache, progress)
    if data == "cats_and_dogs":
        return _inner_root(_downloaded(CATS_AND_DOGS_URL, cache, progress))
    if data.lower().startswith(("http://", "https://")):
        return _inner_root(_downloaded(data, cache, progress))
    if is_address(data):
        return _inner_root(_from_store(data, cache, progress))
    if "://" in data and not data.lower().startswith("file:"):
        raise DataError(
            f"{without_secrets(data)}: only http://, https://, s3:// and gs:// can be "
            "downloaded; fetch it yourself"
        )
    path, kind = _look_at(data)
    if stat.S_ISDIR(kind):
        return path
    if stat.S_ISREG(kind):
        try:
            return _inner_root(_unpacked(path, cache, progress))
        except DataError:
            _refuse_table(data, path)
            _refuse_picture(data, path)
            raise
    raise DataError(_not_found(data, kind))


@contextmanager
def named_as_given(data: str) -> Iterator[None]:
    """Lets refusals of what was unpacked name what was given, too.

    Their own path is one of the cache, which the user has never seen.
    """
    try:
        yield
    except DataError as error:
        if is_path(data) and stat.S_ISDIR(_look_at(data)[1]):
            raise
        raise DataError(f"{shown(without_secrets(data))}: {error}") from error


def _look_at(data: str) -> tuple[Path, int]:
    """The absolute path, and the mode of what is there, 0 if nothing.

    Raises:
        DataError: it cannot be looked at.
    """
    if not data:
        return Path(), 0
    try:
        path = Path(os.path.realpath(os.path.expanduser(data)))
        return path, path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return path, 0
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        text = shown(data if len(data) < 300 else f"{data[:300]}…")
        raise DataError(
            f"data must be a path that can be looked at, received {text}: {reason}; check it, and "
            "the permissions of the folders above"
        ) from error


def _refuse_table(data: str, path: Path) -> None:
    """Says how a table of labels is given; nothing for other files."""
    if path.suffix.lower() in (".csv", ".tsv"):
        raise DataError(
            f"data must be a folder of images or an archive, received the table {shown(data)!r}; "
            "give the folder of its images with --data and the table with --labels"
        ) from None


def _refuse_picture(data: str, path: Path) -> None:
    """Says what to give in place of a picture; nothing for other files."""
    try:
        open_image(read_file(path))
    except DataError:
        return
    raise DataError(
        f"data must be a folder of class folders, or an archive, received the picture {data!r}; "
        f"give the folder that it is in, {path.parent}, or the one above"
    ) from None


def _not_found(data: str, kind: int) -> str:
    if kind:
        return (
            f"data must be a folder or an archive, received {shown(data)}, which is neither a "
            "folder nor a regular file"
        )
    expanded = os.path.expanduser(data)
    if os.path.islink(expanded):
        target = shown(os.readlink(expanded))
        return f"{shown(data)} is a link to {target}, which is not there; mend the link"
    close = difflib.get_close_matches(data.lower().replace("-", "_"), NAMES, n=1)
    meant = _meant(data) or (close[0] if close else "")
    hint = f"; did you mean {shown(meant)}?" if meant else ""
    if os.sep in data or Path(data).suffix:
        there = next(
            folder for folder in Path(os.path.abspath(expanded)).parents if folder.exists()
        )
        return (
            f"no such folder or archive: {shown(data)}{hint}; check the path, it exists as far as "
            f"{shown(there)}"
        )
    return (
        f"no such folder, archive or name: {shown(data)}{hint} (names: {', '.join(NAMES)}; or give "
        "a folder, a zip or tar archive, or a URL)"
    )


def _meant(data: str) -> str:
    """The path that exists, where this one holds what a shell takes away; or "".

    Quotes and backslashes, a variable, file://, blanks around it.
    """
    plain = os.path.expandvars(data.strip().strip("'\""))
    if plain.lower().startswith("file:"):
        plain = unquote(re.sub("(?i)^file:(//(localhost)?(?=/))?", "", plain))
    for path in (plain, plain.replace("\\ ", " ")):
        if path != data and os.path.exists(os.path.expanduser(path)):
            return path
    return ""


def _sample(cache: Path, progress: Progress) -> Path:
    place = cache / "samples" / f"sample-{sample.VERSION}"
    return _made_once(cache, place, lambda folder: sample.make_sample(folder, progress=progress))


def _unpacked(archive: Path, cache: Path, progress: Progress) -> Path:
    """The folder in the cache that holds an archive's content."""
    try:
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{archive}: cannot be read: {error.strerror or error}") from error
    place = cache / "archives" / digest[:32]
    return _made_once(
        cache, place, lambda folder: archives.unpack(archive, folder, progress=progress)
    )


def _from_store(address: str, cache: Path, progress: Progress) -> Path:
    """The folder in the cache that holds a folder, or an archive's content, of an object store."""
    store, found = find_stored(address)
    prepare_cache(cache)
    place = cache / "stored" / state_of(store, found)

    def copy(folder: Path) -> None:
        if list(found) != [""]:
            copy_stored(store, found, folder, progress)
            return
        archive = folder.with_name(f"{folder.name}.archive")
        try:
            copy_stored(store, found, archive, progress)
            archives.unpack(archive, folder, progress=progress)
        except DataError as error:
            text = str(error).removeprefix(f"{archive}: ").removeprefix(f"{address}: ")
            raise DataError(f"{address}: {text}") from error
        finally:
            archive.unlink(missing_ok=True)

    return _made_once(cache, place, copy)


def _downloaded(url: str, cache: Path, progress: Progress) -> Path:
    """The folder in the cache that holds the archive behind a URL.

    Which archive that was is noted; the archive itself is dropped, or it would take its room twice
    and, were it a broken one, be found again at each try.
    """
    prepare_cache(cache)
    note = _note(cache, url)
    with build_lock(note):
        try:
            place = cache / "archives" / str(json.loads(note.read_bytes())["archive"])
            if place.is_dir():
                return place
        except (OSError, ValueError, KeyError, TypeError):
            pass  # not downloaded yet
        if is_blotted(url):
            raise DataError(
                f"{url}: the address was kept without its credentials, and what it led to is no "
                "longer in the cache; give the whole address, or a folder, with --data"
            )
        archive = download(url, note.with_suffix(".archive"), progress)
        try:
            place = _unpacked(archive, cache, progress)
        except DataError as error:
            text = str(error).removeprefix(f"{archive}: ")
            raise DataError(f"{without_secrets(url)}: {text}") from error
        finally:
            archive.unlink(missing_ok=True)
        public = without_secrets(url)
        # Under the address as a run folder keeps it, too: a resumed search knows no other.
        for address in {url, public} if has_secrets(url) else {url}:
            content = json.dumps({"url": public, "archive": place.name})
            write_atomically(_note(cache, address), content)
        return place


def _note(cache: Path, url: str) -> Path:
    return cache / "downloads" / f"{hashlib.sha256(os.fsencode(url)).hexdigest()[:32]}.json"


def _made_once(cache: Path, place: Path, make: Callable[[Path], object]) -> Path:
    """Makes a folder unless it is there; two processes may try, the first to end wins."""
    if not place.is_dir():
        prepare_cache(cache)
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
        try:
            make(unfinished)
            os.replace(unfinished, place)
        except OSError as error:
            if not place.is_dir():
                raise DataError(f"cannot write {place}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return place.resolve()


def _inner_root(folder: Path) -> Path:
    """Goes down through single folders, as archives often wrap their content in one.

    A folder of class folders is not gone into, even if it holds one class only.
    """
    while True:
        inner = [
            path for path in folder.iterdir() if path.is_dir() and not is_system_folder(path.name)
        ]
        if len(inner) != 1 or not any(path.is_dir() for path in inner[0].iterdir()):
            return folder.resolve()
        folder = inner[0]
