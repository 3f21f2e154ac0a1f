"""Writing a file so that a reader sees the old content or the new, never a part."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path` to write to; moved into place if all goes well.

    The temporary name keeps the suffix, by which writers choose a format.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: str) -> None:
    """Writes a UTF-8 text file whole or not at all; its folder is made."""
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8", newline="")
