"""The front door says what is true: its commands exist, its example runs."""

import contextlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from typer.main import get_command

from pawtune.search.cli.app import app

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def command_lines() -> list[tuple[str, str]]:
    """What follows `pawtune` on each line of a shell block, without what it is piped into."""
    found = []
    for page in PAGES:
        for block in [*blocks(page, "sh"), *blocks(page, "bash")]:
            for line in block.replace("\\\n", " ").splitlines():
                if line.strip().startswith("pawtune "):
                    found.append((page.name, re.split(r" [|;&>]", line.strip())[0]))
    return found


def commands_in_prose() -> list[tuple[str, str]]:
    """The commands between single backquotes; those in a sentence may leave arguments out."""
    found = []
    for page in PAGES:
        prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
        for quoted in re.findall(r"`((?:\.venv/bin/)?pawtune\s[^`]+)`", prose):
            found.append((page.name, " ".join(quoted.split())))
    return found


def command_of(line: str) -> tuple[click.Command, list[str]]:
    """The command that a line names, and the words after its name."""
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = get_command(app)
    while isinstance(command, click.Group) and words:
        name = words.pop(0)
        assert name in command.commands, f"{line}: no verb {name}"
        command = command.commands[name]
    return command, words


def test_there_are_commands_to_check() -> None:
    assert len(command_lines()) >= 50
    assert len(commands_in_prose()) >= 20


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_every_command_line_is_one_that_can_be_typed(page: str, line: str) -> None:
    """Verb, options, their values' types and the number of arguments: all but files is checked."""
    command, words = command_of(line)
    if command.name != "runs" or words:
        command.make_context(command.name, words)


@pytest.mark.parametrize(("page", "line"), commands_in_prose())
def test_every_command_in_a_sentence_exists_with_its_options(page: str, line: str) -> None:
    command, words = command_of(line)
    with contextlib.suppress(click.MissingParameter):  # `pawtune test` in a sentence
        command.make_context(command.name, words)


def test_every_python_block_is_one_that_a_test_runs() -> None:
    """Here, in test_own_metric.py and test_own_families.py; docs/api.md has `pycon`, run too."""
    found = {page.name: len(blocks(page, "python")) for page in PAGES}
    assert {name: n for name, n in found.items() if n} == {"README.md": 1, "extending.md": 2}


@pytest.mark.slow
def test_the_python_example_runs(tmp_path: Path) -> None:
    (example,) = blocks(REPOSITORY / "README.md", "python")
    (tmp_path / "example.py").write_text(example)
    ended = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert ended.returncode == 0, ended.stderr
    assert "best_val_accuracy" in ended.stdout
