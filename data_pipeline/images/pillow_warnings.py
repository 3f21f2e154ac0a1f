"""Pillow without its warnings, for as long as it decodes, in whatever threads."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_lock = threading.Lock()
_inside = 0
_filters = ExitStack()


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """For the time of a block Pillow warns of nothing.

    It warns of large images, which open_image rejects by a stricter rule, and of broken EXIF
    blocks, which it passes over: said of every such file, that would bury what the user should
    read. Filters belong to the process: the first thread that decodes sets ours, the last one
    restores those that were there before.
    """
    global _inside
    with _lock:
        if _inside == 0:
            _filters.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _filters.close()
