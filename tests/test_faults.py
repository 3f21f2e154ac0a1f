"""Searches that are killed at any moment, and what becomes of them: see docs/reliability.md.

Drivers run in processes of their own, on this session's Ray cluster, and are resumed from here.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray

from pawtune.search.driver import resume_search
from pawtune.search.storage.run_folder import RunFolder
from tests.fault_search import replacements
from tests.waiting import wait_until
from tests.whole_run import assert_whole

TRIALS, EPOCHS = 3, 8


class Victim:
    """A driver that something will happen to.

    Args:
        runs_dir: Where its run goes.
        images: What it searches on.
        options: More of `pawtune run`.
        settings: How long things take: see tests/fault_search.py.
    """

    def __init__(
        self,
        runs_dir: Path,
        images: Path,
        *options: str,
        address: str | None,
        environment: dict[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self.run = RunFolder(runs_dir / "r")
        self.epochs_log = Path(settings.get("log_dir") or runs_dir) / "epochs.log"
        runs_dir.mkdir(parents=True, exist_ok=True)
        (runs_dir / "faults.json").write_text(json.dumps(settings))
        weights = runs_dir / "weights.h5"
        weights.write_text("none")
        arguments = [
            "run", f"--data={images}", f"--runs-dir={runs_dir}", "--name=r", "--no-baselines",
            f"--trials={TRIALS}", f"--epochs={EPOCHS}", "--image-size=32", "--quiet",
            f"--weights={weights}", "--set=speed.views=8", "--set=scheduler.name=none",
            # Trials of many epochs, on banks: a solved head would be over before anything dies.
            "--set=space.head=trained", "--set=space.head_views=weighted",
            "--set=space.tune_epochs=24", *options,
        ]  # fmt: skip
        self.environment = {
            **(environment or os.environ),
            "FAULT_RUNS_DIR": str(runs_dir),
            "XDG_CACHE_HOME": str(settings.get("cache") or runs_dir / "cache"),
        }
        where = [f"--address={address}"] if address else []
        self.process = self.start(*arguments, *where)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "tests.fault_search", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 60) -> None:
        wait_until(condition, timeout_s, process=self.process, pause_s=0.01)

    def end(self, number: int) -> str:
        """Sends the signal; what the driver said."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        expected = -number if number == signal.SIGKILL else 130
        assert self.process.returncode in (expected, 0), (self.process.returncode, out, err)
        assert "Traceback" not in err, err
        return out + err

    def epochs(self) -> list[tuple[float, str, int, int, str]]:
        """Every epoch of every worker: time, trial, number, process, node."""
        if not self.epochs_log.exists():
            return []
        lines = [line.split() for line in self.epochs_log.read_text().splitlines()]
        return [(float(t), trial, int(e), int(pid), node) for t, trial, e, pid, node in lines]

    def stage(self) -> str:
        file = self.run.root / "stage.json"
        try:
            return str(json.loads(file.read_text())["name"])
        except (OSError, ValueError):
            return ""

    def count(self, status: str) -> int:
        found = 0
        for trial in self.run.trials():
            found += trial.read_status().status == status
        return found


@contextmanager
def replaced(runs_dir: Path) -> Iterator[None]:
    """This process as a driver of tests/fault_search.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(runs_dir / "cache"))
        for place, name, new in replacements(runs_dir):
            patch.setattr(place, name, new)
        yield


def resume(victim: Victim) -> None:
    with replaced(victim.run.root.parent):
        resume_search(victim.run)


@pytest.fixture
def address(ray_cluster: object) -> str:
    return str(ray.get_runtime_context().gcs_address)


@pytest.fixture(autouse=True)
def _reap() -> Iterator[None]:
    yield
    for victim in list(_victims):
        if victim.process.poll() is None:
            victim.process.kill()
        victim.process.communicate()
        _victims.remove(victim)


_victims: list[Victim] = []


def begin(*arguments: Any, **settings: Any) -> Victim:
    victim = Victim(*arguments, **settings)
    _victims.append(victim)
    return victim


PHASES: dict[str, tuple[dict[str, float], Callable[[Victim], bool], float]] = {
    # slowed down here, begun when, and how long it lasts at least
    "start": ({}, lambda v: v.run.config_file.exists(), 1.0),
    "decode": ({"decode_s": 0.4}, lambda v: v.stage().startswith("decode"), 1.0),
    "bank": ({"bank_s": 0.4}, lambda v: v.epochs_log.with_name("shards.log").exists(), 1.0),
    "first trial": ({}, lambda v: v.count("running") > 0, 0.8),
    "between trials": ({"epoch_s": 0.08}, lambda v: v.count("completed") > 0, 0.3),
    "writing": ({"epoch_s": 0.0, "state_s": 0.0, "weights_kb": 20000},
                lambda v: len(v.epochs()) > 0, 0.25),
    "end": ({"epoch_s": 0.01}, lambda v: v.count("completed") == TRIALS, 0.3),
}  # fmt: skip
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MOMENTS = [(phase, number) for phase in PHASES for number in SIGNALS]


# `test_resume` kills one driver in the usual run of the tests.
@pytest.mark.slow
@pytest.mark.parametrize(("phase", "number"), MOMENTS)
def test_a_driver_that_dies_at_any_moment(
    phase: str, number: int, address: str, tiny_images: Path, runs_dir: Path
) -> None:
    settings, begun, seconds = PHASES[phase]
    chance = random.Random(f"{phase} {number}")
    victim = begin(runs_dir, tiny_images, address=address, **settings)
    victim.wait_for(lambda: begun(victim))
    time.sleep(chance.uniform(0, seconds))
    victim.end(number)
    before = {trial.trial_id: len(trial.read_metrics()) for trial in victim.run.trials()}
    died = time.time()
    resume(victim)
    assert_whole(victim.run.root, TRIALS, EPOCHS)
    again = [epoch for t, _, epoch, *_ in victim.epochs() if t > died]
    first = min((t for t, *_ in victim.epochs() if t > died), default=died)
    name = signal.Signals(number).name
    print(f"\n{phase}, {name}: {before} epochs kept, {len(again)} run after;", end=" ")
    print(f"the first {first - died:.1f} s after the driver's death")
