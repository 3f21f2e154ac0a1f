"""Errors that a person can act on: printed as a message, without a traceback.

Messages name options as the command line has them. Whoever calls from Python reads the names of
arguments and settings instead: public functions are `readable_in_python`.
"""

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, ParamSpec, TypeVar, get_args

from pawtune.data_pipeline.errors import DataError
from pawtune.models.errors import ModelError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

OPTION = re.compile(r"(?<![\w-])--([a-z][a-z-]*)(?: (?=[A-Z0-9'\"/]))?")
SETTINGS = {  # options whose setting has another name
    "cpus-per-trial": "resources.cpus_per_trial",
    "gpus-per-trial": "resources.gpus_per_trial",
    "concurrency": "resources.concurrency",
    "time-budget": "time_budget_s",
    "baselines-only": "baselines",
}
# What an annotation takes beyond its own class: numbers of NumPy, whole ones for real ones.
WIDER = {int: Integral, float: Real}
NOT_ASKED = (Any, inspect.Parameter.empty)
_typed: ContextVar[bool] = ContextVar("typed on a command line", default=False)


class UserError(ValueError):
    """Bad input to a search. The text is for people: one line a problem, with its remedy."""


def refuse_without_docstrings() -> None:
    """Refuses a Python that drops docstrings: Ray's import would end in an error of its own.

    Raises:
        UserError: PYTHONOPTIMIZE is 2 or more, or Python was started with -OO.
    """
    if sys.flags.optimize > 1:
        raise UserError(
            "Python must keep docstrings, which Ray reads, received PYTHONOPTIMIZE=2 or -OO; unset "
            "it, or give 1"
        )


def not_writable(folder: Path, error: OSError) -> UserError:
    """The error where a run folder takes no file."""
    return UserError(
        f"a run folder must be writable, received {folder}: {error.strerror}; make it so, or copy "
        "the run elsewhere"
    )


@contextmanager
def read_on_the_command_line() -> Iterator[None]:
    """Within the block, messages name options as they are typed."""
    token = _typed.set(True)
    try:
        yield
    finally:
        _typed.reset(token)


def readable_in_python(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorates a public function: its errors name arguments and settings, not `--options`.

    Arguments of other types than its annotations name are a UserError.
    """

    signature = inspect.signature(function)

    @functools.wraps(function)
    def called(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            for name, value in signature.bind(*args, **kwargs).arguments.items():
                _refuse_wrong_type(function, name, value, signature.parameters[name].annotation)
            return function(*args, **kwargs)
        except (UserError, DataError, ModelError) as error:
            if not _typed.get():
                error.args = (in_python_words(str(error)), *error.args[1:])
            raise

    return called


def _refuse_wrong_type(function: Callable[..., Any], name: str, value: object, hint: Any) -> None:
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if any(kind in NOT_ASKED or not isinstance(kind, type) for kind in kinds):
        return  # of another kind, or in quotes: the function looks by itself
    if isinstance(value, tuple(WIDER.get(kind, kind) for kind in kinds)):
        return
    names = [kind.__name__.replace("NoneType", "None") for kind in kinds]
    raise UserError(
        f"{name} must be {' or '.join(names)}, received {value!r:.60}; see "
        f"help({function.__qualname__})"
    )


def in_python_words(message: str) -> str:
    """A message without the dashes of options; commands in backticks stay as they are typed.

    >>> in_python_words("--runs-dir must be a folder; choose --top 2, or `pawtune list --json`")
    'runs_dir must be a folder; choose top=2, or `pawtune list --json`'
    """
    parts = message.split("`")
    parts[::2] = (OPTION.sub(_argument, part) for part in parts[::2])
    return "`".join(parts)


def _argument(option: re.Match[str]) -> str:
    name = SETTINGS.get(option[1], option[1].replace("-", "_"))
    return f"{name}=" if option[0].endswith(" ") else name
