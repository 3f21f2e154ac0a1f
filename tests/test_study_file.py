"""The study file: Optuna finds in it what it would have written itself, and soon."""

import math
import sqlite3
import threading
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from pawtune.search.config.search_config import load_config
from pawtune.search.objective import Objective
from pawtune.search.sampling import space, study_file
from pawtune.search.sampling.study_file import StudyFile
from tests.waiting import wait_until

CONFIG = load_config(None, [], {"data": "sample"})


def ended_trials() -> list[FrozenTrial]:
    """A trial of each kind: both families, all states, values that SQLite does not have."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    of_family: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    while len(of_family) < 2:
        asked = study.ask()
        params = space.propose(asked, CONFIG, ["conv", "transfer"])
        of_family[params["family"]] = asked.params, asked.distributions
    points = list(of_family.values())
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE]
    points += [({}, {}), ({}, {})]
    values = [{1: 0.25, 2: 0.5}, {1: math.nan, 2: -math.inf, 3: 0.1}, {}, {1: math.inf}]
    trials: list[FrozenTrial] = []
    for state, (params, distributions), reported in zip(states, points, values, strict=True):
        trial = create_trial(
            state=state,
            value=reported[max(reported)] if reported else None,
            params=params,
            distributions=distributions,
            intermediate_values=reported,
            user_attrs={"name": f"net \N{SNOWMAN} {len(trials)}", "widths": [32, 64], "no": None},
        )
        trial.datetime_start = datetime(2024, 7, 1, 12, 0, len(trials), 123456)
        trials.append(trial)
    return trials


def read(path: Path) -> list[FrozenTrial]:
    """All trials of the file, through Optuna."""
    return optuna.load_study(study_name=None, storage=f"sqlite:///{path}").trials


def told(trials: list[FrozenTrial]) -> list[str]:
    """Everything that trials hold, in an order of its own."""
    keys = ("params", "distributions", "user_attrs", "system_attrs", "intermediate_values")
    names = ("number", "state", "values", "datetime_start", "datetime_complete")
    return [
        repr([getattr(trial, name) for name in names])
        + repr([sorted(getattr(trial, key).items()) for key in keys])
        for trial in trials
    ]


def rows_of_all_tables(path: Path) -> dict[str, list[str]]:
    """Everything in the file but the rows' own ids."""
    with closing(sqlite3.connect(path)) as connection:
        names = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        found = {}
        for name in names:
            found[name] = sorted(
                repr(row[1:] if name.startswith("trial_") else row)
                for row in connection.execute(f"SELECT * FROM {name}")
            )
        return found


def rows(path: Path) -> int:
    """How many trials the file holds; not through Optuna, which takes half a second."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM trials").fetchone()[0])


def test_it_holds_what_optuna_would_have_written(tmp_path: Path) -> None:
    trials = ended_trials()
    file = StudyFile(tmp_path / "ours.db", "a run", Objective(), pytest.fail)
    file.add(*trials[:1])
    assert file.write() is None
    file.add(*trials[1:])
    file.close()
    theirs = f"sqlite:///{tmp_path / 'theirs.db'}"
    study = optuna.create_study(storage=theirs, study_name="a run", direction="maximize")
    study.add_trials(trials)
    assert told(read(tmp_path / "ours.db")) == told(read(tmp_path / "theirs.db"))
    assert rows_of_all_tables(tmp_path / "ours.db") == rows_of_all_tables(tmp_path / "theirs.db")
    (summary,) = optuna.get_all_study_summaries(f"sqlite:///{tmp_path / 'ours.db'}")
    assert (summary.study_name, summary.n_trials) == ("a run", 4)
    assert summary.direction == study.direction


def test_studies_that_somebody_adds_and_deletes_end_no_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As optuna-dashboard does when asked to."""
    monkeypatch.setattr(study_file, "INTERVAL_S", 0.05)
    lines: list[str] = []
    file = StudyFile(tmp_path / "study.db", "run", Objective(), lines.append)
    assert file.write() is None
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(storage=storage, study_name="another")
    first, *others = ended_trials()
    file.add(first)
    assert file.write() is None
    assert len(optuna.load_study(study_name="run", storage=storage).trials) == 1
    assert optuna.load_study(study_name="another", storage=storage).trials == []
    optuna.delete_study(study_name="run", storage=storage)
    file.add(*others)
    wait_until(lambda: lines, 30)
    file.close()
    gone = "somebody deleted its study"
    assert lines == [
        f"study.db cannot be written, trying again: {gone}",
        f"study.db lacks 3 of the trials: {gone}; `pawtune resume` makes it again",
    ]


@pytest.mark.slow
def test_after_its_end_nothing_is_said_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even by a thread that was just writing when the end came."""
    monkeypatch.setattr(study_file, "INTERVAL_S", 0.0)
    told, going_on = threading.Event(), threading.Event()
    lines: list[str] = []

    def say(line: str) -> None:
        if not told.is_set():
            told.set()
            going_on.wait(10)
        lines.append(line)

    file = StudyFile(tmp_path / "study.db", "run", Objective(), say)
    assert file.write() is None
    (tmp_path / "study.db").unlink()
    file.add(*ended_trials())
    assert told.wait(10)
    threading.Timer(0.2, going_on.set).start()
    file.close()
    assert [line.partition(":")[0] for line in lines] == [
        "study.db cannot be written, trying again",
        "study.db lacks 4 of the trials",
    ]


def test_trials_are_written_soon_by_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_file, "INTERVAL_S", 0.2)
    file = StudyFile(tmp_path / "study.db", "run", Objective(), pytest.fail)
    assert not (tmp_path / "study.db").exists()
    file.start()
    wait_until(lambda: file._timer is None)
    threads = threading.active_count()
    with file._writing:  # nothing is written, however long this takes
        for trial in ended_trials():
            file.add(trial)
            assert threading.active_count() == threads + 1
        assert rows(tmp_path / "study.db") == 0
    wait_until(lambda: rows(tmp_path / "study.db") == 4)
    file.close()
    assert rows(tmp_path / "study.db") == 4


@pytest.mark.slow
def test_a_file_that_is_away_is_written_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_file, "INTERVAL_S", 0.05)
    lines: list[str] = []
    folder = tmp_path / "run"
    folder.mkdir()
    file = StudyFile(folder / "study.db", "run", Objective(), lines.append)
    assert file.write() is None
    folder.rename(tmp_path / "elsewhere")
    first, *others = ended_trials()
    file.add(first)
    wait_until(lambda: lines, 30)
    attempts: list[str | None] = []
    attempt = file.write
    monkeypatch.setattr(file, "write", lambda: attempts.append(attempt()) or attempts[-1])
    wait_until(lambda: len(attempts) > 2)
    assert lines == ["study.db cannot be written, trying again: unable to open database file"]
    (tmp_path / "elsewhere").rename(folder)
    wait_until(lambda: rows(folder / "study.db") == 1)
    wait_until(lambda: not file._pending)  # the thread is done with the file
    (folder / "study.db").unlink()
    file.add(*others)
    file.close()
    assert not (folder / "study.db").exists()
    assert lines[-1].startswith("study.db lacks 3 of the trials: unable to open")
    assert "pawtune resume" in lines[-1]


def test_a_trial_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = StudyFile(tmp_path / "study.db", "run", Objective(), pytest.fail)
    good, broken = ended_trials()[:2]
    attributes, broken.user_attrs = broken.user_attrs, {"name": object()}
    file.add(good, broken)
    with pytest.raises(TypeError):
        file.write()
    assert rows(tmp_path / "study.db") == 1
    broken.user_attrs = attributes
    file.close()
    assert [trial.number for trial in read(tmp_path / "study.db")] == [0, 1]


@pytest.mark.parametrize("name", ["why?", "job%2Fmain", "a%20b", "half # done", "päw"])
def test_a_folder_may_have_any_name(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    file = StudyFile(folder / "study.db", "run", Objective(), pytest.fail)
    file.add(*ended_trials())
    file.close()
    assert [path.name for path in folder.iterdir()] == ["study.db"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert rows(folder / "study.db") == 4


def test_a_disk_that_is_full_at_the_start_costs_nothing_once_it_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_file, "INTERVAL_S", 0.05)
    lines: list[str] = []
    file = StudyFile(tmp_path / "study.db", "run", Objective(), lines.append)
    connect = file._connect
    attempts: list[int] = []

    def full_twice() -> sqlite3.Connection:
        attempts.append(1)
        connection = connect()
        if len(attempts) <= 2:  # SQLite itself says so: no page more than there are
            connection.execute("PRAGMA max_page_count = 2")
        return connection

    monkeypatch.setattr(file, "_connect", full_twice)
    file.start()
    file.add(*ended_trials())
    wait_until(lambda: (tmp_path / "study.db").exists() and rows(tmp_path / "study.db") == 4)
    file.close()
    assert lines == ["study.db cannot be written, trying again: database or disk is full"]
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]
