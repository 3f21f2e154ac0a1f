"""What a run was made with, for its records."""

import platform
from importlib.metadata import version
from pathlib import Path

from pawtune.search.config.yaml_text import YamlError, read_yaml
from pawtune.search.storage.untrusted_files import read_text

PACKAGES = ("pawtune", "tensorflow", "keras", "ray", "optuna", "numpy", "pillow")


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide on a result."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def recorded_versions(config_file: Path) -> dict[str, str]:
    """Versions that a search ran with, as its search.yaml holds them; empty where it has none."""
    try:
        content = read_yaml(read_text(config_file))
    except YamlError:
        return {}
    recorded = content.get("versions") if isinstance(content, dict) else None
    return {str(k): str(v) for k, v in recorded.items()} if isinstance(recorded, dict) else {}
