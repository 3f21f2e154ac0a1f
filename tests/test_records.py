"""Records of a run folder: what was written is read, what pawtune never writes is refused."""

from pathlib import Path

import pytest

from pawtune.search.errors import UserError
from pawtune.search.storage.records import RunSummary, TrialFacts, TrialStatus
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


def test_facts_and_summary_are_read_as_they_were_written(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    trial = run.new_trial("0001")
    assert trial.read_facts() == TrialFacts()
    assert run.read_summary() is None
    facts = TrialFacts(num_weights=7, gpus=("0", "1"), device="gpu", code=2, threads=1)
    summary = RunSummary(reason=None, seconds=1.5, stages={"hash": 0.5}, counts={"failed": 2})
    trial.write_facts(facts)
    run.write_summary(summary)
    assert trial.read_facts() == facts
    assert run.read_summary() == summary
    assert read_json(trial.facts_file)["gpus"] == ["0", "1"]
    assert "host" not in read_json(trial.facts_file)  # what nobody found out is not written


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        ({"num_weights": -1}, r"num_weights must be a whole number from 0 .*, received -1"),
        ({"num_weights": 1.5}, "num_weights must be a whole number"),
        ({"gpus": "0"}, "gpus must be a list of words, received '0'"),
        ({"host": ["a"]}, r"host must be words or null, received \['a'\]"),
    ],
)
def test_facts_that_pawtune_never_writes_are_refused(
    tmp_path: Path, content: dict[str, object], refusal: str
) -> None:
    trial = RunFolder(tmp_path).new_trial("0001")
    write_json(trial.facts_file, content)
    with pytest.raises(UserError, match=rf"facts\.json: {refusal}"):
        trial.read_facts()


def test_stages_of_a_summary_that_are_no_times_are_left_out(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for stages, found in (("odd", {}), ({"hash": "long", "decode": 2}, {"decode": 2})):
        write_json(run.summary_file, {"seconds": 1, "stages": stages})
        summary = run.read_summary()
        assert summary is not None
        assert summary.stages == found
