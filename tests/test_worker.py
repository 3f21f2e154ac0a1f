"""A trial on its worker: what it keeps, and that nothing of one trial reaches the next."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
from ray import tune

from pawtune.models.families.conv import ConvSpec
from pawtune.models.model_spec import TrainSpec
from pawtune.models.spec import TrialSpec
from pawtune.search.objective import Objective
from pawtune.search.retraining.training import train_trial
from pawtune.search.shared_work.shared_work import SharedWork
from pawtune.search.storage.retry import StorageError, retry_storage
from pawtune.search.storage.run_folder import RunFolder, TrialFolder
from pawtune.search.storage.run_writer import (
    MAX_ATTEMPTS,
    LostWorkerError,
    RunWriter,
    TakenOverError,
)
from pawtune.search.storage.trial_writer import KeptEpoch, KeptTrial, TrialWriter
from pawtune.search.storage.untrusted_files import REQUIRED_METRICS
from pawtune.search.worker.epoch_keeper import EpochKeeper
from pawtune.search.worker.trial import TrialWorker, run_trial
from pawtune.search.worker.trial_client import TrialClient, end_writer, start_writer
from tests.tiny_run import tiny_work

pytestmark = pytest.mark.usefixtures("ray_cluster")
EPOCHS = 3


@pytest.fixture
def work(tiny_images: Path) -> SharedWork:
    """The shared work of a search."""
    return tiny_work(tiny_images)


def spec(seed: int = 0, **changes: Any) -> TrialSpec:
    model = ConvSpec(image_size=32, filters=(8,), flip="horizontal", rotation_factor=0.1)
    train = TrainSpec(epochs=EPOCHS, seed=seed, precision="float32")
    return TrialSpec(name="t", model=model, train=train.model_copy(update=changes))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run whose driver is this process."""
    run = RunFolder(tmp_path / "run")
    run.trials_dir.mkdir(parents=True)
    return run


def new_trial(run: RunFolder, trial_id: str) -> TrialFolder:
    folder = run.new_trial(trial_id)
    folder.root.mkdir()
    return folder


def train(work: SharedWork, trial: TrialSpec, folder: TrialFolder) -> list[dict[str, Any]]:
    return [report.to_result() for report in train_trial(trial, folder, work)]


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows
    ]


def test_a_used_worker_gives_what_a_fresh_one_gives(work: SharedWork, run: RunFolder) -> None:
    # An environment of its own: Ray would give it a process that an earlier test has used.
    fresh = ray.remote(runtime_env={"env_vars": {"PAWTUNE_TEST": "fresh"}})(train)
    first = ray.get(fresh.remote(work, spec(), run.new_trial("fresh")))
    train(work, spec(seed=7, optimizer="sgd", precision="mixed_float16"), run.new_trial("before"))
    again = train(work, spec(), run.new_trial("used"))
    assert without_times(again) == without_times(first)
    other = train(work, spec(seed=1), run.new_trial("other"))
    assert without_times(other) != without_times(first)


def test_a_trial_continues_from_its_last_state(
    work: SharedWork, run: RunFolder, monkeypatch: Any
) -> None:
    monkeypatch.setattr("pawtune.search.worker.epoch_keeper.STATE_INTERVAL_S", 0.0)
    whole = train(work, spec(), run.new_trial("whole"))
    folder = new_trial(run, "cut")
    epochs = run_trial(spec(), TrialWriter(folder, Objective()), work)
    begun = [next(epochs).to_result(), next(epochs).to_result()]
    epochs.close()  # type: ignore[attr-defined]
    rest = train(work, spec(), folder)
    assert without_times([*begun, *rest]) == without_times(whole)
    assert [row["epoch"] for row in folder.read_metrics()] == [1, 2, 3]


def test_a_damaged_state_is_begun_again(work: SharedWork, run: RunFolder, monkeypatch: Any) -> None:
    monkeypatch.setattr("pawtune.search.worker.epoch_keeper.STATE_INTERVAL_S", 0.0)
    whole = train(work, spec(), run.new_trial("whole"))
    folder = new_trial(run, "damaged")
    next(run_trial(spec(), TrialWriter(folder, Objective()), work))
    for file in folder.last.glob("*.h5"):
        file.write_bytes(file.read_bytes()[:100])
    assert without_times(train(work, spec(), folder)) == without_times(whole)


def test_the_best_epoch_is_kept_whatever_follows(run: RunFolder) -> None:
    import keras

    from pawtune.models.training.epoch_metrics import EpochResult

    folder = new_trial(run, "kept")
    core = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
    keeper = keeper_of(folder, core)
    reports = []
    for epoch, accuracy in enumerate([0.5, 0.9, 0.7], start=1):
        core.set_weights([np.full((2, 2), epoch, np.float32)])
        metrics = {"val_accuracy": accuracy, "val_loss": 1.0}
        probabilities = np.full((3, 2), epoch / 10, np.float32)
        reports.append(keeper.keep(EpochResult(epoch, metrics, probabilities), done=False))
    assert [report.best.objective for report in reports] == [0.5, 0.9, 0.9]
    assert [report.best.epoch for report in reports] == [1, 2, 2]
    core.load_weights(folder.best_weights)
    assert core.get_weights()[0][0, 0] == 2
    assert np.load(folder.best_predictions)[0, 0] == np.float32(0.2)


def test_a_process_in_which_something_broke_takes_no_further_trial(
    work: SharedWork, run: RunFolder
) -> None:
    """What broke it is on record; the next trial goes elsewhere, and another writer knows it."""
    new_trial(run, "0001")
    writer = start_writer(run.trials_dir, Objective())
    worker = ray.remote(tune.with_parameters(TrialWorker, work=replace(work, writer=writer)))
    actor = worker.options(num_cpus=1).remote({"trial_id": "0001", "spec": "no specification"})
    assert "ValidationError" in ray.get(actor.step.remote())["failure"]
    assert "ValidationError" in run.new_trial("0001").error_file.read_text()
    config = {"trial_id": "0002", "spec": spec().model_dump(mode="json")}
    assert ray.get(actor.reset_config.remote(config))
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.step.remote())
    client = TrialClient(writer, "0001")
    client.begin()
    TrialClient(writer, "0001").begin()
    with pytest.raises(TakenOverError, match="trial 0001 was begun again by another worker"):
        client.keep(KeptEpoch([EPOCH]))
    pid = ray.get(writer.__ray_call__.remote(lambda _: os.getpid()))
    ray.get(writer.end.remote())
    with pytest.raises(TakenOverError, match="the driver has ended"):
        client.begin()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(StorageError, match="the process that writes the run folder is gone"):
        client.begin()
    end_writer(writer)  # one that is dead is no error


EPOCH = dict.fromkeys(REQUIRED_METRICS, 0.5) | {"epoch": 1}


class Weights:
    """Stands for a network: its weights are a text."""

    def __init__(self) -> None:
        self.text = ""

    def save_weights(self, filepath: Path) -> None:
        filepath.write_text(self.text)


def save_state(epoch: int, folder: Path) -> None:
    (folder / "state.json").write_text(json.dumps({"epoch": epoch}))


def keeper_of(
    folder: TrialFolder, core: Any, rows: Any = (), save: Any = save_state
) -> EpochKeeper:
    return EpochKeeper(TrialWriter(folder, Objective()), Objective(), core, save, list(rows))


def keep(keeper: EpochKeeper, core: Weights, epoch: int, accuracy: float) -> None:
    core.text = f"epoch {epoch}"
    names = ("loss", "accuracy", "val_loss", "val_balanced_accuracy", "seconds")
    metrics = {**dict.fromkeys(names, 0.5), "val_accuracy": accuracy}
    predictions = np.full((2, 2), epoch, np.float32)
    result: Any = SimpleNamespace(epoch=epoch, metrics=metrics, val_probabilities=predictions)
    keeper.keep(result, False)


def test_a_trial_that_goes_on_has_the_best_epoch_of_its_last_state(
    run: RunFolder, monkeypatch: Any
) -> None:
    """Best at epoch 1, state after 2, better at 3 and 4, dead: it repeats from 3 on."""
    folder, core = new_trial(run, "0001"), Weights()
    keeper = keeper_of(folder, core)
    keep(keeper, core, 1, 0.7)
    monkeypatch.setattr("pawtune.search.worker.epoch_keeper.STATE_INTERVAL_S", 0.0)
    keep(keeper, core, 2, 0.6)
    monkeypatch.setattr("pawtune.search.worker.epoch_keeper.STATE_INTERVAL_S", 60.0)
    keep(keeper, core, 3, 0.8)
    keep(keeper, core, 4, 0.9)
    assert folder.best_weights.read_text() == "epoch 4"
    kept = TrialWriter(folder, Objective()).begin()
    assert [row["epoch"] for row in kept.rows] == [1, 2]
    assert list(kept.state) == ["state.json"]
    assert folder.best_weights.read_text() == "epoch 1"
    assert np.load(folder.best_predictions)[0, 0] == 1
    # The machine differs, and no later epoch is better this time.
    keep(keeper_of(folder, core, kept.rows), core, 3, 0.65)
    assert folder.best_weights.read_text() == "epoch 1"
    (folder.last / "state.json").write_text("{")
    assert TrialWriter(folder, Objective()).begin() == KeptTrial()


def test_a_worker_whose_trial_another_has_begun_writes_nothing(run: RunFolder) -> None:
    folder = new_trial(run, "0001")
    writer = RunWriter(run.trials_dir, Objective(), os.getpid())
    lost, _ = writer.begin("0001")
    writer.write("0001", lost, "keep", KeptEpoch([EPOCH]))
    mine, kept = writer.begin("0001")
    assert kept == KeptTrial()  # no state was kept
    with pytest.raises(TakenOverError, match="trial 0001 was begun again"):
        writer.write("0001", lost, "keep", KeptEpoch([EPOCH, {**EPOCH, "epoch": 2}]))
    assert len(folder.read_metrics()) == 1
    writer.write("0001", mine, "keep", KeptEpoch([EPOCH, {**EPOCH, "epoch": 2}]))
    assert len(folder.read_metrics()) == 2
    writer.end()
    with pytest.raises(TakenOverError, match="the driver has ended"):
        writer.write("0001", mine, "fail", "too late")


def test_nothing_is_written_once_the_driver_is_dead(run: RunFolder) -> None:
    new_trial(run, "0001")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as driver:
        writer = RunWriter(run.trials_dir, Objective(), driver.pid)
        claim, _ = writer.begin("0001")
        writer.write("0001", claim, "fail", "")
        driver.kill()
    with pytest.raises(TakenOverError, match="the driver has ended"):
        writer.write("0001", claim, "fail", "")


def test_a_trial_that_gets_on_may_lose_its_worker_again(run: RunFolder) -> None:
    new_trial(run, "0001")
    writer = RunWriter(run.trials_dir, Objective(), os.getpid())
    rows: list[dict[str, float]] = []
    for epoch in range(1, 3 * MAX_ATTEMPTS):
        claim, kept = writer.begin("0001")
        assert list(kept.rows) == rows
        rows = [*rows, {**EPOCH, "epoch": epoch}]
        state = np.frombuffer(json.dumps({"epoch": epoch}).encode(), np.uint8)
        writer.write("0001", claim, "keep", KeptEpoch(rows, state={"state.json": state}))
    for _ in range(MAX_ATTEMPTS):
        writer.begin("0001")
    with pytest.raises(LostWorkerError, match="died 4 times"):
        writer.begin("0001")


def test_a_state_that_takes_long_to_save_is_saved_seldom(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pawtune.search.worker.epoch_keeper.STATE_INTERVAL_S", 0.0)
    saved: list[int] = []

    def save(epoch: int, folder: Path) -> None:
        saved.append(epoch)
        time.sleep(0.15 if epoch == 2 else 0)
        save_state(epoch, folder)

    core = Weights()
    keeper = keeper_of(new_trial(run, "0001"), core, save=save)
    for epoch in range(1, 6):
        keep(keeper, core, epoch, 0.5)
    assert saved == [1, 2]


def test_a_run_folder_that_is_away_is_waited_for(run: RunFolder) -> None:
    folder, core = new_trial(run, "0001"), Weights()
    keeper = keeper_of(folder, core)
    keep(keeper, core, 1, 0.5)
    away = run.root.with_name("away")
    run.root.rename(away)
    back = threading.Timer(1.5, lambda: away.rename(run.root))
    back.start()
    keep(keeper, core, 2, 0.6)
    back.join()
    assert [row["epoch"] for row in folder.read_metrics()] == [1, 2]


def test_only_errors_of_files_are_waited_for(monkeypatch: Any) -> None:
    """A text with "errno" in it is none: h5py's words for a full disk are known."""
    monkeypatch.setattr("pawtune.search.storage.retry.PATIENCE_S", 0.1)
    monkeypatch.setattr("pawtune.search.storage.retry.PAUSE_S", 0.01)
    full = "Unable to write (file write failed: errno = 28, error message = 'No space left', buf)"

    def fail(error: Exception) -> None:
        raise error

    with pytest.raises(StorageError, match="No space left"):
        retry_storage(lambda: fail(RuntimeError(full)))
    for text in ("the layer 'errno' has no weights", "errno = 0, error message = ''", "errno: 28"):
        with pytest.raises(RuntimeError, match=re.escape(text)):
            retry_storage(lambda text=text: fail(RuntimeError(text)))  # type: ignore[misc]


def test_a_run_folder_that_stays_away_is_told(run: RunFolder, monkeypatch: Any) -> None:
    monkeypatch.setattr("pawtune.search.storage.retry.PATIENCE_S", 0.2)
    run.trials_dir.rmdir()
    run.root.rmdir()
    writer = RunWriter(run.trials_dir, Objective(), os.getpid())
    with pytest.raises(StorageError, match=r"could not be used for 0.2 s: .* No such file"):
        writer.begin("0001")
    assert not run.root.exists()
