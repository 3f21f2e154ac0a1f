"""How long work tells its caller how far it has come."""

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Called with (stage, done, total). Stages: "download" counts bytes, "unpack" files, "hash" and
"sample" images; total is None where it is not known."""


def silent(stage: str, done: int, total: int | None) -> None:
    """Progress that nobody watches."""
