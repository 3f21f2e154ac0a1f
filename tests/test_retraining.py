"""The one task behind confirm, refit and reproduce: several at once, and again where one died."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pawtune.models.baselines import baseline
from pawtune.models.errors import ModelError
from pawtune.models.families.conv import ConvSpec
from pawtune.models.families.transfer import TransferSpec
from pawtune.models.model_spec import TrainSpec
from pawtune.models.spec import TrialSpec
from pawtune.search.cluster.connection import ResourcePlan
from pawtune.search.config.needs import banked_backbones, needs_of_trials
from pawtune.search.config.search_config import SearchConfig
from pawtune.search.objective import Objective
from pawtune.search.retraining.setup import RetrainingSetup
from pawtune.search.retraining.training import Training, train_again
from pawtune.search.shared_work.shared_work import SharedWork
from pawtune.search.storage.run_folder import TrialFolder
from pawtune.search.storage.untrusted_files import REQUIRED_METRICS
from pawtune.search.trial_report import TrialReport
from pawtune.search.worker.trial_client import end_writer, start_writer
from tests.ray_head import tree_of
from tests.tiny_run import tiny_work

ROW = dict.fromkeys(REQUIRED_METRICS, 0.5)


@pytest.fixture
def setup(ray_cluster: dict[str, Any]) -> RetrainingSetup:
    plan = ResourcePlan(cpus=1, gpus=0, concurrency=2)
    work = cast(SharedWork, SimpleNamespace(threads=1, features=None))
    unused = cast(Any, None)
    return RetrainingSetup(unused, unused, plan, work)


def test_only_a_head_that_sees_views_has_a_bank_made_for_it() -> None:
    """Retraining makes what its own trials need, whatever the search had."""
    config = SearchConfig(data="sample")
    banked = {}
    for views in ("plain", "weighted"):
        model = TransferSpec(head="trained", views=views)
        trial = TrialSpec(name=views, model=model, train=TrainSpec(epochs=2))
        banked[views] = len(banked_backbones(needs_of_trials(config, [trial])))
    assert banked == {"plain": 0, "weighted": 1}


def spec(name: str, epochs: int) -> TrialSpec:
    return baseline("tutorial_1", epochs).model_copy(update={"name": name})


def test_trainings_stream_their_epochs_and_leave_their_files(
    setup: RetrainingSetup, tmp_path: Path
) -> None:
    row = ROW  # by value: a worker knows nothing of this module

    def train(spec: TrialSpec, folder: TrialFolder, work: SharedWork) -> Iterator[TrialReport]:
        if spec.name == "bad":
            raise ModelError("the loss diverged")
        for epoch in range(1, spec.train.epochs + 1):
            folder.write_metrics([{"epoch": n, **row} for n in range(1, epoch + 1)])
            yield TrialReport(epoch, row)

    trainings = [
        Training(spec(name, epochs), TrialFolder(tmp_path / name), trainer=train)
        for name, epochs in (("one", 1), ("bad", 2), ("three", 3))
    ]
    seen: list[tuple[str, int]] = []
    ended = {
        training.spec.name: error
        for training, error in train_again(
            setup, trainings, lambda t, report: seen.append((t.spec.name, report.epoch))
        )
    }
    assert ended["one"] is ended["three"] is None
    assert isinstance(ended["bad"], ModelError)
    assert sorted(seen) == [("one", 1), ("three", 1), ("three", 2), ("three", 3)]
    assert len(TrialFolder(tmp_path / "three").read_metrics()) == 3
    assert not (tmp_path / "bad").exists()


def test_a_worker_that_dies_costs_the_epochs_since_its_state(
    setup: RetrainingSetup, tiny_images: Path, tmp_path: Path
) -> None:
    """It sees nothing of the run; the task is started again, and every epoch is reported once."""
    writer = start_writer(tmp_path, Objective())
    kept = replace(setup, work=replace(tiny_work(tiny_images), writer=writer))
    model = ConvSpec(image_size=32, filters=(4,))
    trial = TrialSpec(name="dies", model=model, train=TrainSpec(epochs=4, precision="float32"))
    training = Training(trial, TrialFolder(tmp_path / "dies"), continues=True)
    training.folder.root.mkdir()
    seen: list[int] = []
    killed: list[int] = []

    def on_epoch(_: Training, report: TrialReport) -> None:
        seen.append(report.epoch)
        if report.epoch == 1:
            killed.extend(kill_trainings())

    (ended,) = train_again(kept, [training], on_epoch)
    end_writer(writer)
    assert killed
    assert ended == (training, None)
    assert seen == [1, 2, 3, 4]
    assert [row["epoch"] for row in training.folder.read_metrics()] == [1, 2, 3, 4]
    assert training.folder.best_weights.exists()


def kill_trainings() -> list[int]:
    """Kills the workers of this process' cluster that train; their ids."""
    found = [
        pid
        for pid in tree_of(os.getpid())
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::_train")
    ]
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return found
