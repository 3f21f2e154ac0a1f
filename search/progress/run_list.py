"""The runs of a folder, or of a place in an object store, a line each."""

import time
from dataclasses import dataclass

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.safe_files import expanded
from pawtune.data_pipeline.sources.object_store import ObjectStore, explained, is_address
from pawtune.search.errors import UserError
from pawtune.search.progress.run_status import of_run
from pawtune.search.storage.history import first_start
from pawtune.search.storage.run_folder import RunFolder, open_run_folder


@dataclass(frozen=True)
class RunLine:
    """One run.

    Attributes:
        began: Unix seconds: as its end or its first trial has it, else its configuration's file.
        state: State in words; why it cannot be read, where it cannot.
        counts: Trials by outcome.
        best: Validation accuracy of the best trial so far.
        size_bytes: Bytes of all its files on this machine.
    """

    name: str
    began: float
    state: str
    counts: dict[str, int]
    best: float | None
    size_bytes: int

    @property
    def began_text(self) -> str:
        """The time of day here, with its zone."""
        return local_time(self.began)

    @property
    def trials_text(self) -> str:
        return str(sum(self.counts.values()))

    @property
    def best_text(self) -> str:
        return "–" if self.best is None else f"{self.best:.4f}"

    @property
    def megabytes(self) -> float:
        return self.size_bytes / 1e6


def local_time(seconds: float) -> str:
    """Unix seconds as a person here reads them, with the zone: `2026-11-26 01:45:00 +0100`."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))


def find_runs(runs_dir: str) -> list[RunLine]:
    """All runs of a folder, the latest first; one that is damaged has a line that says so.

    Raises:
        DataError: A place in an object store cannot be read.
    """
    if is_address(runs_dir):
        try:
            names = ObjectStore(runs_dir).folders()
        except OSError as error:
            raise explained(runs_dir, error) from error
    else:
        base = expanded(runs_dir)
        names = sorted(file.parent.name for file in base.glob("*/search.yaml"))
    lines = []
    for name in names:
        try:
            lines.append(_line(open_run_folder(name, runs_dir)))
        except (UserError, DataError) as error:
            lines.append(RunLine(name, 0.0, f"cannot be read: {error}", {}, None, 0))
    return sorted(lines, key=lambda line: -line.began)


def _line(run: RunFolder) -> RunLine:
    began = _began(run)
    size = sum(file.lstat().st_size for file in run.root.rglob("*") if file.is_file())
    try:
        status = of_run(run)
    except (UserError, DataError) as error:
        return RunLine(run.name, began, f"cannot be read: {error}", {}, None, size)
    best = status.best.val_accuracy if status.best else None
    return RunLine(run.name, began, status.state, status.counts, best, size)


def _began(run: RunFolder) -> float:
    """When a search first began: copies of its folder, and later sessions, change no record."""
    try:
        summary = run.read_summary()
        began = summary.began if summary is not None else None
        began = began or first_start(run)
    except UserError:
        began = None
    return began or run.config_file.stat().st_mtime
