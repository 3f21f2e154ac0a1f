"""The benchmark of very many trials runs from its command line to its JSON."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.test_benchmarks import REPOSITORY, benchmark
from tests.waiting import wait_until


@contextmanager
def begun(out: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """The benchmark in the middle of its work: a tenth of the trials has ended."""
    script = str(REPOSITORY / "benchmarks" / "scale.py")
    process = subprocess.Popen([sys.executable, script, *arguments, "--out", str(out)])
    try:
        wait_until(out.exists, 120, process=process)
        yield process
    finally:
        process.kill()
        process.wait()


def report_in(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(out.read_text())
    return report


@pytest.mark.slow
def test_scale_without_workers(tmp_path: Path) -> None:
    report = benchmark("scale", tmp_path, "--trials=30", "--workers=4", "--simulate")
    assert [block["trials"] for block in report["blocks"]] == list(range(3, 31, 3))
    assert report["whole"]["driver s/trial"] > 0
    spent = {
        part: sum(block[part] for block in report["blocks"])
        for part in ("proposals and study", "early stopping")
    }
    assert spent["proposals and study"] > spent["early stopping"] > 0


@pytest.mark.slow
def test_scale_with_tune(tmp_path: Path) -> None:
    """Four processes have twenty trials: they are reused."""
    report = benchmark("scale", tmp_path, "--trials=20", "--workers=4", "--trial-s=0.5")
    blocks = report["blocks"]
    assert blocks[-1]["trials"] == report["whole"]["trials"] == 20
    assert report["whole"]["ended early"] == "no"
    assert report["whole"]["study MB"] > 0
    assert all(block["workers"] <= 8 for block in blocks)
    assert blocks[5]["MB a worker"] > 50
    # Starting a worker takes more than a second of processor, a trial in one that runs far less.
    assert sum(block["workers ms/trial"] for block in blocks[5:9]) / 4 < 500
    assert all(block["Ray's own ms/trial"] >= 0 for block in blocks)


@pytest.mark.slow
def test_what_was_measured_is_there_when_the_benchmark_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    with begun(out, "--trials=400", "--workers=4", "--simulate") as process:
        process.kill()
    report = report_in(out)
    assert report["blocks"][0]["trials"] == 40
    assert report["whole"] is None


@pytest.mark.slow
def test_a_benchmark_that_is_told_to_end_sums_up(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    with begun(out, "--trials=60", "--workers=2", "--trial-s=1") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    whole = report_in(out)["whole"]
    assert whole["ended early"] == "interrupted"
    assert 6 <= whole["trials"] < 60
