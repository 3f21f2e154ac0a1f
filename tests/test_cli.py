"""The command line as a newcomer meets it: help, and one clear line for each mistake."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
import pytest
from typer.main import get_command

from pawtune.search.cli import trust_verbs
from pawtune.search.cli.app import app
from pawtune.search.cli.main import main
from pawtune.search.run import Run
from pawtune.search.storage.run_folder import RunFolder
from tests.command_line import Outcome, pawtune

VERBS = ("run", "leaderboard", "show", "best", "test", "predict", "preview", "cache")


def refused(outcome: Outcome, *phrases: str) -> None:
    """Bad input: exit code 2, one line on stderr with rule, value and remedy, nothing else."""
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    (line,) = [line for line in outcome.err.splitlines() if not line.startswith(("hash:", "data:"))]
    assert line.startswith("pawtune: ")
    for phrase in phrases:
        assert phrase in line


@pytest.fixture
def images(tiny_images: Path, tmp_path: Path) -> Path:
    """A copy of the small images, to be spoilt."""
    folder = tmp_path / "images"
    shutil.copytree(tiny_images, folder)
    return folder


def run(capsys: pytest.CaptureFixture[str], data: object, *options: object) -> Outcome:
    return pawtune(capsys, "run", "--data", data, "--families=conv", "--trials=1", *options)


def test_what_to_type_next_survives_a_shell(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for runs_dir, typed in (
        (tmp_path / "my runs", tmp_path / "my runs" / "r"),
        (Path("runs"), "r"),
    ):
        trust_verbs._next(Run(RunFolder(runs_dir.resolve() / "r")), "test", note="score it")
        command = capsys.readouterr().out.split("#")[0]
        assert shlex.split(command) == ["pawtune", "test", str(typed)]


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    shown = pawtune(capsys, "--help")
    assert shown.code == 0
    assert all(verb in shown.out for verb in VERBS)


def every_command(group: click.Group, *before: str) -> Iterator[list[str]]:
    for name, command in group.commands.items():
        yield [*before, name]
        if isinstance(command, click.Group):
            yield from every_command(command, *before, name)


@pytest.mark.parametrize("width", [80, 120])
def test_help_fills_its_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for command in every_command(get_command(app)):
        shown = pawtune(capsys, *command, "--help").out
        lines = [line.strip() for line in shown.partition("╭")[0].splitlines()]
        for line, following in pairwise(lines):
            if line and following:
                assert len(f"{line} {following.split()[0]}") > width - 2, (command, line)


def test_a_folder_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    refused(run(capsys, tmp_path / "nowhere"), "nowhere")


def test_an_empty_class(capsys: pytest.CaptureFixture[str], images: Path) -> None:
    (images / "green").mkdir()
    refused(run(capsys, images), "green")


def test_one_class_alone(capsys: pytest.CaptureFixture[str], images: Path) -> None:
    shutil.rmtree(images / "red")
    refused(run(capsys, images), "2")


def test_an_archive_that_escapes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../../escaped.txt", "out")
    refused(run(capsys, archive), "evil.zip", "escaped.txt")
    assert not (tmp_path.parent / "escaped.txt").exists()


@pytest.mark.usefixtures("ray_cluster")
def test_unreadable_weights(
    capsys: pytest.CaptureFixture[str], images: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.h5"
    weights.write_bytes(b"not weights")
    options = ["--data", images, "--families=transfer", "--image-size=32", "--no-baselines"]
    wrong = pawtune(capsys, "run", *options, "--weights", weights, "--name=w")
    refused(wrong, str(weights), "weights must be those of MobileNetV2", "cannot be read as HDF5")
    nowhere = ["--data", tmp_path / "none", *options[2:], "--dry-run", "--weights", weights]
    refused(pawtune(capsys, "run", *nowhere), "weights must be those of MobileNetV2")
    assert not (tmp_path / "runs" / "w").exists()
    missing = pawtune(capsys, "run", *options, "--weights", tmp_path / "none.h5")
    refused(missing, "none.h5", "weights must be a file")


def test_an_unknown_key_and_an_impossible_range_are_told_together(
    capsys: pytest.CaptureFixture[str], images: Path
) -> None:
    outcome = run(
        capsys, images, "--set", "space.conv_dept=3", "--set", "space.rotation_factor.low=2"
    )
    assert outcome.code == 2
    impossible, unknown = sorted(outcome.err.splitlines(), key=lambda line: "conv_dept" in line)
    assert "space.conv_dept: no such setting; did you mean 'conv_depth'?" in unknown
    assert "low must not be above high, received low 2.0" in impossible


def test_a_name_in_use(capsys: pytest.CaptureFixture[str], images: Path, tmp_path: Path) -> None:
    kept = tmp_path / "runs" / "mine" / "search.yaml"
    kept.parent.mkdir(parents=True)
    kept.write_text("data: mine\n")
    refused(run(capsys, images, "--name=mine"), "--name must be new, received 'mine'")
    assert kept.read_text() == "data: mine\n"


def test_a_runs_dir_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], images: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    refused(run(capsys, images, "--runs-dir", file), "--runs-dir must be a folder", str(file))


@pytest.mark.usefixtures("ray_cluster")
def test_more_gpus_than_there_are(
    capsys: pytest.CaptureFixture[str], images: Path, tmp_path: Path
) -> None:
    outcome = run(capsys, images, "--gpus-per-trial=1", "--name=greedy")
    refused(outcome, "--gpus-per-trial must fit on one node, received 1", "has 0 GPUs")
    assert not (tmp_path / "runs" / "greedy").exists()


def test_options_that_exclude_each_other(capsys: pytest.CaptureFixture[str], images: Path) -> None:
    outcome = run(capsys, images, "--no-baselines", "--baselines-only")
    refused(outcome, "--no-baselines and --baselines-only exclude each other")


def test_an_unknown_run(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (["leaderboard"], ["test"], ["best"], ["show"]):
        arguments = [*verb, "nope"] + (["0001"] if verb == ["show"] else [])
        refused(pawtune(capsys, *arguments), "RUN must be the name of a run", "'nope'")


def test_the_cache_is_listed_and_cleared(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(pawtune(capsys, "cache", "list", "--json").json, list)
    assert "MB  in " in pawtune(capsys, "cache", "list").out
    assert "freed" in pawtune(capsys, "cache", "clear", "pixels").out
    assert "freed" in pawtune(capsys, "cache", "clear").out


@pytest.mark.slow
def test_tensorflow_is_loaded_without_its_banner() -> None:
    code = "from pawtune.search.process import load_tensorflow; load_tensorflow(); import keras"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0
    assert ended.stderr == ""


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("nope", "No such command 'nope'; see `pawtune --help`"),
        ("run --trials none", "valid integer, .* received 'none'; see `pawtune run --help`"),
        ("submit --data sample --famlies conv", r"No such option: --famlies \(.*--families"),
        ("run --data", "Option '--data' requires an argument; see `pawtune"),
        ("logs", "Missing argument 'JOB'; see `pawtune logs --help`"),
        ("logs a b", r"Got unexpected extra argument.* \(b\); see `pawtune logs --help`"),
        ("cache claer", "'claer'. Did you mean 'clear'[?]; see `pawtune cache --help`"),
    ],
)
def test_what_is_mistyped_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], typed: str, said: str
) -> None:
    outcome = pawtune(capsys, *typed.split())
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = outcome.err.splitlines()
    assert re.search(f"^pawtune: .*{said}", line), line


def test_commands_take_gpu_memory_as_they_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow would take the whole card from a search beside them."""
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "")  # so that it is restored
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH")
    with pytest.raises(SystemExit):
        main(["--help"])
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
