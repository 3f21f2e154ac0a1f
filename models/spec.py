"""What a trial trains: a frozen spec of a family's model and how it is trained, JSON in and out.

Plain pydantic, no Keras: a search proposes, checks and lists specs without loading TensorFlow.
`spec.model_dump_json()` and `TrialSpec.model_validate_json(text)` round-trip exactly. The model
is validated by the family that it names.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, SerializeAsAny, ValidationError, WrapValidator

from pawtune.models.families.table import family_of, known_families
from pawtune.models.model_spec import FrozenSpec, ModelSpec, Params, TrainSpec
from pawtune.models.words import did_you_mean


def _by_family(value: Any, check_type: Any) -> ModelSpec:
    """A model's fields as its family reads them; errors keep their place in the trial."""
    if not isinstance(value, dict):
        model: ModelSpec = check_type(value)
        return model
    known = known_families()
    choices = " or ".join(known)
    if "family" not in value:
        raise ValueError(f"family is required, but missing; give family {choices}")
    name = value["family"]
    family = known.get(name) if isinstance(name, str) else None
    if family is None:
        near = did_you_mean(name, known) if isinstance(name, str) else ""
        near = near or "; name a family of your own with --family package.module:Name"
        raise ValueError(f"family must be {choices}, received {str(name)[:100]!r}{near}")
    spec_type: type[ModelSpec] = family.spec_type
    return spec_type.model_validate(value)


class TrialSpec(FrozenSpec):
    """A whole trial: the model and how it is trained, under a name for people."""

    name: Annotated[str, Field(min_length=1, description="a name")]
    model: SerializeAsAny[Annotated[ModelSpec, WrapValidator(_by_family)]]
    train: TrainSpec = TrainSpec()

    def params(self) -> Params:
        """Flat parameters for tables and TensorBoard: what a search may vary, no more.

        `class_weights` appears only where set.
        """
        family = family_of(self.model)
        params = dict(family.columns(self.model))
        params["learning_rate"] = self.train.learning_rate
        params["batch_size"] = self.train.batch_size
        params["optimizer"] = self.train.optimizer
        searched = {item.field for item in family.parameters if item.applies(params)}
        for field in ("weight_decay", "schedule", "label_smoothing"):
            if field in searched:
                params[field] = getattr(self.train, field)
        if self.train.class_weights:
            params["class_weights"] = True
        return params


def explain(error: ValidationError) -> str:
    """All errors of a refused spec in one line: where, rule, value received, remedy."""
    items = error.errors()
    # A tuple whose items were refused is also called too short: that says nothing new.
    problems = [item for item in items if item["type"] != "too_short" or not item["input"]]
    return "; ".join(_explain_one(dict(item)) for item in problems)


def _fields() -> dict[str, str]:
    """The description of every field that a specification may have."""
    owners: list[type[FrozenSpec]] = [family.spec_type for family in known_families().values()]
    owners += [TrainSpec, TrialSpec]
    return {
        name: field.description or ""
        for owner in owners
        for name, field in owner.model_fields.items()
    }


def _explain_one(item: dict[str, Any]) -> str:
    fields = _fields()
    parts = [str(part) for part in item["loc"]]
    prefix = f"{'.'.join(parts)}: " if parts else ""
    field = next((part for part in reversed(parts) if part in fields), "")
    remedy = f"; give {fields[field]}" if fields.get(field) else ""
    if item["type"] == "value_error":  # ours: rule, value and remedy are in it already
        return prefix + str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return f"{prefix}no such setting{did_you_mean(parts[-1], fields) or '; leave it out'}"
    if item["type"] == "missing":
        return f"{prefix}{field} is required, but missing{remedy}"
    return f"{prefix}{item['msg'].removeprefix('Input ')}, received {item['input']!r}{remedy}"
