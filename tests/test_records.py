"""Records of a run folder: what was written is read, what pawtune never writes is refused."""

from pathlib import Path

import pytest

from pawtune.search.storage.records import TrialStatus
from pawtune.search.storage.run_folder import RunFolder, read_json, write_json


@pytest.mark.parametrize(
    ("status", "is_over", "stopped_early"),
    [
        (TrialStatus(status="pending", reason="waits 15 s for 1 CPU"), False, False),
        (TrialStatus(status="running"), False, False),
        (TrialStatus(status="completed"), True, False),
        (TrialStatus(status="failed", reason="asha"), True, False),
        (TrialStatus(status="stopped", reason="asha"), True, True),
        (TrialStatus(status="stopped", reason="time budget"), False, False),
        (TrialStatus(status="stopped"), False, False),
    ],
)
def test_a_trial_is_over_unless_it_can_be_continued(
    status: TrialStatus, is_over: bool, stopped_early: bool
) -> None:
    assert (status.is_over, status.stopped_early) == (is_over, stopped_early)


def test_a_status_is_read_as_it_was_written(tmp_path: Path) -> None:
    trial = RunFolder(tmp_path).new_trial("0001")
    assert trial.read_status() == TrialStatus(status="pending")
    trial.write_status("stopped", reason="time budget", started=1.5, seconds=3)
    written = {"status": "stopped", "reason": "time budget", "started": 1.5, "seconds": 3.0}
    assert read_json(trial.status_file) == written
    assert trial.read_status() == TrialStatus(**written)


def test_what_an_untrusted_status_says_is_harmless(tmp_path: Path) -> None:
    trial = RunFolder(tmp_path).new_trial("0001")
    content = {"status": "failed", "reason": "\x1b[2J" + "x" * 5000, "seconds": 1e300, "more": 1}
    write_json(trial.status_file, {**content, "started": True, "finished": []})
    status = trial.read_status()
    assert status.reason is not None
    assert "\x1b" not in status.reason
    assert len(status.reason) == 1000
    assert (status.started, status.finished, status.seconds) == (None, None, None)
