"""Runs `pawtune`: inside the test's process, where the test's Ray cluster is, or beside it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def begun(*arguments: object, **how: Any) -> Iterator["subprocess.Popen[str]"]:
    """A command line in a process of its own; what is left of it at the end is killed."""
    words = [sys.executable, "-m", "pawtune", *map(str, arguments)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(words, text=True, **{**quiet, **how})
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=30)
