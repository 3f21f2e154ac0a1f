"""How long-running work reports its progress to the caller."""

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Called with (stage, done, total). Stages: "download" counts bytes, "unpack" files, "hash" and
"sample" images; total is None where it is not known."""


def silent(stage: str, done: int, total: int | None) -> None:
    """Progress that nobody watches."""
