"""Makes docs/api.md from the docstrings of pawtune's public names: `python docs/api_page.py`."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pawtune

PAGE = Path(__file__).parent / "api.md"
NAMES = (
    "SearchConfig",
    "run_search",
    "resume_search",
    "open_run",
    "Run",
    "TrialEvent",
    "Reporter",
    "Family",
    "use_family",
    "use_metric",
    "UserError",
    "DataError",
    "ModelError",
)
METHODS_OF = ("Run", "Reporter")
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Example|Source):(.*)$")
HEAD = """# Python

`import pawtune as pt` gives the names below. The page is made from their docstrings, by
`python docs/api_page.py`; a test runs the examples in their order.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for name in NAMES:
        thing = getattr(pawtune, name)
        parts.append(entry(f"## `{name}`", name, thing))
        if name in METHODS_OF:
            for method, function in public_methods(thing):
                parts.append(entry(f"### `{name}.{method}`", method, function))
    return "\n".join(parts)


def public_methods(cls: type) -> Iterator[tuple[str, Any]]:
    """Methods and properties with a docstring, in the order of the source."""
    for name, member in vars(cls).items():
        if not name.startswith("_") and inspect.getdoc(member):
            yield name, member


def entry(heading: str, name: str, thing: Any) -> str:
    """One name: its signature, then its docstring."""
    lines = [heading, ""]
    if inspect.isfunction(thing):
        lines += ["```text", signature(name, thing), "```", ""]
    return "\n".join([*lines, markdown(inspect.getdoc(thing) or ""), ""])


def signature(name: str, function: Any) -> str:
    """How it is called, without `self` and quotes around types."""
    found = inspect.signature(function)
    kept = [p for p in found.parameters.values() if p.name != "self"]
    text = str(found.replace(parameters=kept)).replace("'", "").replace("pawtune.search.", "")
    text = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", text)
    return f"{name}{text}"


def markdown(docstring: str) -> str:
    """A Google docstring as Markdown: sections as lists, examples as code."""
    out, section = [], ""
    for line in docstring.splitlines():
        found = SECTION.match(line)
        if found:
            section = found[1]
            out += (
                ["", f"**{section}:**{found[2]}", ""] if section != "Example" else ["", "```pycon"]
            )
        elif section == "Example" and line and not line.startswith(" "):
            out += ["```", line]
            section = ""
        elif section == "Example":
            out.append(line.removeprefix("    ").replace("  # doctest: +SKIP", ""))
        elif section in ("Args", "Attributes", "Raises"):
            item = re.match(r"^    (\w[\w, ]*): (.*)$", line)
            out.append(f"- `{item[1]}`: {item[2]}" if item else f"  {line.strip()}".rstrip())
        else:
            out.append(line.strip() if section else line)
        if section == "Example" and not line.strip():
            out[-1] = "```"
            section = ""
    if section == "Example":
        out.append("```")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
