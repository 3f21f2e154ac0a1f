"""`pawtune` with everything real but the arithmetic: for tests that kill it again and again.

Data, decoding, banks, Ray, Tune, Optuna, records, states and event files are those of the product;
networks are a line of text and a table of accuracies, so that no TensorFlow has to start.

    python -m tests.fault_search run --data … --name …       # as `pawtune run`

`faults.json` beside the run's folder says how long things take; `epochs.log` beside it gets a line
an epoch.
"""

import hashlib
import json
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import ray

import pawtune.search.driver
import pawtune.search.shared_work.backbones
import pawtune.search.shared_work.features
import pawtune.search.shared_work.pixels
import pawtune.search.storage.retry
import pawtune.search.worker.epoch_keeper
import pawtune.search.worker.trial_client
from pawtune.data_pipeline.images.decode import decode_split
from pawtune.models.families.family import Backbone, ViewBank
from pawtune.models.spec import TrialSpec
from pawtune.search.cluster.connection import place
from pawtune.search.objective import Metric
from pawtune.search.shared_work.features import FeatureStore
from pawtune.search.storage.records import TrialFacts
from pawtune.search.storage.run_folder import write_json
from pawtune.search.storage.run_writer import RunWriter
from pawtune.search.trial_report import TrialReport
from pawtune.search.worker.epoch_keeper import EpochKeeper
from pawtune.search.worker.trial import TrialWorker
from pawtune.search.worker.trial_client import TrialClient

FEATURES = 8
DEFAULTS = {
    "epoch_s": 0.1,
    "state_s": 0.3,  # between two states of a trial
    "decode_s": 0.0,  # of a shard
    "bank_s": 0.0,  # of a shard
    "patience_s": 60.0,
    "hog": "",  # a trial that allocates memory until it dies
    "limit_mb": 0,  # that it may still take; 0: no limit
    "weights_kb": 1,
    "fsize_kb": 0,  # no file of a worker may be larger; 0: no limit
    "cache": "",  # pawtune's cache; one of its own where none is said
    "log_dir": "",  # where epochs.log goes; beside the run's folder where none is said
}


def faults(runs_dir: Path) -> dict[str, Any]:
    file = runs_dir / "faults.json"
    said = json.loads(file.read_text()) if file.exists() else {}
    return {**DEFAULTS, "log_dir": str(runs_dir), **said}


def accuracy(trial_id: str, epoch: int) -> float:
    """The same in every attempt, as training is."""
    digest = hashlib.sha256(f"{trial_id} {epoch}".encode()).digest()
    return round(0.5 + digest[0] / 1024 + min(epoch, 20) / 100, 4)


class TextCore:
    """Weights that say which epoch of which trial they are of."""

    def __init__(self, trial_id: str, kilobytes: int) -> None:
        self.text = ""
        self._name = trial_id
        self._padding = " " * 1024 * kilobytes

    def train(self, epoch: int) -> None:
        self.text = f"{self._name} {epoch}"

    def save_weights(self, filepath: Path) -> None:
        filepath.write_text(self.text + self._padding)


class FaultWorker(TrialWorker):
    """Keeps what a real trial keeps, in the same order."""

    settings = DEFAULTS  # the worker may not see the folder that has them

    def _begin(self, trial: TrialClient) -> Iterator[TrialReport]:
        settings = self.settings
        pawtune.search.worker.epoch_keeper.STATE_INTERVAL_S = settings["state_s"]
        pawtune.search.storage.retry.PATIENCE_S = settings["patience_s"]
        kept = trial.begin()
        # The scheduler may have moved these pixels from a node that is gone.
        for refs in self._work.pixels.values():
            assert refs.train.open().shape[0] == len(self._work.train_labels)
        spec = TrialSpec.model_validate(self.config["spec"])
        if spec.model.family == "transfer" and self._work.features is not None:
            features_by_chance(settings)
            for backbone in self._work.features.backbones:
                bank = self._work.features.bank(ViewBank(backbone, "average"))
                assert len(bank.train) == len(self._work.train_labels)
        if settings["fsize_kb"]:
            limit = settings["fsize_kb"] * 1024
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        if settings["hog"] == trial.trial_id:
            _allocate(settings["limit_mb"])
        rows = [dict(row) for row in kept.rows]
        facts = TrialFacts(
            num_weights=1,
            training="live",
            **place(),
            threads=self._work.threads,
            device=os.environ.get("CUDA_VISIBLE_DEVICES"),  # what it sees, for tests of GPUs
        )
        trial.describe(facts)
        core = TextCore(trial.trial_id, settings["weights_kb"])

        def save(epoch: int, folder: Path) -> None:
            write_json(folder / "state.json", {"epoch": epoch})

        keeper = EpochKeeper(trial, self._work.objective, core, save, rows)
        for epoch in range(len(rows) + 1, spec.train.epochs + 1):
            time.sleep(settings["epoch_s"])
            core.train(epoch)
            value = accuracy(trial.trial_id, epoch)
            metrics = {"accuracy": value, "loss": 1 - value, "val_accuracy": value}
            metrics |= {"val_loss": 1 - value, "val_balanced_accuracy": value}
            metrics |= {"seconds": settings["epoch_s"], "images_per_second": 1.0}
            predictions = np.full((len(self._work.val_labels), 2), epoch, np.float32)
            result: Any = SimpleNamespace(
                epoch=epoch, metrics=metrics, val_probabilities=predictions
            )
            done = epoch == spec.train.epochs
            report = keeper.keep(result, done, num_weights=1)
            with (Path(settings["log_dir"]) / "epochs.log").open("a") as log:
                now = time.time()
                log.write(f"{now} {trial.trial_id} {epoch} {os.getpid()} {facts.node}\n")
            yield report


class FaultWriter(RunWriter):
    """Waits for storage as long as the test says."""

    def __init__(self, trials_dir: Path, metric: Metric, driver: int) -> None:
        pawtune.search.storage.retry.PATIENCE_S = faults(trials_dir.parents[1])["patience_s"]
        super().__init__(trials_dir, metric, driver)


def _allocate(limit_mb: int) -> None:
    if limit_mb:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + limit_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    held = []
    while True:
        held.append(np.ones(2**24))  # 128 MB that are really used
        time.sleep(0.05)


def features_by_chance(settings: dict[str, Any]) -> None:
    """In the place of what runs a backbone in this process."""

    def make(store: FeatureStore, backbone: Backbone, start: int, stop: int) -> dict[str, Any]:
        rows = np.random.default_rng(start).random((stop - start, FEATURES))
        return dict.fromkeys(("inner", "average", "maximum"), rows.astype(np.float16))

    def make_bank(store: FeatureStore, *shard: Any) -> dict[str, Any]:
        with (Path(settings["log_dir"]) / "shards.log").open("a") as log:
            log.write(f"{shard[1]}\n")
        time.sleep(settings["bank_s"])
        arrays = make(store, *shard)
        return {name: np.stack([arrays[name]] * store.views, 1) for name in ("average", "maximum")}

    pawtune.search.shared_work.features.SHARD_VIEWS = 32
    patched: Any = FeatureStore
    patched._make_plain, patched._make_bank = make, make_bank


@ray.remote(num_cpus=1)
def _decode_after(seconds: float, root: Path, entries: Any, image_size: int) -> Any:
    time.sleep(seconds)
    return decode_split(root, entries, image_size)


class Decode:
    """In the place of the task that decodes a shard: the same, after a while."""

    def __init__(self, seconds: float, options: dict[str, Any] | None = None) -> None:
        self._seconds = seconds
        self._options = options or {}

    def options(self, **options: Any) -> "Decode":
        return Decode(self._seconds, options)

    def remote(self, *arguments: Any) -> Any:
        return _decode_after.options(**self._options).remote(self._seconds, *arguments)


def replacements(runs_dir: Path) -> list[tuple[Any, str, Any]]:
    """What a search without arithmetic has in the place of the real thing."""
    settings = faults(runs_dir)
    return [
        (
            pawtune.search.driver,
            "TrialWorker",
            type("WorkerOfThis", (FaultWorker,), {"settings": settings}),
        ),
        (pawtune.search.worker.trial_client, "RunWriter", FaultWriter),
        # The file that is given holds no weights, which these would notice.
        (pawtune.search.shared_work.backbones, "find_weights", lambda name, size, file: file),
        (pawtune.search.shared_work.backbones, "weights_ending", lambda file: ".h5"),
        (pawtune.search.shared_work.pixels, "_decode_shard", Decode(settings["decode_s"])),
        (pawtune.search.shared_work.pixels, "SHARD_IMAGES", 8),
        (pawtune.search.storage.retry, "PATIENCE_S", settings["patience_s"]),
    ]


def main() -> None:
    from pawtune.search.cli.main import main as run_command

    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell had it ignored
    for place_, name, new in replacements(Path(os.environ["FAULT_RUNS_DIR"])):
        assert hasattr(place_, name), f"{place_.__name__} has no {name} any more"
        setattr(place_, name, new)
    run_command()


if __name__ == "__main__":
    # As a module of its own name, not __main__: workers import it to unpickle what is above.
    from tests import fault_search

    fault_search.main()
