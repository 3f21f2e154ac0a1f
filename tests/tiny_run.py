"""A real search that takes seconds, for what needs a model and not a particular one."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import ray

from pawtune.data_pipeline.images.decode import decode_split
from pawtune.data_pipeline.splitting.build import build_manifest
from pawtune.models.out_of_fold.calibration import choose_temperature, tempered
from pawtune.search.config.search_config import SearchConfig, load_config
from pawtune.search.driver import run_search
from pawtune.search.objective import Objective
from pawtune.search.progress.reporter import Reporter
from pawtune.search.run import Run
from pawtune.search.shared_work.pixels import PixelRefs
from pawtune.search.shared_work.shared_array import SharedArray
from pawtune.search.shared_work.shared_work import SharedWork
from tests.networks import save_random_backbone

TINY: dict[str, Any] = {
    "families": "conv",
    "image_size": 32,
    "epochs": 2,
    "trials": 2,
    "space": {"conv_depth": 2, "filters": [8], "conv_dense_width": [0]},
    "resources": {"concurrency": 2},
}


def search_tiny(images: Path, runs_dir: Path, name: str = "tiny", **settings: Any) -> Run:
    """Two small nets, two epochs each."""
    given = {**TINY, "data": str(images), "runs_dir": str(runs_dir), "name": name, **settings}
    return run_search(SearchConfig(**given))


def small_search(images: Path, runs_dir: object, name: str) -> list[str]:
    """A small conv search as options of `pawtune run`."""
    space = ["conv_depth=2", "filters=[8, 16]", "conv_dense_width=[0, 16]", "learning_rate=0.01"]
    return [
        "run", f"--data={images}", "--families=conv", "--image-size=32", "--no-baselines",
        f"--name={name}", f"--runs-dir={runs_dir}", *[f"--set=space.{item}" for item in space],
    ]  # fmt: skip


def search_untrained(folder: Path, images: Path, *overrides: str, **given: Any) -> Run:
    """A search at 32 px on a backbone with random weights, in float32 as models are delivered."""
    weights = folder / "backbone.weights.h5"
    save_random_backbone(weights, is_normed=True)
    values = {
        "data": str(images), "name": "made", "runs_dir": str(folder / "runs"),
        "weights": str(weights), "image_size": [32], "speed.precision": "float32", **given,
    }  # fmt: skip
    return run_search(load_config(None, overrides, values), Reporter(quiet=True))


def assert_answers_as_trained(
    model: keras.Model, run: Run, trial_id: str, *, atol: float, temperature: float | None = None
) -> None:
    """A delivered model at 32 px says of the validation images what the trial's best epoch said.

    Compared as it was in training: a low temperature would enlarge differences of rounding.
    """
    manifest = run.manifest()
    pixels = decode_split(Path(manifest.root), manifest.split("validation"), 32)
    kept = np.load(run.folder.trial(trial_id).best_predictions)
    temperature = temperature or choose_temperature(kept, manifest.labels("validation"))
    found = tempered(model.predict(pixels, verbose=0), 1 / temperature)
    np.testing.assert_allclose(found, kept, atol=atol)


def tiny_work(images: Path) -> SharedWork:
    """The shared work of a search on small images at 32 px."""
    manifest = build_manifest(images)
    pixels = {
        split: SharedArray(ray.put(decode_split(images, manifest.split(split), 32)))
        for split in ("train", "validation")
    }
    return SharedWork(
        objective=Objective(),
        threads=1,
        class_names=manifest.class_names,
        train_labels=manifest.labels("train"),
        val_labels=manifest.labels("validation"),
        pixels={32: PixelRefs(**pixels)},
    )
