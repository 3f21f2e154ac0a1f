"""Stages before the trials: how far each is, and how long it took.

A driver notes the stage it is at in the run folder, so that whoever watches from outside sees it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from pawtune.search.errors import UserError
from pawtune.search.progress.bars import Bar
from pawtune.search.storage.run_folder import RunFolder, read_json, write_json

NOTE_S = 1.0  # between two notes of one stage


class Stages:
    """The stages of one session of a search."""

    def __init__(self) -> None:
        self._bars: dict[str, Bar] = {}
        self._file: Path | None = None
        self._noted_at = 0.0

    @contextmanager
    def noted_in(self, run: RunFolder) -> Iterator[None]:
        """Within the block, `read_stage` gives the stage that is running."""
        self._file = stage_file(run)
        try:
            yield
        finally:
            self.over()

    def take(self, name: str, done: int, total: int | None, waits: str = "") -> None:
        """`done` of `total` (bytes for downloads, else items); called for the first time with 0."""
        now = time.time()
        is_edge = name not in self._bars or (total is not None and done >= total)
        began = self._bars[name].began if name in self._bars else now
        bar = self._bars[name] = Bar(name, done, total, began, at=now, waits=waits)
        if self._file is not None and (is_edge or now - self._noted_at >= NOTE_S):
            self._noted_at = now
            write_json(self._file, asdict(bar))

    def over(self) -> None:
        """The trials begin: there is no stage any more."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)
            self._file = None

    @property
    def bars(self) -> tuple[Bar, ...]:
        """All stages so far, in their order."""
        return tuple(self._bars.values())

    @property
    def unfinished(self) -> tuple[Bar, ...]:
        """Those that are not done."""
        return tuple(bar for bar in self.bars if bar.total is None or bar.done < bar.total)

    @property
    def seconds(self) -> dict[str, float]:
        """What each stage took."""
        return {bar.name: round(bar.at - bar.began, 1) for bar in self.bars}


def stage_file(run: RunFolder) -> Path:
    """Where a driver notes its stage; not there while trials run, nor afterwards."""
    return run.root / "stage.json"


def read_stage(run: RunFolder) -> Bar | None:
    """The stage that a driver is at; None where it is at none, or has not said."""
    try:
        return TypeAdapter(Bar).validate_python(read_json(stage_file(run)))
    except (UserError, ValueError):
        return None
