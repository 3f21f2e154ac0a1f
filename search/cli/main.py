"""`pawtune`: the console script."""

import errno
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typer.exceptions import TyperException

INTERRUPTED = 130
# Of a run folder that is read-only, full or somebody else's: no fault of the command's.
NOT_WRITABLE = (errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EPERM, errno.EROFS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits; bad input is one line on stderr and exit code 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's banner helps nobody here
    # `best` or `predict` beside a search: not the whole card at once. Workers have their part.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # of a home that cannot be written
    _take_no_warning_for_an_error()
    from typer.exceptions import Abort, TyperException

    from pawtune.search.errors import read_on_the_command_line, refuse_without_docstrings
    from pawtune.search.process import Interrupted, interruptible
    from pawtune.search.streams import OutputError, safe_streams

    try:
        with safe_streams(), read_on_the_command_line(), interruptible():
            refuse_without_docstrings()
            from pawtune.search.cli.app import app

            # Standing alone, Typer would draw a box of six lines around a mistyped option.
            code = app(arguments, standalone_mode=False)
        sys.exit(code)
    except (KeyboardInterrupt, Interrupted, Abort):
        print("pawtune: interrupted before its end; give the command again", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except TyperException as error:
        if str(error.format_message()):  # empty where help was printed instead
            print(f"pawtune: {_mistyped(error)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OutputError as error:
        if not isinstance(error.__cause__, BrokenPipeError):  # who read it had enough
            print(
                f"pawtune: stdout must be writable: {error}; what the command made is kept",
                file=sys.stderr,
            )
        sys.exit(1)
    except ValueError as error:  # also of a store, whose errors are OSErrors too
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if not kinds & {"UserError", "DataError", "ModelError"}:
            raise
        print(f"pawtune: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in NOT_WRITABLE or not isinstance(error.filename, str):
            raise
        folder = os.path.dirname(os.path.abspath(error.filename))
        print(
            f"pawtune: {folder} must be a folder that can be read and written: {error.strerror}; "
            "change its permissions, make room, or copy it elsewhere",
            file=sys.stderr,
        )
        sys.exit(2)


def _take_no_warning_for_an_error() -> None:
    """PYTHONWARNINGS=error is meant for code of one's own, not for Keras or for Ray's workers."""
    if "error" in os.environ.get("PYTHONWARNINGS", ""):
        del os.environ["PYTHONWARNINGS"]  # workers inherit it
        warnings.resetwarnings()
        warnings.simplefilter("ignore")


def _mistyped(error: "TyperException") -> str:
    """What was typed wrong, in one line: Typer says the rule, not what it received."""
    from pydantic import ValidationError

    said = " ".join(error.format_message().split()).rstrip(".")
    if isinstance(error.__cause__, ValidationError):
        said += f", received {error.__cause__.errors()[0]['input']!r}"
    words, context = ["--help"], getattr(error, "ctx", None)
    while context is not None and context.parent is not None:
        words.insert(0, context.info_name)
        context = context.parent
    return f"{said}; see `{' '.join(['pawtune', *words])}`"
