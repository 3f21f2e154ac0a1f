"""The README's lines in a real notebook kernel: a search from a cell, with progress and a page."""

import re
from pathlib import Path
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: no notebook to run")
pytest.importorskip("ipykernel", reason="ipykernel is not installed: no kernel to run one")
nbformat = pytest.importorskip("nbformat")

README = Path(__file__).resolve().parent.parent / "README.md"
pytestmark = [
    pytest.mark.slow,
    # Of jupyter_core: where its files are will change.
    pytest.mark.filterwarnings("ignore:Jupyter is migrating its paths:DeprecationWarning"),
]


class Listening(nbclient.NotebookClient):  # type: ignore[misc]
    """Runs a notebook and keeps every message of its kernel."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.messages: list[dict[str, Any]] = []

    def process_message(self, msg: dict[str, Any], *args: Any) -> Any:
        self.messages.append(msg)
        return super().process_message(msg, *args)


def test_the_readme_s_lines_run_in_a_notebook(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    cells = [
        nbformat.v4.new_code_cell(source) for source in (example, "run", "run.study.best_value")
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = Listening(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()

    drawn = [
        message["content"]["data"]["text/html"]
        for message in client.messages
        if message["msg_type"] in ("display_data", "update_display_data")
    ]
    assert any("trials" in view and "running" in view for view in drawn), "progress is drawn"
    assert drawn[-1] == "", "and taken away at the end"
    (shown,) = cells[1].outputs
    assert "<polyline" in shown["data"]["text/html"]
    assert "validation accuracy" in shown["data"]["text/html"]
    (value,) = cells[2].outputs
    assert 0 <= float(value["data"]["text/plain"]) <= 1
