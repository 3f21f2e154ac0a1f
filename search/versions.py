"""What a run was made with, for its records."""

import platform
from importlib.metadata import version

PACKAGES = ("pawtune", "tensorflow", "keras", "ray", "optuna", "numpy")


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide on a result."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
