"""What a person asked for cannot be done, and a search that came to nothing."""

from typing import Any


class UserError(ValueError):
    """Bad input to a search. The text is for people: one line a problem, with its remedy."""


class SearchFailedError(RuntimeError):
    """No trial of a search finished an epoch.

    Attributes:
        run: The `Run`; what became of each trial is in it.
    """

    def __init__(self, message: str, run: Any) -> None:
        super().__init__(message)
        self.run = run
