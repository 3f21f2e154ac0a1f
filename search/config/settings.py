"""Settings that explain themselves: their documentation, and what is said when they are wrong."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from pawtune.data_pipeline.safe_files import shown
from pawtune.models.families.domains import Choices, FloatRange, IntRange

_RECEIVED_WIDTH = 60
_RANGE_KEYS = tuple(IntRange.model_fields)
# Pydantic puts the kinds of a union into the place; nobody typed them.
_TAGS = re.compile(r"range|choices|literal\[.*\]")


@dataclass(frozen=True)
class Setting:
    """Metadata of one setting, put into its annotation.

    Attributes:
        accepts: Values that are accepted, in words that follow "must be" or "give".
        meaning: Effect of the setting, as a sentence.
        check: Raises ValidationError for a value that a model cannot have.
    """

    accepts: str
    meaning: str
    check: Callable[[Any], object] | None = None


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(dotted path, field) of all settings of a configuration, in order."""
    for name, field in model.model_fields.items():
        if any(isinstance(item, Setting) for item in field.metadata):
            yield prefix + name, field
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings_of(field.annotation, f"{prefix}{name}.")


def setting_of(field: FieldInfo) -> Setting:
    """The metadata that a field was declared with."""
    return next(item for item in field.metadata if isinstance(item, Setting))


def default_text(field: FieldInfo) -> str:
    """A setting's default as it would be written in YAML; '' where it has none."""
    if field.is_required():
        return ""
    default = field.default
    match default:
        case IntRange() | FloatRange():
            parts = [f"low: {default.low:g}", f"high: {default.high:g}"]
            parts += [f"step: {default.step:g}"] if default.step is not None else []
            parts += ["log: true"] if default.log else []
            return "{" + ", ".join(parts) + "}"
        case Choices():
            return "[" + ", ".join(_word(choice) for choice in default.choices) + "]"
        case tuple():
            return "[" + ", ".join(_word(value) for value in default) + "]"
    return _word(default)


def _word(value: object) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def explain(error: ValidationError, known: Mapping[str, FieldInfo]) -> list[str]:
    """Every problem as one line: place, rule, value received, remedy.

    Args:
        error: Error of pydantic about a configuration.
        known: All its settings, see `settings_of`.
    """
    # A list whose items were refused is also called too short: that says nothing new.
    problems = [item for item in error.errors() if item["type"] != "too_short" or not item["input"]]
    return list(dict.fromkeys(_explain_one(dict(item), known) for item in problems))


def _explain_one(item: dict[str, Any], known: Mapping[str, FieldInfo]) -> str:
    names = [part for part in item["loc"] if isinstance(part, str) and not _TAGS.fullmatch(part)]
    path = shown(".".join(names))  # a key may hold anything
    prefix = f"{path}: " if path else ""
    field = known.get(path) or known.get(".".join(names[:-1]))
    setting = setting_of(field) if field else None
    if item["type"] == "value_error":  # ours: rule and value are in it already
        text = prefix + str(item["ctx"]["error"])
        if setting is None or " give " in text or "; did you mean" in text:
            return text
        return f"{text}; give {setting.accepts}"
    if item["type"] == "extra_forbidden":
        return prefix + "no such setting; " + (suggest(path, known) or "leave it out")
    if item["type"] == "missing":
        remedy = f"; give {setting.accepts}" if setting else ""
        return f"{prefix}it is required, but missing{remedy}"
    received = _received(item["input"])
    if setting is None or field is None:
        inside = [key.removeprefix(path + ".") for key in known if key.startswith(path + ".")]
        return f"{prefix}must be a mapping, received {received}; its keys are {', '.join(inside)}"
    if path not in known:  # low, high, step or log of a range
        rule = item["msg"].removeprefix("Input should be ")
        return f"{prefix}must be {rule}, received {received}; give {setting.accepts}"
    default = default_text(field)
    remedy = _nearest_choice(item) or (
        f"leave it out for the default, {default}" if default else "give one"
    )
    return f"{prefix}must be {setting.accepts}, received {received}; {remedy}"


def _received(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _RECEIVED_WIDTH else text[:_RECEIVED_WIDTH] + "…"


def _nearest_choice(item: dict[str, Any]) -> str:
    expected = re.findall(r"'([^']*)'", str(item.get("ctx", {}).get("expected", "")))
    near = get_close_matches(str(item["input"]), expected, n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def suggest(path: str, known: Mapping[str, object]) -> str:
    """A question, "did you mean 'x'?", for an unknown path: a neighbour, or a namesake elsewhere.

    >>> suggest("resources.cpu_per_trial", {"resources.cpus_per_trial": None})
    "did you mean 'cpus_per_trial'?"
    """
    parent, dot, name = path.rpartition(".")
    inside = [key.removeprefix(parent + dot) for key in known if key.startswith(parent + dot)]
    siblings = list(dict.fromkeys(key.partition(".")[0] for key in inside))
    near = get_close_matches(name, _RANGE_KEYS if parent in known else siblings, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    namesakes = {key.rpartition(".")[2]: key for key in known}
    near = get_close_matches(name, namesakes, n=1)
    return f"did you mean {namesakes[near[0]]!r}?" if near else ""
