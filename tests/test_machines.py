"""Odd machines, through the real command: folders that cannot be used, names, streams, signals.

One process start meets several oddities where each alone would fail, for a search takes seconds.
"""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

import pytest

from pawtune.search.cluster.local_ray import MAX_BYTES
from tests.image_files import write_classes

PAWTUNE = (sys.executable, "-m", "pawtune")
ODD = "why? a%20b/job%2Fmain"


def search(data: Path, *options: object) -> tuple[str, ...]:
    settings = ("--families=conv", "--trials=1", "--epochs=1", "--image-size=32", "--quiet")
    return ("run", "--data", str(data), *settings, *map(str, options))


def command(
    *arguments: object,
    environment: dict[str, str | None] | None = None,
    shell: str = "",
    stdout: int | IO[Any] = subprocess.PIPE,
) -> subprocess.CompletedProcess[str]:
    """Runs `pawtune`; None in the environment unsets, `shell` redirects (`2>&-`)."""
    changed = {**os.environ, "RAY_TMPDIR": None, **(environment or {})}
    kept = {name: value for name, value in changed.items() if value is not None}
    words = [*PAWTUNE, *map(str, arguments)]
    if shell:
        words = ["sh", "-c", f'"$@" {shell}', "sh", *words]
    done = subprocess.run(
        words, env=kept, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=240, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("photos"), {"café": 12, "thé": 12})


@pytest.fixture(scope="module")
def odd_run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A search where the temporary folder is too long, home is none, and letters are ASCII."""
    place = tmp_path_factory.mktemp("odd")
    long = place / ("x" * MAX_BYTES)
    long.mkdir()
    done = command(
        *search(photos, "--name=one", "--runs-dir", place / ODD, "--set", "epochs=2"),
        environment={
            "TMPDIR": str(long),
            "HOME": os.devnull,
            "XDG_CACHE_HOME": None,
            "RAY_AUTH_TOKEN_PATH": None,
            "LC_ALL": "C",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
            "PYTHONIOENCODING": "ascii",
        },
    )
    assert done.returncode == 0, done.stderr
    assert "validation accuracy" in done.stdout
    return place / ODD / "one", done.stderr


def test_a_long_temporary_folder_and_no_home(odd_run: tuple[Path, str]) -> None:
    run, said = odd_run
    (line,) = [line for line in said.splitlines() if line.startswith("Ray uses ")]
    assert line.endswith(f"bytes, and sockets there may have {MAX_BYTES}")
    assert sorted(label for label in json.loads((run / "manifest.json").read_text())["class_names"])


def test_file_names_are_read_alike_in_every_locale(odd_run: tuple[Path, str]) -> None:
    manifest = json.loads((odd_run[0] / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["class_names"] == ["café", "thé"]


def test_nothing_is_pasted_into_a_url(odd_run: tuple[Path, str]) -> None:
    run, _ = odd_run
    assert sorted(path.name for path in run.parent.parent.parent.iterdir()) == [
        "why? a%20b",
        "x" * MAX_BYTES,
    ]
    assert [path.name for path in run.parent.iterdir()] == ["one"]
    assert (run / "study.db").stat().st_size > 0
    for verb in (("status",), ("leaderboard",), ("best", "--out=best.keras"), ("report",)):
        done = command(verb[0], run, *verb[1:])
        assert done.returncode == 0, done.stderr
    assert Path("best.keras").stat().st_size > 0


@pytest.mark.slow
def test_odd_names_resume(odd_run: tuple[Path, str]) -> None:
    run, _ = odd_run
    done = command("resume", run, "--trials", "+1", "--quiet")
    assert done.returncode == 0, done.stderr
    assert len(list((run / "trials").iterdir())) == 2


def test_streams_that_cannot_be_written(odd_run: tuple[Path, str]) -> None:
    run, _ = odd_run
    for shell in (">&-", "<&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full"):
        assert command("leaderboard", run, shell=shell).returncode == 0
    assert json.loads(command("leaderboard", run, "--json", shell="<&- 2>&-").stdout)
    with open("/dev/full", "w") as full:
        done = command("leaderboard", run, stdout=full)
    assert done.returncode == 1
    assert done.stderr == (
        "pawtune: stdout must be writable: No space left on device; what the command made is kept\n"
    )
    done = command("leaderboard", run, "--json", shell="| true")
    assert done.stderr == ""


@pytest.mark.slow
def test_a_search_without_any_stream(photos: Path) -> None:
    done = command(*search(photos, "--name=deaf"), shell="<&- >&- 2>&-")
    assert done.returncode == 0
    assert json.loads(Path("runs/deaf/summary.json").read_text())["counts"] == {"completed": 1}


def test_letters_that_an_encoding_lacks_are_escaped(odd_run: tuple[Path, str]) -> None:
    for encoding in ("ascii", "latin-1:strict"):
        done = command(
            "best", odd_run[0], "--out", "b.keras", "--force",
            environment={"PYTHONIOENCODING": encoding},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "\\u2192 b.keras" in done.stdout


@pytest.mark.parametrize("hidden", ["runs", "TMPDIR"])
def test_a_failed_start_leaves_nothing(photos: Path, tmp_path: Path, hidden: str) -> None:
    """`--runs-dir` below a file; no folder that Ray's sockets fit into."""
    (tmp_path / "file").touch()
    if hidden == "runs":
        done = command(*search(photos, "--runs-dir", tmp_path / "file" / "runs"))
        assert "--runs-dir must be a folder that can be written, got " in done.stderr
        assert done.stderr.rstrip().endswith("give another --runs-dir")
    else:
        done = command(*search(photos, "--address=local", "--cpus-per-trial=1000"))
        assert "--cpus-per-trial must fit on one node" in done.stderr
    assert done.returncode == 2
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


def test_a_misspelt_backbone_is_refused_at_once(photos: Path) -> None:
    for option, meant in [
        ("space.backbone.choices=[MobilNetV2]", "MobileNetV2"),
        ("space.backbone.choices=[efficientnet-b0]", "EfficientNetB0"),
        ("space.backbone=[Resnet5O]", "ResNet50"),
        ("space.backbone=XceptionNet", "Xception"),
    ]:
        done = command("run", "--data", photos, "--set", option, "--name=none")
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("pawtune: space.backbone"), line
        assert f"did you mean {meant!r}?" in line
    assert not Path("runs").exists()


def test_a_backbone_in_another_case_is_the_same(photos: Path) -> None:
    option = "space.backbone.choices=[mobilenetv2]"
    done = command("run", "--data", photos, "--set", option, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_closed_window_ends_a_search_in_order(photos: Path, tmp_path: Path) -> None:
    words = [*PAWTUNE, *search(photos, "--name=window", "--trials=40", "--epochs=400")]
    run = tmp_path / "runs" / "window"
    process, terminal = pty.fork()
    if process == 0:
        os.execv(words[0], words)
    try:
        until(lambda: any(run.glob("trials/*/metrics.csv")))
    finally:
        os.close(terminal)
        os.waitpid(process, 0)
    assert json.loads((run / "summary.json").read_text())["reason"] == "interrupted"
    assert not (run / "driver.lock").exists()


@pytest.mark.slow
def test_status_knows_a_dead_driver(photos: Path, tmp_path: Path) -> None:
    words = [*PAWTUNE, *search(photos, "--name=killed", "--trials=40", "--epochs=400")]
    run = tmp_path / "runs" / "killed"
    driver = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: any(run.glob("trials/*/metrics.csv")))
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    state = command("status", "killed").stdout
    said = f"its driver is gone, and no end is on record (continue: pawtune resume {run}); trials: "
    assert said in state
    assert " interrupted" in state
    assert " running" not in state


def until(holds: Any, patience_s: float = 120.0) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)
