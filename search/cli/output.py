"""What the commands of `pawtune` have in common: JSON, tables, and the name to type next."""

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pawtune.search.run import Run


def print_json(value: Any) -> None:
    """Prints JSON, also of dataclasses; NaN and infinity are refused, for they are none."""
    print(json.dumps(value, indent=2, allow_nan=False, default=asdict))


def emit(content: Any, as_json: bool) -> None:
    """Prints what has an `as_dict`, and a `show` for a console, in one of the two ways."""
    if as_json:
        print_json(content.as_dict())
    else:
        content.show(console())


def console() -> Any:
    """A `rich.console.Console` on stdout; 120 columns wide where that is no terminal."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def shortest(run: "Run") -> str:
    """A run as one types it, quoted for a shell: its name if it is in ./runs, else its path."""
    default = Path("runs").resolve() / run.name
    return shlex.quote(run.name if default == run.folder.root else run.folder.place)
