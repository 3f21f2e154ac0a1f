"""A trial on its worker: what it keeps, and that nothing of one trial reaches the next."""

import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
from ray import tune

from pawtune.data_pipeline.images.decode import decode_split
from pawtune.data_pipeline.splitting.build import build_manifest
from pawtune.models.families.conv import ConvSpec
from pawtune.models.model_spec import TrainSpec
from pawtune.models.spec import TrialSpec
from pawtune.search.objective import Objective
from pawtune.search.shared_work.pixels import PixelRefs
from pawtune.search.shared_work.shared_work import SharedWork
from pawtune.search.storage.attempts import (
    MAX_ATTEMPTS,
    LostWorkerError,
    TakenOverError,
    begin_attempt,
)
from pawtune.search.storage.retry import StorageError, retry_storage
from pawtune.search.storage.run_folder import RunFolder
from pawtune.search.worker.epoch_keeper import EpochKeeper, restore_best
from pawtune.search.worker.trial import TrialWorker, run_trial

pytestmark = pytest.mark.usefixtures("ray_cluster")
EPOCHS = 3


@pytest.fixture
def work(tiny_images: Path, tmp_path: Path) -> SharedWork:
    """The shared work of a search on the small images at 32 px."""
    manifest = build_manifest(tiny_images)
    pixels = {
        split: ray.put(decode_split(tiny_images, manifest.split(split), 32))
        for split in ("train", "validation")
    }
    return SharedWork(
        run_root=tmp_path / "run",
        metric="val_accuracy",
        threads=1,
        class_names=manifest.class_names,
        train_labels=manifest.labels("train"),
        val_labels=manifest.labels("validation"),
        pixels={32: PixelRefs(**pixels)},
    )


def spec(seed: int = 0, **changes: Any) -> TrialSpec:
    model = ConvSpec(image_size=32, filters=(8,), flip="horizontal", rotation_factor=0.1)
    train = TrainSpec(epochs=EPOCHS, seed=seed, precision="float32")
    return TrialSpec(name="t", model=model, train=train.model_copy(update=changes))


def train(work: SharedWork, trial: TrialSpec, name: str) -> list[dict[str, Any]]:
    folder = RunFolder(work.run_root).new_trial(name)
    return [report.to_result() for report in run_trial(trial, folder, work)]


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows
    ]


def test_a_used_worker_gives_what_a_fresh_one_gives(work: SharedWork) -> None:
    # An environment of its own: Ray would give it a process that an earlier test has used.
    fresh = ray.remote(runtime_env={"env_vars": {"PAWTUNE_TEST": "fresh"}})(train)
    first = ray.get(fresh.remote(work, spec(), "fresh"))
    train(work, spec(seed=7, optimizer="sgd", precision="mixed_float16"), "before")
    again = train(work, spec(), "used")
    assert without_times(again) == without_times(first)
    assert without_times(train(work, spec(seed=1), "other")) != without_times(first)


def test_a_trial_continues_from_its_last_state(work: SharedWork, monkeypatch: Any) -> None:
    monkeypatch.setattr("pawtune.search.worker.epoch_keeper.STATE_INTERVAL_S", 0.0)
    whole = train(work, spec(), "whole")
    folder = RunFolder(work.run_root).new_trial("cut")
    epochs = run_trial(spec(), folder, work)
    begun = [next(epochs).to_result(), next(epochs).to_result()]
    epochs.close()  # type: ignore[attr-defined]
    rest = train(work, spec(), "cut")
    assert without_times([*begun, *rest]) == without_times(whole)
    assert [row["epoch"] for row in folder.read_metrics()] == [1, 2, 3]


def test_a_damaged_state_is_begun_again(work: SharedWork, monkeypatch: Any) -> None:
    monkeypatch.setattr("pawtune.search.worker.epoch_keeper.STATE_INTERVAL_S", 0.0)
    whole = train(work, spec(), "whole")
    folder = RunFolder(work.run_root).new_trial("damaged")
    next(run_trial(spec(), folder, work))
    for file in folder.last.glob("*.h5"):
        file.write_bytes(file.read_bytes()[:100])
    assert without_times(train(work, spec(), "damaged")) == without_times(whole)


def test_the_best_epoch_is_kept_whatever_follows(work: SharedWork) -> None:
    import keras

    from pawtune.models.training.epoch_metrics import EpochResult

    folder = RunFolder(work.run_root).new_trial("kept")
    core = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
    folder.root.mkdir(parents=True)
    keeper = EpochKeeper(folder, Objective(), core, save_state=lambda epoch: None, rows=[])
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


def test_a_process_in_which_something_broke_takes_no_further_trial(work: SharedWork) -> None:
    RunFolder(work.run_root).new_trial("0001").root.parent.mkdir(parents=True)
    worker = ray.remote(tune.with_parameters(TrialWorker, work=work))
    actor = worker.options(num_cpus=1).remote({"trial_id": "0001", "spec": "no specification"})
    assert "ValidationError" in ray.get(actor.step.remote())["failure"]
    config = {"trial_id": "0002", "spec": spec().model_dump(mode="json")}
    assert ray.get(actor.reset_config.remote(config))
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.step.remote())


class Weights:
    """Stands for a network: its weights are a text."""

    def __init__(self) -> None:
        self.text = ""

    def save_weights(self, filepath: Path) -> None:
        filepath.write_text(self.text)


def keep(keeper: EpochKeeper, core: Weights, epoch: int, accuracy: float) -> None:
    core.text = f"epoch {epoch}"
    names = ("loss", "accuracy", "val_loss", "val_accuracy", "val_balanced_accuracy", "seconds")
    metrics = {**dict.fromkeys(names, 0.5), "val_accuracy": accuracy}
    predictions = np.full((2, 2), epoch, np.float32)
    keeper.keep(SimpleNamespace(epoch=epoch, metrics=metrics, val_probabilities=predictions), False)


def test_a_trial_that_goes_on_has_the_best_epoch_of_its_last_state(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """Best at epoch 1, state after 2, better at 3 and 4, dead: it repeats from 3 on."""
    folder = RunFolder(tmp_path).new_trial("0001")
    folder.root.mkdir(parents=True)
    core = Weights()
    keeper = EpochKeeper(folder, Objective(), core, lambda epoch: None, [])
    keep(keeper, core, 1, 0.7)
    monkeypatch.setattr("pawtune.search.worker.epoch_keeper.STATE_INTERVAL_S", 0.0)
    keep(keeper, core, 2, 0.6)
    monkeypatch.setattr("pawtune.search.worker.epoch_keeper.STATE_INTERVAL_S", 60.0)
    keep(keeper, core, 3, 0.8)
    keep(keeper, core, 4, 0.9)
    assert folder.best_weights.read_text() == "epoch 4"
    rows = folder.read_metrics()[:2]
    restore_best(folder, int(Objective().best(rows)["epoch"]))
    assert folder.best_weights.read_text() == "epoch 1"
    assert np.load(folder.best_predictions)[0, 0] == 1
    # The machine differs, and no later epoch is better this time.
    again = EpochKeeper(folder, Objective(), core, lambda epoch: None, rows)
    keep(again, core, 3, 0.65)
    assert folder.best_weights.read_text() == "epoch 1"


def test_a_worker_whose_trial_another_has_begun_writes_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path).new_trial("0001")
    (tmp_path / "trials").mkdir()
    core = Weights()
    lost = EpochKeeper(folder, Objective(), core, lambda epoch: None, [], begin_attempt(folder))
    keep(lost, core, 1, 0.5)
    mine = EpochKeeper(folder, Objective(), core, lambda epoch: None, [], begin_attempt(folder))
    keep(mine, core, 1, 0.6)
    with pytest.raises(TakenOverError, match="trial 0001 was begun again"):
        keep(lost, core, 2, 0.9)
    assert [row["val_accuracy"] for row in folder.read_metrics()] == [0.6]


def test_a_trial_that_gets_on_may_lose_its_worker_again(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("pawtune.search.worker.epoch_keeper.STATE_INTERVAL_S", 0.0)
    folder = RunFolder(tmp_path).new_trial("0001")
    (tmp_path / "trials").mkdir()
    core = Weights()
    for epoch in range(1, 3 * MAX_ATTEMPTS):
        rows = folder.read_metrics()
        claim = begin_attempt(folder)
        keep(EpochKeeper(folder, Objective(), core, lambda e: None, rows, claim), core, epoch, 0.5)
    for _ in range(MAX_ATTEMPTS):
        begin_attempt(folder)
    with pytest.raises(LostWorkerError, match="died 4 times"):
        begin_attempt(folder)


def test_a_state_that_takes_long_to_save_is_saved_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pawtune.search.worker.epoch_keeper.STATE_INTERVAL_S", 0.0)
    folder = RunFolder(tmp_path / "run").new_trial("0001")
    folder.root.mkdir(parents=True)
    saved: list[int] = []

    def save(epoch: int) -> None:
        saved.append(epoch)
        time.sleep(0.15 if epoch == 2 else 0)

    core = Weights()
    keeper = EpochKeeper(folder, Objective(), core, save, [])
    for epoch in range(1, 6):
        keep(keeper, core, epoch, 0.5)
    assert saved == [1, 2]


def test_a_run_folder_that_is_away_is_waited_for(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run").new_trial("0001")
    folder.root.mkdir(parents=True)
    core = Weights()
    keeper = EpochKeeper(folder, Objective(), core, lambda e: None, [], begin_attempt(folder))
    keep(keeper, core, 1, 0.5)
    (tmp_path / "run").rename(tmp_path / "away")
    back = threading.Timer(1.5, lambda: (tmp_path / "away").rename(tmp_path / "run"))
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


def test_a_run_folder_that_stays_away_is_told(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("pawtune.search.storage.retry.PATIENCE_S", 0.2)
    folder = RunFolder(tmp_path / "gone").new_trial("0001")
    with pytest.raises(StorageError, match=r"could not be used for 0.2 s: .* No such file"):
        begin_attempt(folder)
    assert not (tmp_path / "gone").exists()
