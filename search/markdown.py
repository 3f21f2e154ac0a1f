"""Markdown pages from jinja templates; a value from outside cannot break a page's structure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>|#"})


def render_markdown(template: Path, values: Mapping[str, Any]) -> str:
    """Renders a template file.

    Args:
        template: A `.md.j2` file. `{{ name | md }}` writes a value on one line, escaped.
        values: Values of the names in the template; a missing name raises.
    """
    environment = jinja2.Environment(  # autoescape is for HTML: the filter escapes Markdown
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        loader=jinja2.FileSystemLoader(template.parent),
    )
    environment.filters["md"] = escape_markdown
    return environment.get_template(template.name).render(values)


def escape_markdown(value: object) -> str:
    r"""A value on one line that Markdown leaves as it is.

    >>> escape_markdown("a|b\n<i>")
    'a\\|b \\<i\\>'
    """
    return " ".join(str(value).split()).translate(SPECIAL)
