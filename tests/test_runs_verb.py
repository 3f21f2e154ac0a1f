"""`pawtune runs`, and verbs that take several runs, on run folders written as files."""

import os
import socket
import time
from pathlib import Path

import pytest

from pawtune.search.cli.jobs.options import times
from pawtune.search.jobs.ray_jobs import Job
from pawtune.search.run import Run, open_run
from pawtune.search.storage.run_folder import read_json, write_json
from pawtune.search.storage.run_lock import process_start
from pawtune.search.tensorboard.server import event_folder, together
from tests.command_line import pawtune
from tests.hostile_files import permissions_that_count
from tests.run_folders import STARTED, RunMaker, make_images


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs of the same data, the second one interrupted, and a damaged one."""
    runs = tmp_path / "runs"
    first = RunMaker(runs, make_images(tmp_path / "images", ["cat", "dog"]), "first")
    first.proposals(3)
    first.finish()
    first.look_at_test()
    second = RunMaker(runs, first.manifest, "second")
    second.proposals(2, families=("conv",))
    status = second.folder.trial("0002")
    status.write_status("stopped", reason="interrupted", seconds=3.0)
    second.finish("interrupted")
    (runs / "third").mkdir()
    (runs / "third" / "search.yaml").write_text("trials: many\n")
    for number, name in enumerate(("first", "second", "third")):
        # A copy of a folder, or a resumed search, has new times of files.
        touched = 1e9 + number if name == "third" else 2e9 - number
        os.utime(runs / name / "search.yaml", (touched, touched))
    for number, folder in enumerate((first.folder, second.folder)):
        write_json(folder.summary_file, {**read_json(folder.summary_file), "began": 1e9 + number})
    return runs


def test_runs_lists_the_latest_first(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = pawtune(capsys, "runs", "--json").json
    assert [line["name"] for line in found] == ["third", "second", "first"]
    assert found[0]["state"].startswith("cannot be read: ")
    assert found[1]["state"] == "ended early, interrupted"
    assert found[1]["counts"]["interrupted"] == 1
    assert found[2]["best"] == open_run("first").rows()[0].best_val_accuracy
    table = pawtune(capsys, "runs", "list").out
    began = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(1e9))
    assert began in table
    assert pawtune(capsys, "runs", "--runs-dir", "elsewhere").out == "no runs in elsewhere\n"


def test_a_run_without_an_end_began_with_its_first_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maker = RunMaker(tmp_path / "runs", make_images(tmp_path / "images", ["cat", "dog"]))
    maker.proposals(2)
    (line,) = pawtune(capsys, "runs", "--json").json
    assert line["began"] == STARTED
    for trial in maker.folder.trials():
        trial.write_status("pending")
    os.utime(maker.folder.config_file, (1e9, 1e9))
    (line,) = pawtune(capsys, "runs", "--json").json
    assert line["began"] == 1e9


def test_the_home_of_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ("runs",),
        ("status", "one"),
        ("run", "--data", "sample"),
        ("run", "--data", "sample", "--dry-run"),
    ):
        done = pawtune(capsys, *words, "--runs-dir", "~no-such-user/runs")
        assert done.code == 2
        assert "must name a user of this machine, received '~no-such-user/runs'" in done.err


def test_compare_puts_winners_side_by_side(
    runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    told = pawtune(capsys, "runs", "compare", "first", "second", "--json").json
    assert told["same_data"]
    first, second = told["runs"]
    assert first["test_accuracy"] == 0.935
    assert second["test_accuracy"] is None
    assert first["corrected"] is not None
    assert second["trials"] == 2
    assert "warning" not in pawtune(capsys, "runs", "compare", "first", "second").err
    RunMaker(runs, make_images(tmp_path / "other", ["cat", "dog", "fox"]), "other").finish()
    told_other = pawtune(capsys, "runs", "compare", "first", "other")
    assert "warning: these runs have other images or splits" in told_other.err


def test_several_runs_are_ranked_together(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = pawtune(capsys, "leaderboard", "first", "second", "--json").json
    assert [row["rank"] for row in board] == [1, 2, 3, 4, 5]
    accuracies = [row["best_val_accuracy"] for row in board]
    assert accuracies == sorted(accuracies, reverse=True)
    names = {f"{run}/{n:04d}" for run, trials in {"first": 3, "second": 2}.items()
             for n in range(1, trials + 1)}  # fmt: skip
    assert {row["trial_id"] for row in board} == names
    top = pawtune(capsys, "leaderboard", "first", "second", "--top", 1).out
    assert board[0]["trial_id"] in top
    assert "1 of 5 trials" in top


def test_runs_of_other_metrics_are_not_ranked_together(
    runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    RunMaker(runs, open_run("first").manifest(), "loss", metric="val_loss").finish()
    refused = pawtune(capsys, "leaderboard", "first", "loss")
    assert refused.code == 2
    assert "ranked together by one metric, received val_accuracy and val_loss" in refused.err


def test_a_run_is_ranked_once_and_printed_in_one_form(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = pawtune(capsys, "leaderboard", "first", runs / "first")
    assert done.code == 2
    assert f"received '{runs / 'first'}' twice" in done.err
    for names in (("first",), ("first", "second")):
        done = pawtune(capsys, "leaderboard", *names, "--csv", "--json")
        assert (done.code, done.out) == (2, "")
        assert "received --csv and --json" in done.err


def test_settings_that_were_cut_off_are_the_run_folders_fault(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "first" / "search.yaml").write_text("")
    for verb in ("leaderboard", "report", "best", "resume"):
        done = pawtune(capsys, verb, "first")
        assert done.code == 2
        assert f"received '{runs / 'first' / 'search.yaml'}'; restore the file" in done.err


def test_a_run_that_cannot_be_deleted_is_named(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = runs / "first" / "trials"
    trials.chmod(0o500)
    with permissions_that_count():
        done = pawtune(capsys, "runs", "delete", "first", "--yes")
    trials.chmod(0o700)
    assert done.code == 2
    assert f"received {runs / 'first'}: Permission denied" in done.err


def test_tensorboard_shows_several_runs(runs: Path, tmp_path: Path) -> None:
    folders = {name: event_folder(open_run(name).folder) for name in ("first", "second")}
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    shown = together(folders, scratch)
    found = {path.parent.name for path in shown.glob("*/*/events.out.tfevents.*")}
    assert {"0001", "0002"} <= {name.partition("-")[0] for name in found}
    assert sorted(path.name for path in shown.iterdir()) == ["first", "second"]
    assert together({"first": folders["first"]}, scratch) == folders["first"]


def test_delete_asks_and_deletes(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = pawtune(capsys, "runs", "delete", "first")
    assert asked.code == 2
    assert "no terminal to answer from; give --yes" in asked.err
    assert (runs / "first").exists()
    done = pawtune(capsys, "runs", "delete", "first", "second", "--yes")
    assert done.out == f"deleted {runs}/first\ndeleted {runs}/second\n"
    assert sorted(path.name for path in runs.iterdir()) == ["third"]


def test_a_run_that_is_searched_is_not_deleted(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(
        runs / "first" / "driver.lock",
        {"host": socket.gethostname(), "pid": os.getpid(), "process": process_start(os.getpid()),
         "since": "2026-11-26T01:00:00+00:00", "token": "0"},
    )  # fmt: skip
    refused = pawtune(capsys, "runs", "delete", "first", "--yes")
    assert refused.code == 2
    assert "a run that is being searched cannot be deleted, received 'first'" in refused.err
    assert (runs / "first").exists()


def test_status_of_a_run_has_named_fields(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = pawtune(capsys, "status", "second", "--json").json
    assert list(told) == ["name", "state", "run", "job"]
    assert told["job"] is None
    assert told["run"]["best"]["trial_id"] == Run(open_run("second").folder).rows()[0].trial_id
    assert told["run"]["counts"]["interrupted"] == 1
    spoken = pawtune(capsys, "status", "second").out
    assert "1 interrupted" in spoken
    assert "Next:" not in spoken, "nothing was changed"


def test_times_of_jobs_have_their_zone() -> None:
    job = Job("pets-1", "SUCCEEDED", "pets", "/runs/pets", 1e9, 1e9 + 5, "")
    assert times(job) == time.strftime("%Y-%m-%d %H:%M:%S %z, 5 s", time.localtime(1e9))
