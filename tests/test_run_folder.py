"""The run folder: names, atomic writes, and what is refused."""

import os
from pathlib import Path

import pytest

from pawtune.data_pipeline.errors import DataError
from pawtune.search.errors import UserError
from pawtune.search.storage.run_folder import (
    RunFolder,
    create_run_folder,
    open_run_folder,
    read_json,
    write_json,
    write_text,
)


def test_a_used_name_is_refused_and_nothing_overwritten(runs_dir: Path) -> None:
    run = create_run_folder(runs_dir, "pets")
    write_text(run.config_file, "data: here\n")
    with pytest.raises(
        UserError, match=r"--name must be new, received 'pets'.*nothing was overwritten"
    ):
        create_run_folder(runs_dir, "pets")
    assert run.config_file.read_text() == "data: here\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_run_of_somebody_else_is_refused_with_the_reason(runs_dir: Path) -> None:
    run = create_run_folder(runs_dir, "pets")
    write_text(run.config_file, "data: here\n")
    runs_dir.chmod(0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(
            DataError, match="must be readable, received .*pets: Permission denied; ask"
        ):
            open_run_folder(runs_dir / "pets")
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("name", ["", "../up", "a/b", "-rf", "x" * 101, ".hidden"])
def test_an_unfit_name_is_refused(runs_dir: Path, name: str) -> None:
    with pytest.raises(UserError, match="--name must be 1 to 100 letters"):
        create_run_folder(runs_dir, name)
    assert not runs_dir.exists()


def test_an_unwritable_runs_dir_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(UserError, match=r"--runs-dir must be a folder that can be written.*file"):
        create_run_folder(file, "pets")


def test_runs_open_by_name_and_by_path(runs_dir: Path, tmp_path: Path) -> None:
    run = create_run_folder(runs_dir, "pets")
    write_text(run.config_file, "data: here\n")
    assert open_run_folder("pets", runs_dir) == run
    assert open_run_folder(run.root, tmp_path / "elsewhere") == run
    with pytest.raises(UserError, match="received 'dogs'; runs there: pets"):
        open_run_folder("dogs", runs_dir)


def test_an_unknown_trial_is_refused_with_those_there_are(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_json(run.new_trial("0001").spec_file, {"name": "conv-0001"})
    assert run.trial("0001").trial_id == "0001"
    for wrong in ("0002", "../../etc"):
        with pytest.raises(UserError, match="its trials: 0001"):
            run.trial(wrong)


def test_metrics_survive_a_round_trip(tmp_path: Path) -> None:
    trial = RunFolder(tmp_path).new_trial("0001")
    rest = {"loss": 0.7, "accuracy": 0.5, "val_loss": 0.6, "val_balanced_accuracy": 0.5}
    rows = [{"epoch": epoch, "val_accuracy": epoch / 3, "seconds": 2.5, **rest} for epoch in (1, 2)]
    trial.write_metrics(rows)
    assert trial.read_metrics() == rows


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "card.json"
    write_json(file, {"a": 1})
    with pytest.raises(ValueError, match="nan"):
        write_json(file, {"a": float("nan")})
    assert read_json(file) == {"a": 1}
    assert os.listdir(tmp_path) == ["card.json"]
