"""storage.trial_index: ended trials are ranked without their files, and never by stale notes."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pawtune.models.baselines import baseline
from pawtune.search.objective import Objective
from pawtune.search.progress.run_status import of_run
from pawtune.search.results.leaderboard import Row, rank_trials
from pawtune.search.storage.run_folder import RunFolder
from tests.run_folders import RunMaker, make_images

OBJECTIVE = Objective()


@pytest.fixture
def run(runs_dir: Path, tmp_path: Path) -> RunFolder:
    """0001 to 0005, of which 0003 runs and 0004 failed; ranked by a driver that was killed."""
    maker = RunMaker(runs_dir, make_images(tmp_path / "images", ["a", "b"]))
    for options in (
        {"accuracy": 0.8},
        {"epochs": 2, "accuracy": 0.6},
        {"epochs": 1, "accuracy": 0.7, "status": "running"},
        {"epochs": 0, "status": "failed", "reason": "ValueError: no"},
        {"accuracy": 0.9},
    ):
        maker.add(baseline("tutorial_1", 4), **options)  # type: ignore[arg-type]
    run = maker.finish()
    rank_trials(run, OBJECTIVE, note=True)
    run.summary_file.unlink(missing_ok=True)
    run.leaderboard_file.unlink(missing_ok=True)
    return run


def spoil(file: Path, *, unseen: bool) -> None:
    """Damages a file; unseen, its size and time stay, so only who reads it knows."""
    before = file.stat()
    file.write_bytes(b"x" * before.st_size)
    if unseen:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def files_of(run: RunFolder, trial_id: str) -> list[Path]:
    return [file for file in run.trial(trial_id).root.iterdir() if file.is_file()]


def index_of(run: RunFolder) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run.root / "trials.json").read_text())
    return content["trials"]  # type: ignore[no-any-return]


def rewrite(run: RunFolder, trial_id: str, **changes: object) -> None:
    trials = index_of(run)
    trials[trial_id]["row"] |= changes
    (run.root / "trials.json").write_text(json.dumps({"trials": trials}))


def test_trials_that_have_ended_are_not_read_again(run: RunFolder) -> None:
    (run.root / "trials.json").rename(run.root / "kept.json")
    before = rank_trials(run, OBJECTIVE)
    (run.root / "kept.json").rename(run.root / "trials.json")
    assert index_of(run).keys() == {"0001", "0002", "0004", "0005"}
    for trial_id in index_of(run):
        for file in files_of(run, trial_id):
            spoil(file, unseen=True)
    assert rank_trials(run, OBJECTIVE) == before
    assert [row.trial_id for row in before] == ["0005", "0001", "0002", "0003", "0004"]
    status = of_run(run)  # of a run whose driver was killed
    assert status.counts == {"completed": 2, "stopped early": 1, "interrupted": 1, "failed": 1}
    assert status.best is not None
    assert status.best.trial_id == "0005"


def test_a_trial_whose_files_changed_is_read(run: RunFolder) -> None:
    trial = run.trial("0005")
    rows = trial.read_metrics()
    trial.write_metrics([{**row, "val_accuracy": 0.1} for row in rows])
    run.trial("0001").write_status("pending")
    found = {row.trial_id: row for row in rank_trials(run, OBJECTIVE)}
    assert found["0005"].best_val_accuracy == 0.1
    assert found["0001"].state == "interrupted"


def test_a_trial_that_is_gone_is_not_ranked(run: RunFolder) -> None:
    for file in files_of(run, "0005"):
        file.unlink()
    assert "0005" not in {row.trial_id for row in rank_trials(run, OBJECTIVE)}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"trials": 3}', '{"trials": {"0001": {}}}'])
def test_a_damaged_index_changes_nothing(text: str, run: RunFolder) -> None:
    before = rank_trials(run, OBJECTIVE)
    (run.root / "trials.json").write_text(text)
    assert rank_trials(run, OBJECTIVE) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"best_val_accuracy": 7.0},
        {"best_val_accuracy": None},
        {"status": "excellent"},
        {"epochs": "many"},
        {"best_val_loss": "NaN"},
        {"params": 3},
    ],
)
def test_what_no_driver_notes_is_read_from_the_trial(
    changes: dict[str, object], run: RunFolder
) -> None:
    before = rank_trials(run, OBJECTIVE)
    rewrite(run, "0005", **changes)
    assert rank_trials(run, OBJECTIVE) == before


def test_words_of_an_untrusted_index_do_not_reach_the_terminal(run: RunFolder) -> None:
    rewrite(run, "0005", name="\x1b[2Jclear", reason="\x1b]0;title\x07")
    (row,) = (row for row in rank_trials(run, OBJECTIVE) if row.trial_id == "0005")
    assert "\x1b" not in row.name
    assert "\x1b" not in (row.reason or "")


def test_every_column_of_a_row_is_noted_or_known() -> None:
    """A new one would else be missing from rows of the index."""
    from pawtune.search.results.leaderboard import NOT_NOTED

    assert set(NOT_NOTED) < {*Row.__dataclass_fields__}
