"""What a run folder records of trials and of the search: written, read and checked here.

A run folder may be untrusted. A record is read through its class, which holds what a file of its
kind may say: text that a terminal would act upon is made harmless, numbers are in their range, and
what pawtune never writes is refused with the file, the rule and the value received.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from pawtune.data_pipeline.safe_files import shown
from pawtune.models.spec import TrialSpec, explain
from pawtune.search.errors import UserError
from pawtune.search.objective import COSTS
from pawtune.search.storage.untrusted_files import (
    MAX_SECONDS,
    RESTORE,
    RESTORE_TRIAL,
    is_number,
    read_json,
)

Status = Literal["pending", "running", "completed", "stopped", "failed"]
STATE = "state.json"  # of the files of a state to continue from: says which epoch it is of
EARLY_STOP = "asha"  # the reason of a stopped trial that is over; any other can be continued
MAX_WORDS = 1000


def _plain_words(value: str) -> str:
    """Text of at most `MAX_WORDS` characters, without those that a terminal acts upon."""
    return shown(value)[:MAX_WORDS]


def _time_or_none(value: object) -> float | None:
    """A time or a duration, in seconds; None for what is none: nothing depends on it."""
    return value if is_number(value, MAX_SECONDS) else None


def _times_by_name(value: object) -> dict[str, float]:
    """Durations by name, without what is none."""
    known = value.items() if isinstance(value, dict) else ()
    return {_plain_words(str(k)): v for k, v in known if is_number(v, MAX_SECONDS)}


Words = Annotated[str, AfterValidator(_plain_words)]
MaybeWords = Annotated[Words | None, Field(description="words or null")]
Time = Annotated[float | None, BeforeValidator(_time_or_none)]
Measured = Annotated[float | None, Field(ge=0, le=MAX_SECONDS, description="a number from 0")]
Weights = Annotated[
    int | None, Field(ge=0, lt=2**63, description="a whole number from 0 below 2^63")
]

Positive = Annotated[int, Field(gt=0, lt=2**31, description="a whole number from 1")]


class Record(BaseModel):
    """A JSON object in a run folder. Keys that its class does not know are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a record.

        Raises:
            UserError: The file is missing, no JSON object, or holds what pawtune never writes.
        """
        content = read_json(path)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            place = error.errors()[0]["loc"][0]
            rule = cls.model_fields[str(place)].description
            received = content.get(str(place))
            raise UserError(
                f"{shown(path)}: {place} must be {rule}, received {received!r:.60}; {RESTORE}"
            ) from error

    def as_dict(self) -> dict[str, Any]:
        """What was recorded, as JSON takes it: without what was left open."""
        return self.model_dump(mode="json", exclude_unset=True)


@dataclass(frozen=True)
class ProposedTrial:
    """A trial as it was proposed: `spec.json`, written before a worker takes it.

    Attributes:
        spec: Specification of the trial.
        baseline: Whether it is a baseline, outside the count of `config.trials`.
        params: Parameters by name, as tables show them.
    """

    spec: TrialSpec
    baseline: bool = False
    params: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a proposal.

        Raises:
            UserError: The file is missing, or no valid specification.
        """
        content = read_json(path)
        baseline, params = content.pop("baseline", False), content.pop("params", {})
        try:
            spec = TrialSpec.model_validate(content)
            if not isinstance(baseline, bool):
                raise ValueError(f"baseline must be true or false, received {baseline!r:.60}")
            if not isinstance(params, dict):
                raise ValueError(f"params must be an object, received {params!r:.60}")
        except (ValueError, RecursionError) as error:
            # The text comes from an untrusted file: its line breaks must not reach the terminal.
            text = explain(error) if isinstance(error, ValidationError) else str(error)
            raise UserError(
                f"trial {path.parent.name}'s spec.json is not valid: {shown(text)[:600]}; "
                f"{RESTORE_TRIAL}"
            ) from error
        name = _plain_words(spec.name)
        return cls(spec.model_copy(update={"name": name}), baseline, params)

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        content = self.spec.model_dump(mode="json")
        return {"baseline": self.baseline, "params": dict(self.params), **content}


class TrialStatus(Record):
    """What has become of a trial: `status.json`, which the driver writes.

    Attributes:
        status: `pending` until a worker takes the trial; `stopped` early, or with the search.
        reason: Why it failed, was stopped, or waits; None where it ended by itself.
        started: Time at which a worker took it in this session, in Unix seconds.
        finished: Time at which it ended, in Unix seconds.
        seconds: Its work in all sessions.
    """

    status: Status = Field(description=f"one of {', '.join(get_args(Status))}")
    reason: MaybeWords = None
    started: Time = None
    finished: Time = None
    seconds: Time = None

    @property
    def stopped_early(self) -> bool:
        """Whether the search stopped the trial for good, as one of the weaker ones."""
        return self.status == "stopped" and self.reason == EARLY_STOP

    @property
    def is_over(self) -> bool:
        """Whether the trial has ended for good; else it can be continued."""
        return self.status in ("completed", "failed") or self.stopped_early


class TrialFacts(Record):
    """What a worker found out about a trial and itself: `facts.json`, written as training begins.

    Attributes:
        num_weights: Weights of the whole model, a frozen backbone included.
        trainable_weights: Weights that training changes.
        latency_ms: Milliseconds for one image, see `measure_costs`; None where the
            search did not ask.
        size_mb: Size of the complete model's weights in 10^6 bytes; None as well.
        precision: Keras' policy, such as `mixed_bfloat16`.
        training: How the family trained it, one word: `bank`, `live`.
        code: Version of pawtune's training code; None in records that do not say.
        host: Name of the machine.
        node: Ray's node on it.
        gpus: Ids of the GPUs that the trial saw.
        device: `gpu` or `cpu`.
        cpu: The processor's model.
        threads: Threads that TensorFlow was given.
    """

    num_weights: Weights = None
    trainable_weights: Weights = None
    latency_ms: Measured = None
    size_mb: Measured = None
    precision: MaybeWords = None
    training: MaybeWords = None
    code: int | None = Field(None, description="a whole number")
    host: MaybeWords = None
    node: MaybeWords = None
    gpus: tuple[Words, ...] = Field((), strict=False, description="a list of words")
    device: MaybeWords = None
    cpu: MaybeWords = None
    threads: int | None = Field(None, description="a whole number")

    def costs(self) -> dict[str, float]:
        """Those that are known, by the names that `--objectives` has for them."""
        found = {name: getattr(self, name) for name in COSTS}
        return {name: float(value) for name, value in found.items() if value is not None}


class RunSummary(Record):
    """How a search ended: `summary.json`.

    Attributes:
        reason: Why it ended early; None where every trial ran.
        seconds: Wall time of all sessions.
        stages: Seconds of each stage before the trials, all sessions together.
        counts: Trials by status.
        began: Time of its first beginning, in Unix seconds; None in records that do not say.
    """

    reason: MaybeWords = None
    seconds: float = Field(ge=0, le=MAX_SECONDS, description="a number from 0")
    stages: Annotated[dict[str, float], BeforeValidator(_times_by_name)] = {}
    counts: dict[str, int] = Field({}, description="trials by status")
    began: Time = None


class RefitRecord(Record):
    """What `pawtune refit` trained: `refit.json`. Fields that it does not name are kept."""

    model_config = ConfigDict(extra="allow")

    epochs: Positive
    train_images: Positive
    validation_images: Positive


class RecordedMember(Record):
    """A trial in a kept vote or weight average. Fields that it does not name are kept."""

    model_config = ConfigDict(extra="allow")

    trial_id: str


class EnsembleRecord(Record):
    """What `pawtune ensemble` kept: `ensemble.json`. Fields that it does not name are kept.

    Attributes:
        members: Trials that vote or are averaged, best first.
        accuracy: Its accuracy on validation images, from 0 to 1.
        temperature: Divisor of the logits; None in records of earlier versions.
        method: `vote`, as in records of earlier versions; or `soup` for an average of weights.
        seconds: Time that it took; None in records of earlier versions.
    """

    model_config = ConfigDict(extra="allow")

    members: list[RecordedMember] = Field(
        min_length=2, max_length=1000, description="a list of two or more, each with a trial_id"
    )
    accuracy: float = Field(ge=0, le=1, description="a number from 0 to 1")
    temperature: Any = None
    method: Literal["vote", "soup"] = Field("vote", description="vote or soup")
    seconds: Measured = None
