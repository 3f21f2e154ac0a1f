"""docs/reliability.md claims nothing without a test."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_every_row_names_a_test_that_exists() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    page, _, _ = page.partition("<!-- files:")  # that table is held by tests/test_hostile_files.py
    rows = [line for line in page.splitlines() if line.startswith("|")][2:]
    assert rows
    for row in rows:
        found = re.search(r"`(test_\w+\.py)::(test_\w+)` \|$", row)
        assert found is not None, row
        module, name = found.groups()
        source = (ROOT / "tests" / module).read_text(encoding="utf-8")
        assert f"\ndef {name}(" in source, row
