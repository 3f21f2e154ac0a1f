"""The live view in a notebook: one output that is drawn again while a search runs.

Jupyter's display is used where a notebook runs this process; nothing of it is imported elsewhere.
"""

import io
import sys
import time
from typing import Any

from rich.console import Console, RenderableType

COLUMNS = 100
REDRAW_S = 0.5  # a notebook keeps each drawing: more often would swell its file and its page
FONT = "font-family:Menlo,Consolas,'DejaVu Sans Mono',monospace;line-height:1.25"


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None


class NotebookView:
    """A renderable in one output of a notebook's cell; `stop` takes it away."""

    def __init__(self) -> None:
        from importlib import import_module

        self._display: Any = import_module("IPython.display")  # there, as a notebook runs this
        self._handle: Any = None
        self._drawn_at = 0.0

    def update(self, view: RenderableType) -> None:
        """Draws the view, unless it was drawn a moment ago."""
        now = time.monotonic()
        if self._handle is not None and now - self._drawn_at < REDRAW_S:
            return
        self._drawn_at = now
        output = self._display.HTML(as_html(view))
        if self._handle is None:
            self._handle = self._display.display(output, display_id=True)
        else:
            self._handle.update(output)

    def stop(self) -> None:
        """Leaves nothing of the view in the cell."""
        if self._handle is not None:
            self._handle.update(self._display.HTML(""))
            self._handle = None


def as_html(view: RenderableType) -> str:
    """What a terminal would show, as a fragment of HTML; all text is escaped."""
    console = Console(
        file=io.StringIO(), record=True, width=COLUMNS, highlight=False, force_jupyter=False
    )
    console.print(view)
    return console.export_html(
        inline_styles=True, code_format=f'<pre style="{FONT}">{{code}}</pre>'
    )
