"""The front door says what is true: its commands exist, its example runs."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from pawtune.search.cli.app import app

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def command_lines() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.strip().startswith("pawtune "):
                    found.append((page.name, line.strip()))
    return found


def test_there_are_commands_to_check() -> None:
    assert len(command_lines()) >= 12


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_every_command_shown_exists_with_its_options(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    verbs = get_command(app).commands  # type: ignore[attr-defined]
    assert words[0] in verbs
    command = verbs[words[0]]
    while hasattr(command, "commands") and len(words) > 1:
        words = words[1:]
        command = command.commands[words[0]]
    known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)} | {"--help"}
    if words[0] == "submit":  # it passes run's options on
        known |= {o for p in verbs["run"].params for o in (*p.opts, *p.secondary_opts)}
    shown = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert shown <= known


@pytest.mark.slow
def test_the_python_example_runs(tmp_path: Path) -> None:
    (example,) = blocks(REPOSITORY / "README.md", "python")
    (tmp_path / "example.py").write_text(example)
    ended = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert ended.returncode == 0, ended.stderr
    assert "best_val_accuracy" in ended.stdout
