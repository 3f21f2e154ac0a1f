"""optuna-dashboard opens the study file of a run, with what explains each trial."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from pawtune.search.objective import Objective
from pawtune.search.run import Run
from pawtune.search.sampling.study_file import StudyFile
from tests.run_folders import RunMaker


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as reply:
        return json.load(reply)


@pytest.mark.slow
def test_the_dashboard_shows_the_trials(tiny_images: Path, runs_dir: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    program = shutil.which("optuna-dashboard", path=str(Path(sys.executable).parent))
    assert program is not None
    maker = RunMaker(runs_dir, tiny_images)
    maker.proposals(4)
    run = Run(maker.finish())
    file = StudyFile(run.folder.study_file, run.name, Objective(), print)
    file.add(*run.study.trials)
    file.close()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, f"sqlite:///{run.folder.study_file}", "--port", str(port)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dashboard = subprocess.Popen(command, **pipes)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                (study,) = get(f"http://127.0.0.1:{port}/api/studies")["study_summaries"]
                break
            except urllib.error.URLError:
                assert dashboard.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.3)
        assert study["study_name"] == run.name
        found = get(f"http://127.0.0.1:{port}/api/studies/{study['study_id']}?after=0")["trials"]
    finally:
        dashboard.terminate()
        dashboard.wait(20)
    names = {
        item["value"].strip('"')
        for trial in found
        for item in trial["user_attrs"]
        if item["key"] == "name"
    }
    assert names == {row.name for row in run.rows()}
