"""The table of all settings in docs/configuration.md.

Printed by `python -m pawtune.search.config.docs_table`.
"""

from pawtune.search.config.search_config import SearchConfig
from pawtune.search.config.settings import default_text, setting_of, settings_of


def settings_table() -> str:
    """A Markdown table with every setting: key, what it takes, default, meaning."""
    lines = ["| key | takes | default | meaning |", "|---|---|---|---|"]
    for path, field in settings_of(SearchConfig):
        setting = setting_of(field)
        default = f"`{default_text(field)}`" if default_text(field) else "none: must be given"
        lines.append(f"| `{path}` | {setting.accepts} | {default} | {setting.meaning} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(settings_table())
