"""Domains of the search space: a range of numbers, or a list of choices.

In YAML a range is a mapping (`{low: 2, high: 5}`), choices are a list (`[adam, sgd]`) and a fixed
value is the value itself (`adam`).
"""

import math
from decimal import Decimal
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_serializer,
    model_validator,
)

Scalar = str | int | float | bool
MAX_STEPS = 1_000_000


class Strict(BaseModel):
    """Frozen settings that take no unknown key and convert no types (YAML has its own)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class IntRange(Strict):
    """Whole numbers from `low` to `high`, both included, in steps or on a log scale."""

    low: int
    high: int
    step: Annotated[int, Field(ge=1)] | None = None
    log: bool = False

    @model_validator(mode="after")
    def _can_be_sampled(self) -> Self:
        _check_range(self.low, self.high, self.step, self.log)
        return self


class FloatRange(Strict):
    """Numbers from `low` to `high`, both included, in steps or on a log scale."""

    low: float
    high: float
    step: Annotated[float, Field(gt=0)] | None = None
    log: bool = False

    @model_validator(mode="after")
    def _can_be_sampled(self) -> Self:
        _check_range(self.low, self.high, self.step, self.log)
        return self


class Choices(Strict):
    """One of a few values, in no order. A single choice is a fixed value."""

    choices: Annotated[tuple[Scalar, ...], Field(min_length=1, strict=False)]

    @model_validator(mode="before")
    @classmethod
    def _from_list_or_value(cls, given: Any) -> Any:
        if isinstance(given, dict):
            if given.keys() != {"choices"}:
                raise ValueError(f"it must be a list of choices or one value, received {given!r}")
            given = given["choices"]
        choices = tuple(given) if isinstance(given, list | tuple) else (given,)
        for choice in choices:
            is_number = isinstance(choice, int | float)
            if not (isinstance(choice, str) or (is_number and math.isfinite(choice))):
                raise ValueError(
                    f"a choice must be a word, a number, true or false, received {choice!r}; "
                    "give a list of such, or a range {low: …, high: …} for numbers"
                )
        return {"choices": choices}

    @model_validator(mode="after")
    def _no_choice_twice(self) -> Self:
        twice = [value for n, value in enumerate(self.choices) if value in self.choices[:n]]
        if twice:
            raise ValueError(f"a choice may be given once, received {twice[0]!r} twice")
        return self

    @model_serializer
    def _as_list(self) -> list[Scalar]:
        return list(self.choices)


def _tag(value: Any) -> str:
    is_range = isinstance(value, IntRange | FloatRange)
    is_range |= isinstance(value, dict) and "choices" not in value
    return "range" if is_range else "choices"


_Choices = Annotated[Choices, Tag("choices")]
IntDomain = Annotated[Annotated[IntRange, Tag("range")] | _Choices, Discriminator(_tag)]
FloatDomain = Annotated[Annotated[FloatRange, Tag("range")] | _Choices, Discriminator(_tag)]
Domain = IntRange | FloatRange | Choices


def corners(domain: Domain) -> tuple[Scalar, ...]:
    """The values that decide whether all of a domain is allowed: its ends, or each choice."""
    return domain.choices if isinstance(domain, Choices) else (domain.low, domain.high)


def values_of(domain: Domain, most: int = 1000) -> tuple[Scalar, ...]:
    """The values of a domain; of a range with more than `most`, so many over all of it.

    >>> values_of(FloatRange(low=0.0, high=0.3, step=0.1))
    (0.0, 0.1, 0.2, 0.3)
    """
    if isinstance(domain, Choices):
        return domain.choices
    step = domain.step or (1 if isinstance(domain, IntRange) else None)
    count = most if step is None else min(most, 1 + round((domain.high - domain.low) / step))
    if count <= 1:
        return (domain.low,)
    width = (domain.high - domain.low) / (count - 1)
    values = [domain.low + n * width for n in range(count)]
    if isinstance(domain, IntRange):
        return tuple(dict.fromkeys(round(value) for value in values))
    return tuple(round(value, 9) for value in values)


def _check_range(low: float, high: float, step: float | None, log: bool) -> None:
    """Refuse what Optuna would refuse, or quietly change, in the middle of a search."""
    if low > high:
        raise ValueError(f"low must not be above high, received low {low} and high {high}")
    if log and low <= 0:
        raise ValueError(f"low must be above 0 on a log scale, received low {low}")
    if log and step is not None:
        raise ValueError(f"a log scale has no step, received step {step}: give step or log")
    if step is not None and (high - low) / step > MAX_STEPS:
        raise ValueError(
            f"a range may have {MAX_STEPS:,} steps at most, received low {low}, high {high}, "
            f"step {step}: give a larger step, or step: null"
        )
    # In decimals: 0.9 is no whole multiple of 0.05 in binary.
    if step is not None and (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)):
        raise ValueError(
            f"high must be low plus a whole number of steps, received low {low}, high {high}, "
            f"step {step}: change one of them, or give step: null"
        )
