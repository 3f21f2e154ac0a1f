"""Progress as people and pipes see it: a real pseudo-terminal, a real pipe."""

import io
import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PosixPath

import pytest
from rich.console import Console

from pawtune.models.baselines import baseline
from pawtune.search.cluster.connection import ResourcePlan
from pawtune.search.errors import UserError
from pawtune.search.objective import Metric, Objective
from pawtune.search.progress.bars import Bar, Bars
from pawtune.search.progress.live_view import BestTrial, SearchState, TrialEvent, show_state
from pawtune.search.progress.reporter import Reporter, leaderboard_table
from pawtune.search.progress.run_status import of_run
from pawtune.search.progress.stages import read_stage
from pawtune.search.progress.state_file import StateNotes, state_file
from pawtune.search.progress.watch import read_state, show_run, watch
from pawtune.search.results.leaderboard import Row, rank_trials, write_leaderboard
from pawtune.search.run import Run
from pawtune.search.storage.records import Status
from pawtune.search.storage.run_folder import RunFolder, write_json
from pawtune.search.storage.run_lock import is_running, process_start
from pawtune.search.trial_report import TrialReport
from tests.run_folders import RunMaker
from tests.terminal import Screen, drawn, run_in_terminal

LONG = "conv-" + "a-very-long-name-" * 8

# A search of a few trials: one with a long name, one that fails after being the best.
SCRIPT = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from pawtune.search.progress.live_view import TrialEvent
from pawtune.search.objective import Metric, Objective
from pawtune.search.progress.reporter import Reporter
from pawtune.search.storage.run_folder import RunFolder
from pawtune.search.trial_report import TrialReport

reporter = Reporter(quiet={quiet})
for done in (0, 1500, 3000):
    reporter.stage("hash", done, 3000)
    time.sleep({pause})
reporter.say("warning: one image is odd")
plan = SimpleNamespace(cpus=1, gpus=0, concurrency=2)
reporter.trials({total}, plan, RunFolder(Path("/runs/pets")))
params = {{"family": "conv", "flip": "horizontal", "learning_rate": 0.00123}}

def tell(number, name, status, epoch, best, reason=None):
    result = {{"epoch": epoch, "objective": best, "best_epoch": 1}} if epoch else {{}}
    result |= {{"best_val_accuracy": best, "best_val_loss": 0.5}} if epoch else {{}}
    event = TrialEvent(
        f"{{number:04d}}", name, "conv", 20, status, TrialReport.from_result(result), reason, params
    )
    reporter.event(event)
    time.sleep({pause})

tell(1, {long!r}, "running", 0, None)
tell(1, {long!r}, "running", 1, 0.8)
tell(2, "conv-0002", "running", 3, 0.99)
tell(2, "conv-0002", "failed", 3, 0.99, "DivergedError: loss must stay finite")
tell(1, {long!r}, "stopped", 4, 0.8, "asha")
for number in range(3, {total} + 1):
    tell(number, f"conv-{{number:04d}}", "running", 1, 0.5)
    if number < {total}:
        tell(number, f"conv-{{number:04d}}", "completed", 20, 0.5 + number / 10000)
if {close}:
    reporter.close()
elif reporter._live is not None:
    reporter._live.refresh()  # what the thread that draws would do a moment later
"""


def script(total: int = 5, quiet: bool = False, close: bool = True, pause: float = 0.0) -> str:
    return SCRIPT.format(long=LONG, total=total, quiet=quiet, close=close, pause=pause)


def in_terminal(width: int, **environment: str) -> Screen:
    """The screen of a search that is still running when its process ends."""
    return run_in_terminal(script(close=False, pause=0.05), width, **environment)


@pytest.mark.parametrize("width", [80, 200])
def test_a_terminal_shows_what_runs_and_the_best_so_far(width: int) -> None:
    screen = in_terminal(width)
    shown = screen.text
    assert screen.overflowed == []
    assert "4/5" in shown
    assert "2 done, 1 stopped early, 1 failed, 1 running, 0 to come" in shown
    assert "conv-0005" in shown
    assert "1/20" in shown
    assert "conv-0002 failed: DivergedError: loss must stay finite" in shown
    # The failed trial's 0.99 does not count.
    assert "best val_accuracy 0.8000 conv-a-very-long-name" in shown
    assert "learning_rate=0.00123" in shown
    assert "saved 16 epochs (early stopping)" in shown
    assert any("hash" in frame for frame in screen.frames)
    assert " left" in shown
    assert screen.colours


def test_the_live_view_is_taken_away_at_the_end() -> None:
    shown = run_in_terminal(script(pause=0.05), 80).text
    assert "warning: one image is odd" in shown
    assert "running" not in shown
    assert "trials ━" not in shown


def test_no_color_is_respected() -> None:
    screen = in_terminal(80, NO_COLOR="1")
    assert screen.colours == []
    assert "2 done" in screen.text


def test_a_dumb_terminal_gets_plain_lines() -> None:
    screen = in_terminal(80, TERM="dumb")
    assert "[1/5] conv-0002 failed: DivergedError" in screen.text
    assert screen.colours == []
    assert "\x1b" not in "".join(screen.frames)


def piped(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={k: v for k, v in os.environ.items() if k != "FORCE_COLOR"},
    )
    assert done.stdout == ""
    assert "\x1b" not in done.stderr
    return done.stderr.splitlines()


def test_a_pipe_gets_a_line_a_trial_of_a_short_search() -> None:
    lines = piped(script())
    assert lines[0] == "hash: 3000 done"
    assert "warning: one image is odd" in lines
    ended = [line for line in lines if line.startswith("[")]
    assert len(ended) == 4
    assert ended[1].startswith(f"[2/5] {LONG} stopped early: val_accuracy 0.8000 (epoch 1 of 4)")


def test_a_pipe_gets_few_lines_of_a_long_search() -> None:
    lines = piped(script(total=200))
    assert len(lines) <= 20
    assert any("conv-0002 failed" in line for line in lines)
    assert any(line.startswith("[180/200]") for line in lines)


def test_quiet_leaves_warnings_only() -> None:
    assert piped(script(quiet=True)) == ["warning: one image is odd"]
    assert run_in_terminal(script(quiet=True), 80).text.strip() == "warning: one image is odd"


def event(trial_id: str, status: Status, epoch: int, value: float | None) -> TrialEvent:
    result: dict[str, float] = {}
    if value is not None:
        result = {"epoch": epoch, "best_epoch": epoch, "objective": value}
        result |= {"best_val_accuracy": value, "best_val_loss": 1 - value}
    reason = "asha" if status == "stopped" else None
    report = TrialReport.from_result(result)
    return TrialEvent(trial_id, f"t-{trial_id}", "conv", 20, status, report, reason)


def test_the_state_counts_what_was_saved() -> None:
    state = SearchState(total=3, train_images=100)
    state.val_images = 30
    assert state.take(event("0001", "running", 5, 0.7))
    assert not state.take(event("0001", "stopped", 5, 0.7))
    assert not state.take(event("0002", "completed", 20, 0.7), on_bank=True)
    assert state.best is not None
    assert state.best.name == "t-0001"  # of equals, the earlier
    # 20 epochs of 100 images, and the validation images once: live heads keep their features too.
    assert (state.saved_epochs, state.saved_passes) == (15, 2030)
    assert state.counts() == "1 done, 1 stopped early"
    assert not state.running


def test_the_best_is_what_the_search_optimises() -> None:
    state = SearchState(total=3, metric="val_loss")
    for number, accuracy, loss in ((1, 0.9, 0.5), (2, 0.8, 0.3), (3, 0.7, 0.4)):
        result = {"epoch": 1, "best_epoch": 1, "objective": loss}
        result |= {"best_val_accuracy": accuracy, "best_val_loss": loss}
        happened = event(f"{number:04d}", "completed", 1, None)
        state.take(replace(happened, report=TrialReport.from_result(result)))
    shown = drawn(100, show_state(state))
    assert "best val_loss 0.3000 (val_accuracy 0.8000) t-0002, epoch 1" in shown


def test_of_equal_values_the_smaller_loss_is_the_best() -> None:
    """As the leaderboard ranks them."""
    state = SearchState(total=2)
    first = event("0001", "completed", 5, 0.9)
    state.take(first)
    better = TrialReport.from_result({**first.result, "best_val_loss": 0})
    assert state.take(replace(first, trial_id="0002", name="t-0002", report=better))
    assert state.best is not None
    assert state.best.name == "t-0002"


def test_a_trial_cut_short_by_the_end_was_not_stopped_early() -> None:
    state = SearchState(total=2)
    state.take(event("0001", "running", 5, 0.7))
    state.take(replace(event("0001", "stopped", 5, 0.7), reason="interrupted"))
    assert state.counts() == "1 interrupted"
    assert state.saved() == ""


def test_time_left_follows_the_pace_of_this_session() -> None:
    bar = Bar("trials", done=6, total=10, began=1000.0, at=1200.0, behind=4)
    assert bar.seconds_left(now=1200.0) == pytest.approx(400)  # 2 in 200 s, 4 to go
    assert bar.seconds_left(now=1260.0) == pytest.approx(340)  # no news: it runs down
    assert bar.seconds_left(now=9999.0) == 0
    assert bar.times(now=1260.0) == "0:04:20, 0:05:40 left"
    assert replace(bar, done=4).seconds_left(now=1200.0) is None
    assert replace(bar, total=None).seconds_left(now=1200.0) is None
    assert replace(bar, done=10).times(now=5000.0) == "0:03:20"
    assert replace(bar, done=5.6, whole=4).amount() == "4/10"  # parts of trials are not trials
    assert Bar("download", 12_100_000, 67_300_000, 0, 0).amount() == "12.1 of 67.3 MB"


@pytest.mark.parametrize("width", [30, 80, 200])
def test_bars_fit_any_width(width: int) -> None:
    now = time.time()
    bars = [
        Bar("feature bank EfficientNetV2B0 at 160 px", 12_000, 34_800, now - 90, now),
        Bar("decode at 160 px", 2800, 2800, now - 100, now - 90),
    ]
    lines = drawn(width, Bars(bars)).splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= width
    if width >= 80:
        assert "12,000/34,800 0:01:30, 0:02:51 left" in lines[0]
        assert lines[1].rstrip().endswith("2,800/2,800 0:00:10")


def test_results_reach_stdout_while_stderr_is_a_terminal(tiny_images: Path, tmp_path: Path) -> None:
    """`pawtune run --dry-run --json > plan.json`: the live view must not swallow the plan."""
    plan = tmp_path / "plan.json"
    arguments = ["pawtune", "run", "--data", str(tiny_images), "--families=conv", "--dry-run"]
    code = (
        "import os, sys; from pawtune.search.cli.main import main;"
        f"os.dup2(os.open({str(plan)!r}, os.O_WRONLY | os.O_CREAT), 1); "
        f"sys.argv = {[*arguments, '--json']}; main()"
    )
    screen = run_in_terminal(code, 80)
    assert json.loads(plan.read_text())["families"] == ["conv"]
    assert any("hash" in frame for frame in screen.frames)
    assert "families" not in screen.text


def test_a_trial_that_fails_is_not_the_best() -> None:
    state = SearchState(total=2)
    state.take(event("0001", "running", 1, 0.6))
    state.take(event("0002", "running", 1, 0.9))
    assert state.take(event("0002", "failed", 1, 0.9))
    assert state.best is not None
    assert state.best.name == "t-0001"


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_the_best_is_the_first_of_the_best_whatever_happened(metric: Metric) -> None:
    chance = random.Random(0)
    state = SearchState(total=9, metric=metric)
    objective = Objective(metric)
    reached: dict[str, tuple[float, float]] = {}
    statuses: list[Status] = [*["running"] * 5, "failed"]  # type: ignore[list-item]
    for number in range(400):
        trial_id, status = chance.choice("abcdefghi"), chance.choice(statuses)
        value = chance.choice([0.5, 0.6, 0.7, 0.8])
        state.take(event(trial_id, status, 1 + number % 20, value))
        if status == "failed":
            reached.pop(trial_id, None)
        else:
            reached[trial_id] = objective.key({"val_loss": 1 - value, metric: value})
        best = max(reached, key=reached.__getitem__, default=None)
        assert (state.best and state.best.name) == (best and f"t-{best}")


@pytest.mark.parametrize("width", [80, 200])
def test_long_names_leave_the_leaderboard_readable(width: int) -> None:
    row = Row(1, "0001", LONG, "conv", "completed", 0.9, 0.3, 0.91, 12, 20, 61.5, 2_914_882, {})
    text = drawn(width, leaderboard_table([row], "best"))
    assert max(map(len, text.splitlines())) <= width
    assert all(word in text for word in ("0001", "completed", "0.9000", "12/20", "2,914,882"))


def test_watching_follows_a_run_to_its_end(tiny_images: Path, runs_dir: Path) -> None:
    maker = RunMaker(runs_dir, tiny_images, "watched", trials=3, baselines="off")
    maker.proposals(1, ["conv"])
    running = maker.folder.trial(maker.add(baseline("tutorial_3", 10), epochs=4))
    now = time.time()
    running.write_status("running", started=now - 100)
    os.utime(running.metrics_file, (now, now))
    lock = maker.folder.root / "driver.lock"
    since = datetime.fromtimestamp(now - 200, UTC)
    lock.write_text(json.dumps({"since": since.isoformat(timespec="seconds")}))
    assert is_running(maker.folder)

    def end() -> None:
        running.write_status("failed", reason="killed", started=1.0, finished=2.0)
        maker.finish("interrupted")
        lock.unlink()

    arguments = ["pawtune", "status", "--watch", str(maker.folder.root)]
    code = f"import sys; from pawtune.search.cli.main import main; sys.argv = {arguments}; main()"
    screen = run_in_terminal(code, 80, once_shown=(b"4/10", end))
    assert screen.overflowed == []
    written = "".join(screen.frames)
    assert "watched: 1 of 3 trials, running" in written
    # 4 of 10 epochs in 100 s: 1.6 trials to go took 400 s then.
    pace = re.search(r"trials\s+━.*1/3 0:0(\d):(\d\d), 0:(\d\d):(\d\d) left", written)
    assert pace is not None
    minutes, seconds, minutes_left, seconds_left = map(int, pace.groups())
    elapsed, left = 60 * minutes + seconds, 60 * minutes_left + seconds_left
    assert elapsed >= 100
    assert elapsed + left == pytest.approx(500, abs=2)
    assert "tutorial_3" in written
    assert "4/10" in written
    assert "watched: 2 of 3 trials, ended early, interrupted" in screen.text
    assert "1 done, 1 failed, 0 running, 1 to come" in screen.text


def test_watching_reads_what_the_driver_noted_and_not_its_trials(
    tiny_images: Path, runs_dir: Path
) -> None:
    maker = RunMaker(runs_dir, tiny_images, "noted", trials=3, baselines="off")
    maker.proposals(1, ["conv"])
    lock = maker.folder.root / "driver.lock"
    lock.write_text(json.dumps({"since": datetime.now(UTC).isoformat(timespec="seconds")}))

    def shown() -> str:
        return re.sub(r"\d+:\d\d(:\d\d)?( left)?,? ?", "", drawn(120, show_run(maker.folder)))

    reporter = Reporter(quiet=True)
    reporter.trials(2, ResourcePlan(1.0, 0.0, 2), maker.folder)
    noted = maker.folder.root / "progress.json"
    reporter.event(event("0002", "running", 4, 0.99))
    assert "noted: 1 of 3 trials, running" in shown()
    assert "t-0002" not in shown()  # two seconds have not passed
    reporter._notes._noted_at = 0.0  # type: ignore[union-attr]
    reporter.trials_wait("1 trial waits 20 s for 1 CPU")
    moved = maker.folder.trials_dir.rename(maker.folder.root / "away")
    for text in ("1 of 3 trials, running", "0.9900 t-0002, epoch 4", "1 trial waits 20 s"):
        assert text in shown()
    moved.rename(maker.folder.trials_dir)
    # What an earlier driver noted, or what nobody notes, is passed over.
    content = json.loads(noted.read_text())
    state = content["state"]
    wrong = ({"running": 7}, {"total": "many"}, {"bests": {"0002": {"value": "<b>"}}})
    for change in ({"noted": 1.0}, *({"state": state | part} for part in wrong)):
        noted.write_text(json.dumps(content | change))
        assert "t-0002" not in shown()
    reporter.close()
    assert not noted.exists()


def test_a_status_looks_into_no_trial_that_has_ended(tiny_images: Path, runs_dir: Path) -> None:
    """While the search runs, and afterwards; what a driver has not noted is looked at."""
    maker = RunMaker(runs_dir, tiny_images, "many", trials=6, baselines="off", families=["conv"])
    for accuracy in (0.7, 0.9):
        maker.add(baseline("tutorial_3", 10), accuracy=accuracy)
    maker.add(baseline("tutorial_2", 10), epochs=2, accuracy=0.6, status="stopped", reason="asha")
    run = maker.folder
    expected = of_run(run)
    rows = rank_trials(run, Objective("val_accuracy"))
    # Once more, on what the driver keeps of ended trials, whose metrics now are no numbers.
    metrics = run.trial("0001").metrics_file
    metrics.write_text("epoch\nnone\n")
    with pytest.raises(UserError):
        of_run(run)
    lock = run.root / "driver.lock"
    lock.write_text(json.dumps({"since": datetime.now(UTC).isoformat(timespec="seconds")}))
    state = SearchState(ended=Counter({"completed": 2, "stopped": 1}))
    state.take(event("0004", "running", 4, 0.5))
    best = BestTrial(0.9, expected.best.val_accuracy, 0.5, "tutorial_3", 9, {})  # type: ignore[union-attr]
    state.bests["0002"], state.leader = best, "0002"
    StateNotes(run).take(state, Bar("trials", 0, 6, 0.0, 0.0))
    for name, status, reason in (("0004", "running", None), ("0005", "pending", "waits 9 s")):
        folder = run.new_trial(name)
        write_json(folder.spec_file, {"name": name})
        folder.write_status(status, reason=reason)  # type: ignore[arg-type]
    found = of_run(run)
    assert found.best == expected.best
    assert found.counts == {**expected.counts, "running": 1, "pending": 1}
    assert found.waiting == {"0005": "waits 9 s"}
    for name in ("0004", "0005"):
        shutil.rmtree(run.trial(name).root)
    lock.unlink()
    write_leaderboard(run, rows)
    maker.finish()
    with pytest.raises(UserError):  # its driver was killed: its notes are there
        of_run(run)
    state_file(run).unlink()
    assert of_run(run).counts == expected.counts
    assert of_run(run).best == expected.best
    shutil.rmtree(run.trial("0001").root)  # the leaderboard is not that of these trials
    assert of_run(run).counts == {"completed": 1, "stopped early": 1}


def test_watching_in_a_pipe_gives_few_plain_lines(tiny_images: Path, runs_dir: Path) -> None:
    maker = RunMaker(runs_dir, tiny_images, "piped", trials=2, baselines="off", families=["conv"])
    maker.add(baseline("tutorial_3", 10), accuracy=0.8)
    lock = maker.folder.root / "driver.lock"
    lock.write_text("{}")

    def end() -> None:
        maker.add(baseline("tutorial_2", 10), status="failed", epochs=0, reason="OSError: no")
        maker.finish()
        lock.unlink()

    class Pipe(io.StringIO):
        def write(self, text: str) -> int:
            written = super().write(text)
            if lock.exists() and "running" in self.getvalue():
                end()
            return written

    text = Pipe()
    watch(maker.folder, Console(file=text))
    value = Run(maker.folder).rows()[0].best_val_accuracy
    assert text.getvalue().splitlines() == [
        f"[1/2] running: 1 done, 0 running; best val_accuracy {value:.4f} tutorial_3",
        f"[2/2] ended: 1 done, 1 failed, 0 running; best val_accuracy {value:.4f} tutorial_3",
    ]


def test_a_run_whose_driver_died_says_how_to_go_on(tiny_images: Path, runs_dir: Path) -> None:
    maker = RunMaker(runs_dir, tiny_images, "left", baselines="off")
    maker.proposals(2, ["conv"])
    (maker.folder.root / "driver.lock").write_text("{}")
    long_ago = time.time() - 3600
    os.utime(maker.folder.root / "driver.lock", (long_ago, long_ago))
    assert "its driver is gone; continue: pawtune resume left" in drawn(80, show_run(maker.folder))


def test_a_driver_that_was_just_killed_here_is_not_running(
    tiny_images: Path, runs_dir: Path
) -> None:
    maker = RunMaker(runs_dir, tiny_images, "killed", baselines="off")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as driver:
        holder = {"host": platform.node(), "pid": driver.pid, "process": process_start(driver.pid)}
        (maker.folder.root / "driver.lock").write_text(json.dumps(holder))
        assert is_running(maker.folder)
        driver.kill()
    assert not is_running(maker.folder), "its heartbeat is younger than a minute"
    holder["host"] = "elsewhere"
    (maker.folder.root / "driver.lock").write_text(json.dumps(holder))
    assert is_running(maker.folder), "only its own machine can say that it is gone"


class Fleeting(PosixPath):
    """The path of a file that its owner removes right after anybody looked at it."""

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        found = super().stat(follow_symlinks=follow_symlinks)
        self.unlink()
        return found


def test_a_lock_that_goes_in_this_moment_ends_nothing(tmp_path: Path) -> None:
    folder = RunFolder(Fleeting(tmp_path))
    (tmp_path / "driver.lock").touch()
    assert is_running(folder), "it was held when it was looked at"
    assert not is_running(folder)


def test_a_resumed_search_counts_what_is_behind_it(tiny_images: Path, runs_dir: Path) -> None:
    maker = RunMaker(runs_dir, tiny_images, "resumed", trials=5, baselines="off")
    maker.add(baseline("tutorial_3", 10), accuracy=0.9)
    maker.add(baseline("tutorial_4", 10), epochs=3, accuracy=0.7)
    maker.add(baseline("tutorial_2", 10), epochs=4, status="stopped", reason="interrupted")
    console = Console(width=200, file=io.StringIO())
    reporter = Reporter(console=console)
    reporter.trials(3, ResourcePlan(1.0, 0.0, 2), maker.folder)
    state = reporter.state
    assert (state.total, state.num_ended) == (5, 2)
    assert state.counts() == "1 done, 1 stopped early"
    assert state.best is not None
    assert state.best.name == "tutorial_3"
    assert state.saved_epochs == 7
    images = {split: sum(labels.values()) for split, labels in maker.manifest.counts().items()}
    assert state.saved_passes == 3 * images["train"] + images["validation"]
    # What was done before this session says nothing about its pace.
    assert reporter._trials is not None
    assert reporter._trials.seconds_left(time.time()) is None
    assert (reporter._trials.done, reporter._trials.total) == (2, 5)


def test_watching_sees_the_stage_before_the_trials(
    tiny_images: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beginning and end are noted at once, what lies between from time to time."""
    monkeypatch.setattr("pawtune.search.progress.stages.NOTE_S", 3600.0)
    maker = RunMaker(runs_dir, tiny_images, "begun", baselines="off")
    (maker.folder.root / "driver.lock").write_text("{}")
    reporter = Reporter(quiet=True)
    with reporter.stages.noted_in(maker.folder):
        reporter.stage("feature bank MobileNetV2 at 160 px", 0, 34_800)
        shown = drawn(100, show_run(maker.folder))
        assert "begun: before the first trial" in shown
        assert re.search(r"feature bank MobileNetV2 at 160 px\s+0/34,800 0:0\d:\d\d", shown)
        assert not any(maker.folder.root.glob(".stage*"))
        for done in (1, 2, 34_800):
            reporter.stage("feature bank MobileNetV2 at 160 px", done, 34_800)
            noted = read_stage(maker.folder)
            assert noted is not None
            assert noted.done == (0 if done < 34_800 else done)
    assert read_stage(maker.folder) is None
    assert list(reporter.stages.seconds) == ["feature bank MobileNetV2 at 160 px"]


WAITS = "waits 20 s for 1 CPU + 1 GPU; free on all nodes together: 0 CPU (1 x 0 CPU now)"


def test_a_stage_that_waits_for_room_says_so(tiny_images: Path, runs_dir: Path) -> None:
    """In the bars of a terminal, and in the status."""
    maker = RunMaker(runs_dir, tiny_images, "begun", baselines="off")
    (maker.folder.root / "driver.lock").write_text("{}")
    reporter = Reporter(quiet=True)
    with reporter.stages.noted_in(maker.folder):
        reporter.stage("feature bank X", 0, 400, WAITS)
        assert f"feature bank X: {WAITS}" in drawn(200, show_run(maker.folder))
        told = of_run(maker.folder).text()
        assert told == f"running, feature bank X 0/400: {WAITS}; trials: none yet"
        reporter.stage("feature bank X", 400, 400)
        told = of_run(maker.folder).text()
        assert told == "running, feature bank X 400/400; trials: none yet"


def test_a_pipe_gets_one_line_each_time_that_something_begins_to_wait() -> None:
    console = Console(width=200, file=io.StringIO())
    reporter = Reporter(console=console)
    for _ in range(3):
        reporter.stage("feature bank X", 0, 400, WAITS)
    for waits in (WAITS, WAITS, "", WAITS):
        reporter.trials_wait(waits and f"2 trials: {waits}")
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        f"feature bank X: {WAITS}", f"2 trials: {WAITS}", f"2 trials: {WAITS}"
    ]  # fmt: skip


def test_the_live_view_says_what_trials_wait_for() -> None:
    state = SearchState(total=3, waits=f"2 trials: {WAITS}")
    assert f"2 trials: {WAITS}" in drawn(200, show_state(state))


def test_watching_a_resumed_search_tells_what_waits_from_what_ended(
    tiny_images: Path, runs_dir: Path
) -> None:
    maker = RunMaker(runs_dir, tiny_images, "again", trials=4, baselines="off", families=["conv"])
    maker.add(baseline("tutorial_1", 10), accuracy=0.6)
    maker.add(baseline("tutorial_2", 10), epochs=4, accuracy=0.9, status="stopped", reason="x")
    (maker.folder.root / "driver.lock").write_text('{"since": "2026-11-22T10:00:00+00:00"}')
    state = read_state(maker.folder)
    assert state.counts() == "1 done"  # the other waits to be continued, and leads already
    assert state.best is not None
    assert state.best.name == "tutorial_2"
    assert "1/4" in drawn(100, show_run(maker.folder))
