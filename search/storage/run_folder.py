"""The run folder: every path in it, and every write to it.

`trials/` is the truth; the study, the leaderboard and the event files are derived from it. All
of it is plain JSON, CSV, NPY and Keras weights: nothing that reads a run folder unpickles, so a
folder from somebody else cannot run code. A file is written under a temporary name and then
moved, so a reader never sees half of one.
"""

import csv
import errno
import io
import json
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.safe_files import expanded
from pawtune.data_pipeline.sources.object_store import explained, is_address, join, split
from pawtune.models.spec import TrialSpec
from pawtune.search.errors import UserError, not_writable
from pawtune.search.storage.untrusted_files import read_json as read_json
from pawtune.search.storage.untrusted_files import read_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pawtune.search.storage.mirror import Mirror
from pawtune.search.config.search_config import NAME_RULE
from pawtune.search.storage.records import (
    ProposedTrial,
    RunSummary,
    Status,
    TrialFacts,
    TrialStatus,
)

TRIAL_RULE = re.compile(r"[0-9]{1,9}")
INTEGER_COLUMNS = frozenset({"epoch"})
BEST_WEIGHTS = "core.weights.h5"
# Of a backbone: as `save_weights` writes it, and as Keras publishes it.
WEIGHTS_ENDINGS = (".weights.h5", ".h5")
BEST_PREDICTIONS = "val_predictions.npy"


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as stream:  # permissions by the umask
            stream.write(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_array(path: Path, array: "NDArray[Any]") -> None:
    """The same for an array, as `read_array` takes it."""
    import numpy as np

    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    write_bytes(path, stream.getbuffer())


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON whole or not at all. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@dataclass(frozen=True)
class TrialFolder:
    """One trial's folder, `trials/<id>/`; of a run in an object store, its local copy."""

    root: Path
    mirror: "Mirror | None" = field(default=None, compare=False, repr=False)

    @property
    def trial_id(self) -> str:
        return self.root.name

    @property
    def spec_file(self) -> Path:
        """The trial's name, family, kind and specification, written when it is proposed."""
        return self.root / "spec.json"

    @property
    def status_file(self) -> Path:
        return self.root / "status.json"

    @property
    def metrics_file(self) -> Path:
        return self.root / "metrics.csv"

    @property
    def facts_file(self) -> Path:
        """What the worker found out: weights, precision, live or bank, machine."""
        return self.root / "facts.json"

    @property
    def error_file(self) -> Path:
        return self.root / "error.txt"

    @property
    def best(self) -> Path:
        """The best epoch: weights of the trained part and its validation predictions."""
        return self.root / "best"

    @property
    def best_weights(self) -> Path:
        return _fetched(self.best / BEST_WEIGHTS, self.mirror)

    @property
    def best_predictions(self) -> Path:
        """(N_validation, C) float32 probabilities of the best epoch."""
        return _fetched(self.best / BEST_PREDICTIONS, self.mirror)

    @property
    def last(self) -> Path:
        """The state to continue from; removed when the trial is over."""
        return self.root / "last"

    def write_proposal(self, proposal: ProposedTrial) -> None:
        write_json(self.spec_file, proposal.as_dict())

    def read_proposal(self) -> ProposedTrial:
        return ProposedTrial.read(self.spec_file)

    def write_status(self, status: Status, **details: Any) -> None:
        """Writes a `TrialStatus` of the details given."""
        write_json(self.status_file, TrialStatus(status=status, **details).as_dict())

    def read_status(self) -> TrialStatus:
        """The last status written; `pending` where none was."""
        if not self.status_file.exists():
            return TrialStatus(status="pending")
        return TrialStatus.read(self.status_file)

    def write_facts(self, facts: TrialFacts) -> None:
        write_json(self.facts_file, facts.as_dict())

    def read_facts(self) -> TrialFacts:
        """What the trial's worker found out; nothing where none has begun it."""
        return TrialFacts.read(self.facts_file) if self.facts_file.exists() else TrialFacts()

    def seconds_so_far(self) -> float:
        """Seconds of work in earlier sessions: 0 for a new trial."""
        recorded = self.read_status().seconds
        if recorded is not None:
            return recorded
        return sum(row.get("seconds", 0.0) for row in self.read_metrics())

    def write_metrics(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Writes all epochs so far: one row an epoch, one column a metric."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.metrics_file, text.getvalue())

    def read_metrics(self) -> list[dict[str, float]]:
        """All finished epochs, in order; an empty list before the first.

        Raises:
            UserError: A cell is not a number, or out of its range.
        """
        if not self.metrics_file.exists():
            return []
        return read_rows(self.metrics_file, INTEGER_COLUMNS)

    def drop_last(self) -> None:
        """Frees the state to continue from: the trial is over."""
        shutil.rmtree(self.last, ignore_errors=True)


@dataclass(frozen=True)
class RunFolder:
    """One search's folder. Paths only: nothing is created by asking for one.

    Attributes:
        root: The folder; of a run in an object store, its local copy.
        mirror: Keeps that copy; None for a run that lies in its folder.
    """

    root: Path
    mirror: "Mirror | None" = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def place(self) -> str:
        """Where the run lies, for people and for other processes: a path, or an address."""
        return self.mirror.address if self.mirror is not None else str(self.root)

    @property
    def runs_dir(self) -> str:
        """The folder or address that holds the run."""
        return split(self.place)[0] if self.mirror is not None else str(self.root.parent)

    def refresh(self, only: Sequence[str] = ()) -> None:
        """Fetches what changed, where the run lies in an object store; later, if that is away.

        Args:
            only: Files in the run's folder itself; none named means all that is small.
        """
        if self.mirror is not None:
            with suppress(DataError):
                self.mirror.pull_root(only) if only else self.mirror.pull()

    def follow(self, interval_s: float) -> None:
        """Continues fetching what changes, for as long as this process lives."""
        if self.mirror is None:
            return

        def fetch() -> None:
            while True:
                time.sleep(interval_s)
                self.refresh()

        threading.Thread(target=fetch, daemon=True).start()

    def keep_new(self) -> None:
        """Sends all that a command wrote to where the run lies."""
        if self.mirror is not None:
            self.mirror.push_new()

    def keep(self, *paths: Path) -> None:
        """Sends files that were just written to where the run lies, in this order."""
        if self.mirror is not None:
            self.mirror.push(*paths)

    @property
    def config_file(self) -> Path:
        return self.root / "search.yaml"

    @property
    def labels_file(self) -> Path:
        """A copy of the table of labels, where there is one."""
        return self.root / "labels.csv"

    @property
    def relabel_file(self) -> Path:
        """A copy of the corrections of labels, where there are any."""
        return self.root / "relabel.csv"

    @property
    def audit_dir(self) -> Path:
        """What `pawtune audit` found: predictions of unseen images, and the page."""
        return self.root / "audit"

    @property
    def novelty_dir(self) -> Path:
        """Features of training images by delivered models, which `predict` compares with."""
        return self.root / "novelty"

    @property
    def trials_dir(self) -> Path:
        return self.root / "trials"

    @property
    def backbones_dir(self) -> Path:
        return self.root / "backbones"

    @property
    def study_file(self) -> Path:
        return self.root / "study.db"

    @property
    def tensorboard_dir(self) -> Path:
        return self.root / "tb"

    @property
    def leaderboard_file(self) -> Path:
        return self.root / "leaderboard.csv"

    @property
    def summary_file(self) -> Path:
        """A `RunSummary`."""
        return self.root / "summary.json"

    @property
    def scout_file(self) -> Path:
        """How the scout ranked several backbones; absent where there was one."""
        return self.root / "scout.json"

    def write_summary(self, summary: RunSummary) -> None:
        write_json(self.summary_file, summary.as_dict())

    def read_summary(self) -> RunSummary | None:
        """How the search ended; None while it runs for the first time, or where it was killed."""
        return RunSummary.read(self.summary_file) if self.summary_file.exists() else None

    @property
    def best_model(self) -> Path:
        return self.root / "best" / "model.keras"

    @property
    def confirm_dir(self) -> Path:
        """Trials trained again with other seeds; never among `trials/`, the search's own."""
        return self.root / "confirm"

    @property
    def refit_dir(self) -> Path:
        """Trials trained on the training and validation images together."""
        return self.root / "refit"

    @property
    def ensemble_dir(self) -> Path:
        """The vote or weight average that was kept: `model.keras`, `ensemble.json`."""
        return self.root / "ensemble"

    @property
    def test_ledger(self) -> Path:
        """Every look at the test split, one JSON object a line."""
        return self.root / "test.jsonl"

    @property
    def tune_dir(self) -> Path:
        """Tune's own scratch state; ours to delete when the search is over."""
        return self.root / ".tune"

    def backbone_weights(self, backbone: str, image_size: int) -> Path:
        """A frozen backbone's weights; Keras ships different ones for some image sizes."""
        stem = self.backbones_dir / f"{backbone}-{image_size}"
        for ending in WEIGHTS_ENDINGS:
            file = _fetched(stem.with_name(stem.name + ending), self.mirror)
            if file.exists():
                break
        return file

    def trial(self, trial_id: str) -> TrialFolder:
        """One trial by its identifier.

        Raises:
            UserError: The run has no such trial.
        """
        folder = TrialFolder(self.trials_dir / trial_id, self.mirror)
        if not NAME_RULE.fullmatch(trial_id) or not folder.spec_file.exists():
            known = ", ".join(trial.trial_id for trial in self.trials()) or "none yet"
            raise UserError(
                f"TRIAL must be the id of a trial of run {self.name}, received {trial_id!r}; "
                f"its trials: {known}"
            )
        return folder

    def spec_of(self, trial_id: str) -> TrialSpec:
        """A trial's specification.

        Raises:
            UserError: There is no such trial, or its file is no valid specification.
        """
        return self.trial(trial_id).read_proposal().spec

    def new_trial(self, trial_id: str) -> TrialFolder:
        return TrialFolder(self.trials_dir / trial_id, self.mirror)

    def trials(self) -> Iterator[TrialFolder]:
        """Every trial that was proposed, in the order of proposal."""
        for spec_file in sorted(self.trials_dir.glob("[!.]*/spec.json")):
            check_trial_id(spec_file.parent)
            yield TrialFolder(spec_file.parent, self.mirror)


def backbone_of_file(weights: Path) -> tuple[str, int]:
    """Name and image size of the backbone whose weights a file of `backbones/` holds.

    Raises:
        ValueError: The file's name is not one of those that a run gives.
    """
    name, _, size = weights.name.partition(".")[0].rpartition("-")
    return name, int(size)


def _fetched(path: Path, mirror: "Mirror | None") -> Path:
    """A large file's path, fetched first where the run is in an object store."""
    return mirror.fetch(path) if mirror is not None else path


def check_trial_id(folder: Path) -> None:
    if not TRIAL_RULE.fullmatch(folder.name):
        raise UserError(
            "a trial's folder must be called by its number, such as 0007, received "
            f"{folder.name!r} in {folder.parent}; move it away"
        )


def create_run_folder(runs_dir: str | Path, name: str) -> RunFolder:
    """Makes an empty run folder; an existing one is never touched.

    Args:
        runs_dir: A folder, or an address in an object store, where a run is made by what is first
            written into it: whoever writes asks before, by `must_be_new`.
        name: Name of the run.

    Raises:
        UserError: The name is unfit or in use, or `runs_dir` cannot be written.
    """
    _check_name(name)
    if is_address(runs_dir):
        from pawtune.search.storage.mirror import open_mirror

        mirror = open_mirror(join(str(runs_dir), name))
        mirror.empty()
        return RunFolder(mirror.root, mirror)
    root = expanded(runs_dir).resolve() / name
    try:
        root.mkdir(parents=True)
        (root / "trials").mkdir()
    except FileExistsError:
        raise _in_use(name, root.parent) from None
    except OSError as error:
        raise _no_runs_dir(runs_dir, error.errno) from error
    return RunFolder(root)


def refuse_run_folder(runs_dir: str | Path, name: str) -> None:
    """Refuses what `create_run_folder` would, of a folder, and makes nothing.

    Raises:
        UserError: The name is unfit or in use, or `runs_dir` cannot be written.
    """
    _check_name(name)
    if is_address(runs_dir):
        return
    base = expanded(runs_dir).resolve()
    try:
        if (base / name).exists():
            raise _in_use(name, base)
        there = next(folder for folder in (base, *base.parents) if folder.exists())
    except OSError as error:
        raise _no_runs_dir(runs_dir, error.errno) from error
    if not there.is_dir():
        raise _no_runs_dir(runs_dir, errno.EEXIST if there == base else errno.ENOTDIR)
    if not os.access(there, os.W_OK | os.X_OK):
        raise _no_runs_dir(runs_dir, errno.EACCES)


def _check_name(name: str) -> None:
    if not NAME_RULE.fullmatch(name):
        raise UserError(
            "--name must be 1 to 100 letters, digits, '.', '_' or '-', starting with a letter or "
            f"digit, received {name!r}; choose another, for example 'cats-1'"
        )


def _in_use(name: str, parent: Path | str) -> UserError:
    return UserError(
        f"--name must be new, received {name!r}, which exists in {parent}; nothing was "
        "overwritten: choose another name, or delete that run first"
    )


def _no_runs_dir(runs_dir: str | Path, number: int | None) -> UserError:
    return UserError(
        f"--runs-dir must be a folder that can be written, received {str(runs_dir)!r}: "
        f"{os.strerror(number or 0)}; give another --runs-dir"
    )


def must_be_new(run: RunFolder) -> None:
    """Refuses to begin a run in an object store where there is one; a folder was asked before.

    Raises:
        UserError: The name is in use.
        DataError: The store cannot be read, or has no such bucket.
    """
    if run.mirror is None:
        return
    store = run.mirror.store
    try:
        in_use = store.stat("search.yaml") is not None
    except OSError as error:
        raise explained(run.place, error) from error
    if in_use:
        raise _in_use(run.name, run.runs_dir)


def remove_run_folder(run: RunFolder) -> None:
    """Deletes a run with all that is in its folder.

    Raises:
        UserError: Its folder does not allow it.
    """
    if run.mirror is None:
        try:
            shutil.rmtree(run.root)
        except OSError as error:  # its own file name is relative to a folder within
            raise not_writable(run.root, error) from error
        return
    run.mirror.discard()


def open_run_folder(run: str | Path, runs_dir: str | Path = "runs") -> RunFolder:
    """Opens a run by name under `runs_dir`, by path, or by its address in an object store.

    Raises:
        UserError: There is no such run.
        DataError: An object store, or somebody else's folder, cannot be read.
    """
    if is_address(run) or is_address(runs_dir):
        return _open_stored(str(run), str(runs_dir))
    candidates = [expanded(runs_dir) / run, expanded(run)]
    for candidate in candidates:
        try:
            if (candidate / "search.yaml").is_file():
                return RunFolder(candidate.resolve())
        except PermissionError as error:
            raise DataError(
                f"a run's folder must be readable, received {candidate}: {error.strerror}; ask its "
                "owner for the permission"
            ) from error
        except OSError:  # a name too long for a file system: no run has it
            continue
    base = expanded(runs_dir)
    known = sorted(path.parent.name for path in base.glob("*/search.yaml"))
    listing = ", ".join(known[-10:]) if known else "none"
    raise UserError(
        f"RUN must be the name of a run under {base}, or its path, received {str(run)!r}; "
        f"runs there: {listing}"
    )


def _open_stored(run: str, runs_dir: str) -> RunFolder:
    from pawtune.data_pipeline.sources.object_store import ObjectStore
    from pawtune.search.storage.mirror import open_mirror

    address = run if is_address(run) else join(runs_dir, run)
    parent, name = split(address)
    if not NAME_RULE.fullmatch(name) or not is_address(parent):
        raise UserError(
            f"RUN in an object store must be like s3://bucket/runs/pets, received {run!r}; "
            "give --runs-dir s3://bucket/runs with a name, or the run's whole address"
        )
    mirror = open_mirror(address)
    mirror.pull()
    folder = RunFolder(mirror.root, mirror)
    if folder.config_file.is_file():
        return folder
    mirror.empty()
    try:
        known = ", ".join(ObjectStore(parent).folders()[-10:]) or "none"
    except OSError as error:
        raise explained(parent, error) from error
    raise UserError(
        f"RUN must be the name of a run under {parent}, or its address, received {run!r}; "
        f"runs there: {known}"
    )
