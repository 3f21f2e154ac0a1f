"""Files of the driver's machine that other nodes do not see, sent through Ray's object store."""

from dataclasses import dataclass
from pathlib import Path

import ray

from pawtune.data_pipeline.cache import cache_dir
from pawtune.search.storage.run_folder import write_bytes


@dataclass(frozen=True)
class SentFile:
    """A file that every node can have; made by `send_file`.

    Attributes:
        file: On the node that sent it.
        node: Ray's id of that node.
        key: A hash that decides on its contents: other nodes keep it under this.
        content: Its bytes.
    """

    file: Path
    node: str
    key: str
    content: "ray.ObjectRef[bytes]"

    def here(self) -> Path:
        """The file on this node; elsewhere a copy in the cache."""
        if ray.get_runtime_context().get_node_id() == self.node:
            return self.file
        copy: Path = cache_dir() / "sent" / self.key[:32] / self.file.name
        if not copy.exists():
            write_bytes(copy, ray.get(self.content))
        return copy


def send_file(file: Path, key: str) -> SentFile:
    """Puts a file of this node where workers on all nodes find it."""
    node = ray.get_runtime_context().get_node_id()
    return SentFile(file, node, key, ray.put(file.read_bytes()))
