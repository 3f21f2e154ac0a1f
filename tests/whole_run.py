"""What every search must have come to in the end, whatever happened on the way."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from pawtune.models.spec import TrialSpec
from pawtune.search.objective import Objective
from pawtune.search.run import Run, open_run
from pawtune.search.sampling import space
from pawtune.search.storage.run_folder import RunFolder, TrialFolder, read_json
from pawtune.search.tensorboard.trial_events import run_label
from tests.event_reading import read_scalars


def assert_whole(root: Path, trials: int, epochs: int, failed: int = 0) -> None:
    """Exactly the trials asked for, each whole and once, in every record of the run."""
    run = RunFolder(root)
    summary = read_json(run.summary_file)
    folders = list(run.trials())
    assert summary["reason"] is None, summary
    assert [folder.trial_id for folder in folders] == [f"{n:04d}" for n in range(1, trials + 1)]
    statuses = Counter(folder.read_status().status for folder in folders)
    assert statuses == Counter(summary["counts"])
    assert statuses["failed"] == failed
    assert set(statuses) <= {"completed", "stopped", "failed"}
    assert len({space.identity(load(folder)) for folder in folders}) == trials, "duplicates"
    for folder in folders:
        status = folder.read_status()
        if status.status != "failed":
            check_trial(run, folder, epochs)
        assert status.reason in (None, "asha") or status.status == "failed"
        assert status.seconds is not None
        assert 0 <= status.seconds < 3600
    check_study(run, trials, failed)
    check_leaderboard(run)
    check_nothing_is_left(root)


def load(folder: TrialFolder) -> TrialSpec:
    content = read_json(folder.spec_file)
    return TrialSpec.model_validate({key: content[key] for key in ("name", "model", "train")})


def check_trial(run: RunFolder, folder: TrialFolder, epochs: int) -> None:
    """Each epoch once; the best of them kept, weights and predictions alike."""
    check_epochs(run, folder)
    rows = folder.read_metrics()
    if folder.read_status().status == "completed":
        assert len(rows) == epochs
    best = int(Objective().best(rows)["epoch"])
    name, epoch = folder.best_weights.read_text().split()
    assert (name, int(epoch)) == (folder.trial_id, best)
    assert np.load(folder.best_predictions)[0, 0] == best
    assert not folder.last.exists()


def check_epochs(run: RunFolder, folder: TrialFolder) -> None:
    """No epoch is missing or twice: in its rows, and in every byte of its event files."""
    numbers = [row["epoch"] for row in folder.read_metrics()]
    assert numbers == list(range(1, len(numbers) + 1)), folder.trial_id
    label = run_label(folder.trial_id, read_json(folder.spec_file)["name"])
    curve = read_scalars(run.tensorboard_dir / label)["val_accuracy"]
    assert [step for step, _ in curve] == numbers


def assert_continued(run: Run, trials: int, epochs: int) -> None:
    """A search of real nets went on to its end as if nothing had stopped it."""
    assert len(run.rows()) == trials
    for folder in run.folder.trials():
        check_epochs(run.folder, folder)
        assert folder.read_status().status in ("completed", "stopped")
    assert max(row.epochs for row in run.rows()) == epochs
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{run.folder.study_file}")
    assert len(study.trials) == trials
    assert {trial.state for trial in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}


def check_study(run: RunFolder, trials: int, failed: int) -> None:
    """No zombie, nobody twice, and the values of the trials."""
    storage = f"sqlite:///{run.study_file}"
    (name,) = optuna.get_all_study_names(storage)
    found = optuna.load_study(study_name=name, storage=storage).trials
    assert len(found) == len({trial.user_attrs["name"] for trial in found}) == trials
    states = Counter(trial.state for trial in found)
    assert set(states) <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    assert states[TrialState.FAIL] == failed
    best = {row.name: row.best_val_accuracy for row in open_run(run.root).rows()}
    for trial in found:
        if trial.state == TrialState.COMPLETE:
            assert trial.value == pytest.approx(best[trial.user_attrs["name"]])


def check_leaderboard(run: RunFolder) -> None:
    """The file says what the trials' own files say, the best first."""
    with run.leaderboard_file.open(newline="") as stream:
        told = [(row["trial_id"], row["best_val_accuracy"]) for row in csv.DictReader(stream)]
    best = {
        folder.trial_id: max(row["val_accuracy"] for row in folder.read_metrics())
        for folder in run.trials()
        if folder.read_status().status != "failed"
    }
    ranked = sorted(best, key=lambda trial_id: -best[trial_id])
    values = [float(value) for _, value in told if value]
    assert values == [best[trial_id] for trial_id in ranked]
    assert {trial_id for trial_id, value in told if value} == set(best)


def check_nothing_is_left(root: Path) -> None:
    """No lock, no stage, no scratch, no half-written file."""
    assert not (root / "driver.lock").exists()
    assert not (root / "stage.json").exists()
    hidden = [str(path.relative_to(root)) for path in root.rglob(".*")]
    assert hidden == []
