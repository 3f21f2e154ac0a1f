"""Settings as YAML text: read strictly, from anyone; written so that it reads back the same.

The YAML is version 1.2's: `on`, `off`, `yes` and dates are words, `1e-3` is a number (PyYAML
speaks 1.1, where they are not). Only the parser of PyYAML is used: mappings, lists, words,
numbers, true, false and null come out of it and nothing else, so that a file from somebody else
cannot run code, and every refusal can name its line.
"""

import re
from typing import Any

import yaml

MAX_BYTES = 100_000

_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(
    r"(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.inf|\.nan)$"
)


class YamlError(ValueError):
    """Text that is no YAML, or holds YAML that settings have no use for. One line a problem."""


class _Loader(yaml.BaseLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # Nested aliases make gigabytes out of a few lines.
        if self.check_event(yaml.AliasEvent):
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            raise YamlError(
                f"{_place(event.start_mark)}: aliases are not taken, received *{event.anchor}; "
                "write the value out"
            )
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # Only double quotes escape; elsewhere Unicode's line breaks are read as spaces.
        style = None if data.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)
# PyYAML would write the word "1e-3" without quotes.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read_yaml(text: str) -> Any:
    """The one document of a YAML text; None where it is empty.

    Raises:
        YamlError: Bad YAML, an alias, a tag, or a key given twice; each with line and column.
    """
    if len(text) > MAX_BYTES:
        raise YamlError(
            f"settings may take {MAX_BYTES:,} characters at most, received {len(text):,}: "
            "this is some other file"
        )
    problems: list[str] = []
    try:
        node = yaml.compose(text, Loader=_Loader)
        value = None if node is None else _value(node, problems)
    except RecursionError:
        raise YamlError("the YAML is nested too deeply; settings are three levels deep") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{_place(mark)}: " if mark else ""
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(f"{where}this is no YAML: {said}") from error
    except yaml.YAMLError as error:  # characters that no YAML may hold
        raise YamlError(f"this is no YAML: {' '.join(str(error).split())}") from error
    if problems:
        raise YamlError("\n".join(problems))
    return value


def write_yaml(value: dict[str, Any]) -> str:
    """YAML text of settings, in the order given, for `read_yaml`."""
    # No folding: a line break in the middle of a path would be valid, but hard to read.
    return yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=1000,
        default_flow_style=None,
    )


def _value(node: yaml.Node, problems: list[str]) -> Any:
    if node.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"):
        problems.append(
            f"{_place(node.start_mark)}: tags are not taken, received {node.tag}; leave it out"
        )
        return None
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, problems) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, problems)
    quoted = not isinstance(node, yaml.ScalarNode) or node.style is not None
    return node.value if quoted else _scalar(node.value)


def _mapping(node: yaml.MappingNode, problems: list[str]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, item in node.value:
        where = _place(key.start_mark)
        if not isinstance(key, yaml.ScalarNode):
            problems.append(f"{where}: a key must be a word, received a {key.id}; write key: value")
            continue
        if key.value in mapping:
            problems.append(
                f"{where}: a key may be given once, received {key.value!r} twice; leave one out"
            )
        mapping[key.value] = _value(item, problems)
    return mapping


def _scalar(text: str) -> str | int | float | bool | None:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _place(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"
