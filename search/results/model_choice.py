"""Which of a run's models is meant: a trial's best epoch, its refit, or an ensemble."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pawtune.search.errors import UserError
from pawtune.search.results.leaderboard import Row
from pawtune.search.storage.records import EnsembleRecord, RecordedMember, RefitRecord
from pawtune.search.storage.run_folder import RunFolder, TrialFolder

Kind = Literal["trial", "refit", "ensemble"]


@dataclass(frozen=True)
class ModelChoice:
    """A complete model of a run.

    Attributes:
        kind: Kind of model: a trial, a refit or an ensemble.
        row: The trial; of an ensemble its best member.
        trial_id: Id of the trial; of an ensemble those of its members, joined by "+".
        image_size: Side in pixels that it was trained at; None where its members differ.
        record: Record that `refit` or `ensemble` wrote about it; None for a trial.
    """

    kind: Kind
    row: Row
    trial_id: str
    image_size: int | None
    record: RefitRecord | EnsembleRecord | None = None

    @property
    def trial_ids(self) -> list[str]:
        """Ids of the trials that it was made of."""
        return self.trial_id.split("+")

    @property
    def is_soup(self) -> bool:
        """Whether it is an average of several trials' weights."""
        return isinstance(self.record, EnsembleRecord) and self.record.method == "soup"

    @property
    def title(self) -> str:
        """What it is, for people."""
        if self.kind == "ensemble":
            members = len(self.trial_ids)
            return (
                f"weight average of {members} trials" if self.is_soup else f"ensemble of {members}"
            )
        return f"{self.row.name}, refit" if self.kind == "refit" else self.row.name

    @property
    def option(self) -> str:
        """How a command line names it."""
        if self.kind == "ensemble":
            return "--ensemble"
        return f"--trial {self.row.trial_id}" + (" --refit" if self.kind == "refit" else "")


def choose_model(
    run: RunFolder,
    rows: Sequence[Row],
    *,
    trial: str | None = None,
    rank: int | None = None,
    kind: Kind = "trial",
    max_latency_ms: float | None = None,
) -> ModelChoice:
    """The best trial or another, as the search left it or refit; or the ensemble.

    Args:
        run: The run.
        rows: Its leaderboard, best first.
        trial: Id or name of another trial than the best.
        rank: Another rank than 1.
        kind: Kind of model. A refit without `trial` and `rank` is that of the best trial,
            or the only one that was made.
        max_latency_ms: The best of the trials that answer within this time, where the search
            measured it.

    Raises:
        UserError: There is no such model.
    """
    if max_latency_ms is not None:
        if trial is not None or rank is not None or kind != "trial":
            raise UserError(
                "--max-latency chooses among the trials by itself, received --trial, --rank, "
                "--refit or --ensemble beside it; leave those out"
            )
        trial = _fast_enough(run, rows, max_latency_ms).trial_id
    if kind == "ensemble":
        return _ensemble(run, rows, trial, rank)
    if kind == "refit" and trial is None and rank is None:
        made = refits(run)
        trial = made[0] if len(made) == 1 else None
    row = choose_row(rows, trial=trial, rank=rank)
    size = run.spec_of(row.trial_id).model.image_size
    if kind == "trial":
        return ModelChoice("trial", row, row.trial_id, size)
    if row.trial_id not in refits(run):
        raise UserError(
            f"--refit needs a trial that `pawtune refit` has trained, and {row.trial_id} is none; "
            f"refit so far: {', '.join(refits(run)) or 'none'}; "
            f"make it with `pawtune refit {run.name} --trial {row.trial_id}`"
        )
    record = RefitRecord.read(refit_folder(run, row.trial_id).root / "refit.json")
    return ModelChoice("refit", row, row.trial_id, size, record)


def _fast_enough(run: RunFolder, rows: Sequence[Row], max_latency_ms: float) -> Row:
    """The best of the trials that answer within a time."""
    usable = [row for row in rows if row.best_epoch is not None]
    measured = [(row.latency_ms, row) for row in usable if row.latency_ms is not None]
    if not measured:
        raise UserError(
            f"--max-latency needs latencies that the search measured, and run {run.name} has none; "
            "search with --objectives accuracy,latency_ms"
        )
    for latency, row in measured:  # the best first
        if latency <= max_latency_ms:
            return row
    latency, row = min(measured, key=lambda pair: pair[0])
    raise UserError(
        f"--max-latency must leave a trial, received {max_latency_ms:g}ms; the nearest is "
        f"{row.name} with {latency:g}ms and val_accuracy {row.best_val_accuracy:.4f}: "
        f"give --max-latency {math.ceil(latency)}ms"
    )


def _ensemble(
    run: RunFolder, rows: Sequence[Row], trial: str | None, rank: int | None
) -> ModelChoice:
    if trial is not None or rank is not None:
        raise UserError(
            "--ensemble is one model of several trials, received --trial or --rank beside it; "
            "leave those out"
        )
    if not ensemble_record(run).exists():
        raise UserError(
            f"--ensemble needs one that `pawtune ensemble` kept, and run {run.name} has none; "
            f"make it with `pawtune ensemble {run.name}`"
        )
    record = EnsembleRecord.read(ensemble_record(run))
    members = [choose_row(rows, trial=member.trial_id) for member in record.members]
    known = [RecordedMember.model_validate(asdict(member_of(row))) for row in members]
    return ensemble_of(run, members, record.model_copy(update={"members": known}))


def ensemble_of(run: RunFolder, members: Sequence[Row], record: EnsembleRecord) -> ModelChoice:
    """A vote or weight average of some trials, the best first, with its record."""
    sizes = {run.spec_of(row.trial_id).model.image_size for row in members}
    return ModelChoice(
        kind="ensemble",
        row=members[0],
        trial_id="+".join(row.trial_id for row in members),
        image_size=sizes.pop() if len(sizes) == 1 else None,
        record=record,
    )


def choose_row(rows: Sequence[Row], *, trial: str | None = None, rank: int | None = None) -> Row:
    """The trial by its id or name, by rank, or the best.

    Raises:
        UserError: No such trial, or one without a finished epoch.
    """
    usable = [row for row in rows if row.best_epoch is not None]
    if not usable:
        raise UserError(
            "a best checkpoint needs a trial with at least one finished epoch, and this run has "
            "none; see `pawtune leaderboard` for what became of its trials"
        )
    if trial is not None:
        found = [row for row in rows if trial in (row.trial_id, row.name)]
        asked, choices = f"trial {trial}", ", ".join(row.trial_id for row in usable)
    else:
        found = [row for row in rows if row.rank == (rank or 1)]
        asked, choices = f"rank {rank}", f"1 to {len(usable)}"
    if not found or found[0] not in usable:
        raise UserError(
            f"{asked} must name a trial with a finished epoch; this run offers: {choices}"
        )
    return found[0]


@dataclass(frozen=True)
class Member:
    """A trial in a vote or weight average, with its own validation accuracy."""

    trial_id: str
    name: str
    epoch: int
    accuracy: float


def member_of(row: Row) -> Member:
    """A trial as a member of a vote or weight average."""
    return Member(row.trial_id, row.name, row.best_epoch or 0, row.best_val_accuracy or 0.0)


def refit_folder(run: RunFolder, trial_id: str) -> TrialFolder:
    """Where the refit of a trial lies, laid out as a trial's folder."""
    return TrialFolder(run.refit_dir / trial_id)


def refits(run: RunFolder) -> list[str]:
    """Trials with a finished refit."""
    return [file.parent.name for file in sorted(run.refit_dir.glob("*/refit.json"))]


def ensemble_file(run: RunFolder) -> Path:
    """The ensemble's model file."""
    return run.ensemble_dir / "model.keras"


def ensemble_predictions(run: RunFolder) -> Path:
    """(N_validation, C) float32 probabilities of the ensemble at temperature 1."""
    return run.ensemble_dir / "val_predictions.npy"


def ensemble_record(run: RunFolder) -> Path:
    """What the ensemble is made of; written last: where it is, the model is."""
    return run.ensemble_dir / "ensemble.json"


def default_file(run: RunFolder, chosen: ModelChoice) -> Path:
    """Where a model goes inside the run folder."""
    if chosen.kind == "ensemble":
        return ensemble_file(run)
    if chosen.kind == "refit":
        return refit_folder(run, chosen.trial_id).root / "model.keras"
    return run.best_model
