"""docs/api.md is what the docstrings say, and its examples run."""

import doctest
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pawtune

DOCS = Path(__file__).resolve().parent.parent / "docs"


def load_maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("api_page", DOCS / "api_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date() -> None:
    made = load_maker().page()
    assert (DOCS / "api.md").read_text(encoding="utf-8") == made, "run: python docs/api_page.py"


def test_the_page_has_every_public_name() -> None:
    assert set(load_maker().NAMES) == set(pawtune.__all__)


@pytest.mark.slow
def test_every_example_runs(ray_cluster: object) -> None:
    """In the order of the page, in one folder: the first search is what the others open."""
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    found = re.findall(r"```pycon\n(.*?)```", page, re.DOTALL)
    # A family or a metric of one's own is a file: test_own_families.py and test_own_metric.py.
    examples = "\n".join(
        example for example in found if not re.search("use_(family|metric)\\(", example)
    )
    assert examples.count(">>>") >= 12
    names: dict[str, Any] = {name: getattr(pawtune, name) for name in pawtune.__all__}
    test = doctest.DocTestParser().get_doctest(examples, names, "api.md", None, 0)
    assert doctest.DocTestRunner().run(test).failed == 0
