"""Runs `pawtune` inside the test's process, where the test's Ray cluster is."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from pawtune.search.cli.main import main


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout as JSON, all of it."""
        return json.loads(self.out)


def pawtune(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    """Runs one command line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return Outcome(int(ended.value.code or 0), captured.out, captured.err)
