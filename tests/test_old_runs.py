"""A run folder that the version at 8ccafa0 made opens, is judged and continues.

`tests/data/run_at_8ccafa0` was written by that version, from 48 pictures of its own sample beside
it: `python -m search run --config tiny.yaml --families conv --trials 2 --epochs 2 --no-baselines
--seed 1`, with images of 32 px, 4 filters, two blocks. Left out are the event files, which are
derived; names of its machine are replaced.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest

from pawtune.search.run import open_run
from tests.command_line import pawtune

MADE = Path(__file__).parent / "data" / "run_at_8ccafa0"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the run, for writing, in the current folder; `images` beside it."""
    shutil.copytree(MADE, tmp_path, dirs_exist_ok=True)
    return tmp_path / "old"


def test_its_trials_are_ranked_and_reported(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = pawtune(capsys, "leaderboard", old, "--json").json
    found = [(r["trial_id"], r["status"], r["best_val_accuracy"], r["num_weights"]) for r in rows]
    assert found == [
        ("0002", "completed", 0.5, 2_738),
        ("0001", "completed", pytest.approx(5 / 12), 1_438),
    ]
    assert pawtune(capsys, "show", old, "0002").code == 0
    assert pawtune(capsys, "status", old).code == 0
    assert pawtune(capsys, "report", old, "--data", "images", "--out", "page.html").code == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert "conv-0002" in page
    assert "0.5000" in page


def test_its_model_is_tested_and_delivered(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tested = pawtune(capsys, "test", old, "--data", "images", "--json")
    assert tested.code == 0, tested
    assert (tested.json["n"], tested.json["trial_id"], tested.json["looks"]) == (12, "0002", 1)
    best = pawtune(capsys, "best", old, "--out", "best.keras")
    assert best.code == 0, best
    predicted = pawtune(capsys, "predict", "best.keras", "images/test", "--json")
    assert predicted.code == 0, predicted
    assert len(predicted.json) == 12


def test_it_continues_with_another_trial(
    ray_cluster: dict[str, Any], old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in old.glob("trials/*/*") if path.is_file()}
    resumed = pawtune(capsys, "resume", old, "--trials", "+1", "--quiet")
    assert resumed.code == 0, resumed
    assert {path: path.read_bytes() for path in before} == before  # finished trials stand
    rows = {row.trial_id: row for row in open_run(old).rows()}
    assert [rows[trial_id].status for trial_id in ("0001", "0002", "0003")] == ["completed"] * 3
    assert rows["0003"].epochs == 2
