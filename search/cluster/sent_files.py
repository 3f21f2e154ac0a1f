"""Files of the driver's machine that other nodes may not see, sent through Ray's object store."""

from pathlib import Path

import ray

from pawtune.data_pipeline.cache import cache_dir
from pawtune.search.storage.run_folder import write_bytes


def file_here(file: Path, content: "ray.ObjectRef[bytes] | None") -> Path:
    """A file on this node: itself where it is seen, else written into the cache.

    Args:
        file: On the driver's machine.
        content: Its bytes; None where every node sees it.
    """
    if content is None or file.exists():
        return file
    copy: Path = cache_dir() / "sent" / content.hex() / file.name
    if not copy.exists():
        write_bytes(copy, ray.get(content))
    return copy
