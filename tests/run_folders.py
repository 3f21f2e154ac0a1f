"""Run folders written as files, without training: what reports and event files are made from."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import optuna
from PIL import Image
from pydantic import ValidationError
from scipy.special import softmax

from pawtune.data_pipeline.splitting.build import build_manifest
from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.models.baselines import baseline
from pawtune.models.errors import ModelError
from pawtune.models.families.conv import CONV, ConvSpec
from pawtune.models.families.table import check_limits
from pawtune.models.families.transfer import TransferSpec
from pawtune.models.model_spec import ModelSpec, TrainSpec
from pawtune.models.spec import TrialSpec
from pawtune.search.config.search_config import SearchConfig, dump_config, load_config
from pawtune.search.run import Run
from pawtune.search.sampling import space
from pawtune.search.storage.run_folder import (
    RunFolder,
    create_run_folder,
    open_run_folder,
    write_array,
    write_json,
    write_text,
)

BACKBONE_WEIGHTS = 2_257_984  # of MobileNetV2 without its top
STARTED = 1_790_000_000.0
CEILING = {"conv": 0.88, "transfer": 0.97}


def make_images(root: Path, class_names: Sequence[str], per_class: int = 40) -> Path:
    """Class folders of generated 48 x 40 px images, no two near duplicates."""
    rng = np.random.default_rng(1)
    for number, label in enumerate(class_names):
        folder = root / label
        folder.mkdir(parents=True)
        colour = rng.uniform(50, 200, 3)
        for index in range(per_class):
            blobs = rng.normal(0, 40, (8, 8, 1)) + colour + 5 * number
            small = Image.fromarray(blobs.clip(0, 255).astype(np.uint8))
            small.resize((48, 40), Image.Resampling.BILINEAR).save(folder / f"{index:03d}.jpg")
    return root


class RunMaker:
    """Writes a run folder trial by trial, as a search would leave it.

    Args:
        runs_dir: Where.
        images: An image folder; its manifest is made here. Or a ready manifest.
        name: Of the run.
        options: Of the configuration, besides the data.
    """

    def __init__(
        self,
        runs_dir: Path,
        images: Path | Manifest,
        name: str = "made",
        overrides: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self.manifest = images if isinstance(images, Manifest) else build_manifest(images)
        self.folder: RunFolder = create_run_folder(runs_dir, name)
        given = {"data": self.manifest.root, "name": name, "epochs": 10, **options}
        self.config: SearchConfig = load_config(None, list(overrides), given)
        write_text(self.folder.config_file, dump_config(self.config))
        self.manifest.save(self.folder.root)
        self.rng = np.random.default_rng(0)
        self.clock = STARTED
        self.count = 0

    def baselines(self, names: Sequence[str]) -> None:
        for name in names:
            self.add(baseline(name, self.config.epochs), is_baseline=True)

    def proposals(self, number: int, families: Sequence[str] = ("conv", "transfer")) -> None:
        """Random points of the space; about half of them stopped early."""
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
        for _ in range(number):
            while True:
                params = space.propose(study.ask(), self.config, list(families))
                name = f"{params['family']}-{self.count + 1:04d}"
                try:
                    spec = space.to_spec(params, self.config, name, 0)
                    check_limits(spec.model, len(self.manifest.class_names))
                    break
                except (ValidationError, ModelError):
                    continue
            stopped = self.rng.random() < 0.5
            self.add(spec, epochs=min(3, self.config.epochs) if stopped else None)

    def add(
        self,
        spec: TrialSpec,
        *,
        is_baseline: bool = False,
        epochs: int | None = None,
        status: str | None = None,
        reason: str | None = None,
        accuracy: float | None = None,
    ) -> str:
        """One trial: spec, curve, status, facts and predictions. Returns its id."""
        self.count += 1
        folder = self.folder.new_trial(f"{self.count:04d}")
        content = {"baseline": is_baseline, "params": spec.params(), **spec.model_dump(mode="json")}
        write_json(folder.spec_file, content)
        planned = spec.train.epochs
        epochs = planned if epochs is None else epochs
        if status is None:
            status = "completed" if epochs >= planned else "stopped"
            reason = reason or ("asha" if status == "stopped" else None)
        peak = accuracy if accuracy is not None else self._peak(spec)
        rows = self._curve(peak, epochs, spec)
        if rows:
            folder.write_metrics(rows)
            best = max(rows, key=lambda row: row["val_accuracy"])
            self._predictions(folder.best_predictions, best["val_accuracy"])
        seconds = 2.0 + sum(row["seconds"] for row in rows)
        write_json(folder.facts_file, self._facts(spec))
        times = {"started": self.clock, "finished": self.clock + seconds, "seconds": seconds}
        if status == "failed":
            write_text(folder.error_file, f"Traceback\n{reason}\n")
        folder.write_status(status, reason=reason, **times)  # type: ignore[arg-type]
        self.clock += seconds / 2  # two at a time
        return folder.trial_id

    def add_net(self, model: ModelSpec, *, seed: int = 0, **how: Any) -> str:
        """A trial that keeps the weights of an untrained net or, on a `backbone`, head."""
        from pawtune.models.precision import precision
        from tests.networks import network_of

        name = f"{model.family}-{self.count + 1:04d}"
        trial_id = self.add(TrialSpec(name=name, model=model, train=TrainSpec(epochs=2)))
        with precision("float32"):
            core = network_of(model, len(self.manifest.class_names), seed=seed, **how).core
        core.save_weights(self.folder.trial(trial_id).best_weights)
        return trial_id

    def finish(self, reason: str | None = None) -> RunFolder:
        write_json(
            self.folder.summary_file,
            {"reason": reason, "seconds": round(self.clock - STARTED + 30, 1), "counts": {}},
        )
        return self.folder

    def look_at_test(self, **changes: Any) -> None:
        look = {"time": "2026-11-22T13:09:00+00:00", "accuracy": 0.935, "correct": 187, "n": 200}
        look |= {"interval_95": [0.892, 0.9616], "trial_id": "0001", "baseline": None, "looks": 1}
        with self.folder.test_ledger.open("a") as ledger:
            ledger.write(json.dumps(look | changes) + "\n")

    def _peak(self, spec: TrialSpec) -> float:
        off = abs(np.log10(spec.train.learning_rate) + 3.0) * 0.06 + spec.model.rotation_factor / 20
        return float(CEILING[spec.model.family] - off - self.rng.uniform(0, 0.03))

    def _curve(self, peak: float, epochs: int, spec: TrialSpec) -> list[dict[str, float]]:
        chance = 1 / len(self.manifest.class_names)
        seconds = 2.0 if spec.model.family == "transfer" else 6.0
        rows = []
        for epoch in range(1, epochs + 1):
            share = 1 - np.exp(-epoch / 2.5)
            accuracy = float(np.clip(chance + (peak - chance) * share, 0, 1))
            noise = float(self.rng.normal(0, 0.008))
            val_accuracy = float(np.clip(accuracy + noise, 0, 1))
            rows.append(
                {
                    "epoch": epoch,
                    "loss": 1.2 - accuracy,
                    "accuracy": min(1.0, accuracy + 0.004 * epoch),
                    "val_loss": 1.25 - val_accuracy,
                    "val_accuracy": val_accuracy,
                    "val_balanced_accuracy": val_accuracy,
                    "learning_rate": spec.train.learning_rate,
                    "seconds": seconds,
                    "images_per_second": 900.0,
                }
            )
        return rows

    def _predictions(self, path: Path, accuracy: float) -> None:
        labels = self.manifest.labels("validation")
        classes = len(self.manifest.class_names)
        right = self.rng.random(len(labels)) < accuracy
        shift = self.rng.integers(1, classes, len(labels))
        told = np.where(right, labels, (labels + shift) % classes)
        confidence = self.rng.uniform(0.55, 0.99, len(labels))
        probabilities = np.repeat((1 - confidence)[:, None] / (classes - 1), classes, axis=1)
        probabilities[np.arange(len(labels)), told] = confidence
        write_array(path, probabilities.astype("float32"))

    def _facts(self, spec: TrialSpec) -> dict[str, Any]:
        classes = len(self.manifest.class_names)
        model = spec.model
        if isinstance(model, ConvSpec):
            weights = trained = CONV.price(model, classes).weights
        else:
            assert isinstance(model, TransferSpec)
            width = model.dense_width
            trained = 1281 * width + (width + 1) * classes if width else 1281 * classes
            weights = trained + BACKBONE_WEIGHTS
        kind = "live" if model.family == "conv" else "bank"
        return {
            "num_weights": weights,
            "trainable_weights": trained,
            "precision": "float32",
            "training": kind,
            "host": "worker-1",
        }


def split_trial(run: Run, trial_id: str, root: Path) -> Run:
    """A copy of a run with two trials, "0099" the other: the mean of their weights is this trial.

    The bias of its last layer, the only dense one, is moved for one class, up in one and down in
    the other, so far that each alone names that class always or never.
    """
    shutil.copytree(run.folder.root, root)
    trials = root / "trials"
    for folder in trials.iterdir():
        if folder.name != trial_id:
            shutil.rmtree(folder)
    shutil.copytree(trials / trial_id, trials / "0099")
    for folder, up in ((trials / trial_id, 20.0), (trials / "0099", -20.0)):
        file = folder / "best" / "val_predictions.npy"
        moved = np.log(np.maximum(np.load(file), 1e-30))
        moved[:, 0] += up
        np.save(file, softmax(moved, axis=1).astype("float32"))
        with h5py.File(folder / "best" / "core.weights.h5", "r+") as weights:
            bias = _bias_of_the_logits(weights)
            bias[0] += up
    return Run(open_run_folder(root))


def _bias_of_the_logits(weights: h5py.File) -> h5py.Dataset:
    kernels: list[h5py.Dataset] = []

    def note(_: str, item: Any) -> None:
        if getattr(item, "ndim", 0) == 2:  # a dense layer's
            kernels.append(item)

    weights.visititems(note)
    (kernel,) = kernels
    return kernel.parent["1"]
