"""Going on with a search from its folder: nothing finished is lost, nothing runs twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState

from pawtune.models.baselines import baseline
from pawtune.models.model_spec import TrainSpec
from pawtune.search.config.search_config import load_config
from pawtune.search.errors import UserError
from pawtune.search.objective import Objective
from pawtune.search.run import open_run
from pawtune.search.shared_work.backbones import find_families
from pawtune.search.storage.history import (
    drop_states_of_ended,
    mark_ended,
    read_history,
    remove_partial_files,
    running_best,
)
from pawtune.search.storage.records import TrialStatus
from pawtune.search.storage.run_folder import RunFolder, create_run_folder, write_json
from pawtune.search.storage.run_lock import RunLock
from pawtune.search.tuning.recorder import RecordKeeper, StopSignal
from pawtune.search.tuning.scheduler import FamilyScheduler
from tests.command_line import begun, pawtune
from tests.test_tuning import Search
from tests.tiny_run import small_search
from tests.waiting import wait_until
from tests.whole_run import assert_continued


def test_running_best_in_both_directions() -> None:
    assert running_best([0.5, 0.4, 0.9], Objective()) == [0.5, 0.5, 0.9]
    assert running_best([0.5, 0.4, 0.9], Objective("val_loss")) == [0.5, 0.4, 0.4]


def test_two_drivers_on_one_run_are_refused(runs_dir: Path) -> None:
    run = create_run_folder(runs_dir, "held")
    with RunLock(run), pytest.raises(UserError, match=rf"held by process {os.getpid()} on"):
        RunLock(run).__enter__()
    with RunLock(run):  # let go of
        pass


def test_the_lock_of_a_dead_driver_is_taken_over(runs_dir: Path) -> None:
    run = create_run_folder(runs_dir, "stale")
    code = (
        "import os, sys; from pathlib import Path;"
        "from pawtune.search.storage.run_lock import RunLock;"
        "from pawtune.search.storage.run_folder import RunFolder;"
        "RunLock(RunFolder(Path(sys.argv[1]))).__enter__(); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, str(run.root)], check=False, timeout=60)
    assert (run.root / "driver.lock").exists()
    with RunLock(run):
        pass
    assert not (run.root / "driver.lock").exists()


def test_half_written_files_of_the_dead_are_swept(runs_dir: Path) -> None:
    run = create_run_folder(runs_dir, "r")
    trial = run.new_trial("0001")
    trial.write_status("running")
    write_json(trial.spec_file, {})
    for folder in (run.root, trial.root):
        handle, _ = tempfile.mkstemp(dir=folder, prefix=".metrics.csv.")
        os.close(handle)
        (folder / ".gitignore").touch()
    remove_partial_files(run)
    assert {path.name for path in run.root.rglob("*") if path.is_file()} == {
        "spec.json", "status.json", ".gitignore",
    }  # fmt: skip


def of_another_machine(run: RunFolder, beat: float) -> None:
    holder = {"host": "elsewhere", "pid": 1, "process": "1", "since": "then", "token": "theirs"}
    lock = run.root / "driver.lock"
    lock.write_text(json.dumps(holder))
    os.utime(lock, (beat, beat))


def test_a_driver_elsewhere_is_known_by_its_heartbeat(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the file system's clock was set back by an hour after its last beat."""
    monkeypatch.setattr("pawtune.search.storage.run_lock.BEAT_S", 0.2)
    run = create_run_folder(runs_dir, "r")
    of_another_machine(run, time.time())
    with pytest.raises(UserError, match="held by process 1 on elsewhere since then"):
        RunLock(run).__enter__()
    for beat in (time.time() - 61, time.time() + 3600):
        of_another_machine(run, beat)
        with RunLock(run):
            pass
    of_another_machine(run, time.time() + 3600)
    alive = threading.Timer(0.5, os.utime, [run.root / "driver.lock"])
    alive.start()
    with pytest.raises(UserError, match="on elsewhere"):
        RunLock(run).__enter__()
    alive.join()


def test_one_of_two_that_find_a_dead_driver_gets_the_run(runs_dir: Path) -> None:
    run = create_run_folder(runs_dir, "r")
    of_another_machine(run, time.time() - 61)
    held: list[RunLock] = []
    refused: list[RunLock] = []

    def take(lock: RunLock) -> None:
        try:
            lock.__enter__()
            held.append(lock)
        except UserError:
            refused.append(lock)

    threads = [threading.Thread(target=take, args=[RunLock(run)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for lock in held:
        lock.__exit__(None, None, None)
    assert (len(held), len(refused)) == (1, 1)


def test_durations_do_not_go_by_a_clock_that_somebody_sets(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run_folder(runs_dir, "r")
    spec = baseline("tutorial_1", epochs=3).model_dump(mode="json")
    trial = SimpleNamespace(config={"trial_id": "0001", "spec": spec})
    run.new_trial("0001").root.mkdir()
    keeper = RecordKeeper(run, None, StopSignal(), lambda event: None)
    clock = SimpleNamespace(time=lambda: 1e9, monotonic=lambda: 50.0)
    monkeypatch.setattr("pawtune.search.tuning.recorder.time", clock)
    keeper.on_trial_start(0, [], trial)
    clock.time, clock.monotonic = lambda: 1e9 - 3600, lambda: 57.5  # set back by an hour
    keeper.on_trial_result(0, [], trial, {"epoch": 3})
    keeper.on_trial_complete(0, [], trial)
    status = run.new_trial("0001").read_status()
    assert (status.status, status.seconds, status.started) == ("completed", 7.5, 1e9)
    assert status.finished is not None
    assert status.finished >= 1e9


def test_a_trial_whose_driver_died_after_its_last_epoch_is_completed(runs_dir: Path) -> None:
    run = create_run_folder(runs_dir, "r")
    metrics = ("loss", "accuracy", "val_loss", "val_accuracy", "val_balanced_accuracy")
    for trial_id, epochs in (("0001", 2), ("0002", 1)):
        folder = run.new_trial(trial_id)
        folder.last.mkdir(parents=True)
        spec = baseline("tutorial_1", epochs=2).model_dump(mode="json")
        write_json(folder.spec_file, {**spec, "baseline": False, "params": {}})
        rows = [
            {"epoch": n + 1, "seconds": 1.5, **dict.fromkeys(metrics, 0.5)} for n in range(epochs)
        ]
        folder.write_metrics(rows)
        folder.write_status("running", started=1.0)
    past = read_history(run, Objective())
    assert mark_ended(run, past) == ["0001"]
    done, open_ = (run.trial(trial_id) for trial_id in ("0001", "0002"))
    assert done.read_status() == TrialStatus(status="completed", started=1.0, seconds=3.0)
    assert open_.read_status().status == "running"
    assert [folder.last.exists() for folder in (done, open_)] == [False, True]


SPEC_OF_NINE_EPOCHS = {"model": {"family": "conv"}, "train": {"epochs": 9}}


def spec_of_nine_epochs() -> Any:
    return SimpleNamespace(model=SimpleNamespace(family="conv"), train=TrainSpec(epochs=9))


def test_asha_knows_what_finished_before() -> None:
    def trial(number: int, value: float) -> Any:
        spec, values = spec_of_nine_epochs(), {1: value, 2: value}
        return SimpleNamespace(
            trial_id=f"{number:04d}", spec=spec, values=values, costs={}, over=True
        )

    scheduler = FamilyScheduler(Objective(), epochs=9, grace_period=1, reduction_factor=3)
    for number in range(6):
        scheduler.remember(trial(number, 0.8 + number / 100))
    new = SimpleNamespace(
        trial_id="new",
        config={"trial_id": "0007", "baseline": False, "spec": SPEC_OF_NINE_EPOCHS},
    )
    assert scheduler.on_trial_result(None, new, {"epoch": 1, "objective": 0.5}) == "STOP"
    assert scheduler.stopped == {"0007"}


def test_a_trial_that_continues_enters_the_rungs_where_it_passed_them() -> None:
    """With its value of then: else a new trial would be stopped against its value of now."""
    scheduler = FamilyScheduler(Objective(), epochs=9, grace_period=1, reduction_factor=3)
    spec = spec_of_nine_epochs()
    past = {1: 0.5, 2: 0.6, 3: 0.7}
    scheduler.remember(
        SimpleNamespace(trial_id="0001", spec=spec, values=past, costs={}, over=False)
    )

    def trial(trial_id: str) -> Any:
        config = {"trial_id": trial_id, "baseline": False, "spec": SPEC_OF_NINE_EPOCHS}
        return SimpleNamespace(trial_id=f"tune-{trial_id}", config=config)

    scheduler.on_trial_result(None, trial("0001"), {"epoch": 4, "objective": 0.9})
    assert scheduler.on_trial_result(None, trial("0002"), {"epoch": 1, "objective": 0.55}) != "STOP"


@pytest.fixture
def tiny_search(tiny_images: Path, runs_dir: Path) -> list[str]:
    """A small conv search as options of `pawtune run`."""
    return small_search(tiny_images, runs_dir, "r")


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.slow
def test_more_trials_on_a_finished_and_moved_run(
    tiny_search: list[str], tmp_path: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pawtune(capsys, *tiny_search, "--trials=2", "--epochs=2").code == 0
    before = {row.trial_id: row for row in open_run("r", runs_dir).rows()}
    moved = tmp_path / "elsewhere"
    shutil.move(runs_dir / "r", moved)
    ended = pawtune(capsys, "resume", moved, "--trials", "+2")
    assert ended.code == 0, ended
    run = open_run(moved)
    assert sorted(row.trial_id for row in run.rows()) == ["0001", "0002", "0003", "0004"]
    after = {row.trial_id: row for row in run.rows()}
    assert all(after[key].params == before[key].params for key in before)
    assert all(after[key].seconds == before[key].seconds for key in before)
    assert run.config().trials == 4
    study = Search.study(SimpleNamespace(run=run.folder))  # type: ignore[arg-type]
    assert len(study) == 4
    assert {t.state for t in study} <= {TrialState.COMPLETE, TrialState.PRUNED}
    history = read_history(run.folder, Objective())
    assert all(trial.over for trial in history)


def test_a_killed_search_continues_where_it_was(
    tiny_search: list[str], runs_dir: Path, capsys: pytest.CaptureFixture[str], ray_cluster: object
) -> None:
    """SIGKILL to the driver, in a process of its own with a Ray of its own; then Ctrl-C here."""
    run = RunFolder(runs_dir / "r")
    with begun(*tiny_search, "--trials=2", "--epochs=40") as driver:
        wait_until(lambda: max(_epochs(run), default=0) >= 5, 120, process=driver)
    reached = max(_epochs(run))
    assert pawtune(capsys, "leaderboard", run.root, "--json").code == 0
    epochs = sum(_epochs(run))
    with _interrupted_when(lambda: sum(_epochs(run)) > epochs):
        ended = pawtune(capsys, "resume", run.root)
    check_interrupted(run, ended.code, ended.out, ended.err)
    ended = pawtune(capsys, "resume", run.root)
    assert ended.code == 0, ended
    assert_continued(open_run(run.root), trials=2, epochs=40)
    assert reached < 40


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_search_in_order(
    tiny_search: list[str], runs_dir: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    run = RunFolder(runs_dir / "r")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with begun(*tiny_search, "--trials=3", "--epochs=500", **pipes) as driver:
        wait_until(lambda: max(_epochs(run), default=0) >= 2, 120, process=driver)
        driver.send_signal(number)
        out, err = driver.communicate(timeout=60)
    check_interrupted(run, driver.returncode, out, err)


def check_interrupted(run: RunFolder, code: int, out: str, err: str) -> None:
    assert code == 130, err
    assert "finished epochs are kept" in err
    assert "pawtune resume" in out
    statuses = [trial.read_status() for trial in run.trials()]
    assert {status.status for status in statuses} <= {"stopped", "pending"}
    assert "interrupted" in {status.reason for status in statuses}
    assert not (run.root / "driver.lock").exists()
    assert not (run.root / ".tune").exists()


@contextmanager
def _interrupted_when(condition: Any) -> Iterator[None]:
    """Ctrl-C to this process as soon as the condition holds."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            if condition():
                os.kill(os.getpid(), signal.SIGINT)
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _epochs(run: RunFolder) -> list[int]:
    return [len(trial.read_metrics()) for trial in run.trials()]


def test_an_unfit_number_of_trials(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = create_run_folder(runs_dir, "r")
    from pawtune.search.config.search_config import dump_config
    from pawtune.search.storage.run_folder import write_text

    write_text(run.config_file, dump_config(load_config(None, [], {"data": "sample"})))
    refused = pawtune(capsys, "resume", run.root, "--trials", "many")
    assert refused.code == 2
    assert "--trials must be a number of trials to add, received 'many'; give +20" in refused.err


def test_weights_in_the_run_folder_need_their_source_no_more(runs_dir: Path) -> None:
    run = create_run_folder(str(runs_dir), "kept")
    file = run.backbone_weights("MobileNetV2", 160)
    file.parent.mkdir()
    file.touch()
    file.with_name("MobileNetV2-160.json").write_text("{}")
    gone = "s3://no-such-bucket/weights.h5?endpoint_override=http%3A%2F%2F127.0.0.1%3A1"
    config = load_config(None, [], {"data": "sample", "weights": gone, "baselines": "off"})
    found = find_families(config, pytest.fail, run)
    assert found.weights == {("MobileNetV2", 160): file}


def test_states_that_no_trial_needs_go_at_the_end(runs_dir: Path) -> None:
    """A worker of a killed driver may write one after its trial has ended elsewhere."""
    run = create_run_folder(str(runs_dir), "ended")
    ends = [("completed", None), ("stopped", "asha"), ("failed", "OSError: x"), ("stopped", "time")]
    for number, (status, reason) in enumerate(ends, start=1):
        folder = run.new_trial(f"{number:04d}")
        write_json(folder.spec_file, {})
        folder.write_status(status, reason=reason)
        folder.last.mkdir()
    drop_states_of_ended(run)
    assert [trial.last.exists() for trial in run.trials()] == [False, False, False, True]
