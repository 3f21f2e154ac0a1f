"""A warm worker trains trial after trial without growing: nothing of an ended trial stays alive."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import ray

from pawtune.models.families.conv import ConvSpec
from pawtune.models.families.family import Bank
from pawtune.models.families.transfer import TransferSpec
from pawtune.models.features.augmented_views import make_view_table
from pawtune.models.model_spec import Optimizer, TrainSpec
from pawtune.models.spec import TrialSpec
from pawtune.search.objective import Objective
from pawtune.search.retraining.training import train_trial
from pawtune.search.shared_work.backbones import StoredBackbone
from pawtune.search.shared_work.pixels import PixelRefs
from pawtune.search.shared_work.shared_array import SharedArray
from pawtune.search.shared_work.shared_work import SharedWork
from pawtune.search.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from pawtune.search.shared_work.features import FeatureStore

pytestmark = pytest.mark.usefixtures("ray_cluster")
OPTIMIZERS: tuple[Optimizer, ...] = ("adam", "adamw", "sgd")
FEATURES = 1280
IMAGES = 32


@dataclass(frozen=True)
class OneView:
    """In the place of a `FeatureStore`: a bank of one view an image."""

    train: SharedArray
    plain: SharedArray
    views: int = 1

    def bank(self, request: object) -> Bank:
        return Bank(make_view_table(IMAGES, 1), self.train.open(), self.plain.open()[:, 0])


def make_work(root: Path) -> SharedWork:
    """Random pixels of 32 px and random features, in Ray's object store."""
    rng = np.random.default_rng(0)
    pixels = SharedArray(ray.put(rng.integers(0, 255, (IMAGES, 32, 32, 3), np.uint8)))
    features, plain = (
        SharedArray(ray.put(rng.normal(size=(IMAGES, 1, FEATURES)).astype(np.float16)))
        for _ in range(2)
    )
    labels = np.arange(IMAGES, dtype=np.int32) % 2
    return SharedWork(
        objective=Objective(),
        threads=1,
        class_names=("a", "b"),
        train_labels=labels,
        val_labels=labels,
        pixels={32: PixelRefs(pixels, pixels)},
        backbones={("MobileNetV2", 32): StoredBackbone(root / "none", "", 0, FEATURES)},
        features=cast("FeatureStore", OneView(features, plain)),
    )


def net(number: int) -> TrialSpec:
    """1.1 million weights: 13 MB with Adam's slots, and as much again while they are saved."""
    model = ConvSpec(
        image_size=32, filters=(16, 64), padding="same", dense_width=256, batch_norm=True
    )
    return TrialSpec(name="net", model=model, train=train_spec(number))


def head(number: int) -> TrialSpec:
    """660,000 weights: 8 MB with Adam's slots."""
    model = TransferSpec(image_size=32, dense_width=512)
    return TrialSpec(name="head", model=model, train=train_spec(number))


def train_spec(number: int) -> TrainSpec:
    optimizer = OPTIMIZERS[number % len(OPTIMIZERS)]
    return TrainSpec(epochs=2, seed=number, precision="float32", optimizer=optimizer)


@ray.remote(num_cpus=1, max_calls=1)
def memory_after_trials(specs: list[TrialSpec], work: SharedWork, root: Path) -> list[float]:
    """Private megabytes of a new process after each trial."""
    memory = []
    for number, spec in enumerate(specs):
        for _ in train_trial(spec, RunFolder(root).new_trial(f"{number:04}"), work):
            pass
        memory.append(private_megabytes())
    return memory


def private_megabytes() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def growth(specs: list[TrialSpec], folder: Path, warm_up: int) -> float:
    """Of a worker's memory after its first trials, in which TensorFlow takes what it keeps."""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not say how much private memory a process has")
    memory: list[float] = ray.get(memory_after_trials.remote(specs, make_work(folder), folder))
    return max(memory[warm_up:]) - memory[warm_up - 1]


@pytest.mark.slow
def test_the_next_trials_take_no_more_memory(tmp_path: Path) -> None:
    """Of three kinds of optimizer each; a leak of one trial in three would be 25 MB."""
    specs = [net(number) for number in range(7)]
    assert growth(specs, tmp_path, warm_up=3) < 15


@pytest.mark.slow
@pytest.mark.parametrize("kind", [net, head])
def test_thirty_trials_in_one_worker(kind: Any, tmp_path: Path) -> None:
    specs = [kind(number) for number in range(30)]
    assert growth(specs, tmp_path, warm_up=3) < 20
