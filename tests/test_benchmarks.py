"""Every benchmark runs from its command line to its JSON, on images of a few pixels."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.networks import save_random_backbone

REPOSITORY = Path(__file__).resolve().parent.parent


def benchmark(name: str, folder: Path, *arguments: object) -> dict[str, Any]:
    """Runs a script of benchmarks/ and returns the JSON that it wrote."""
    out = folder / "out.json"
    script = REPOSITORY / "benchmarks" / f"{name}.py"
    command = [sys.executable, str(script), *map(str, arguments), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(out.read_text())
    assert report["command"].startswith(str(script))
    assert report["machine"]["cores"] >= 1
    return report


@pytest.mark.slow
def test_conv_nets(tmp_path: Path) -> None:
    report = benchmark(
        "conv_nets", tmp_path, "--nets=batch_norm", "--image-size=32", "--images=64", "--rounds=1"
    )
    rows = report["speed"]
    assert [row["contender"] for row in rows] == [
        "keras float32",
        "pawtune auto",
        "pawtune float32",
    ]
    assert rows[0]["ratio to keras"] == 1
    for row in rows:
        assert row["images/s"] == pytest.approx(64 / row["s/epoch"], rel=0.01)


@pytest.mark.slow
def test_conv_nets_want_images_to_learn_from(tmp_path: Path) -> None:
    script = str(REPOSITORY / "benchmarks" / "conv_nets.py")
    command = [sys.executable, script, "--accuracy-epochs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--accuracy-epochs needs --data" in done.stderr


@pytest.mark.slow
def test_batch_norm_averages(tmp_path: Path) -> None:
    sizes = ("--image-size=32", "--images=48", "--epochs=2", "--batch-sizes", 16, 20)
    rows = benchmark("batch_norm_averages", tmp_path, *sizes)["epochs"]
    assert [row["steps an epoch"] for row in rows] == [3, 3]
    assert all(len(row[way].split()) == 2 for row in rows for way in ("momentum 0.99", "measured"))


@pytest.mark.slow
def test_overhead(tmp_path: Path) -> None:
    report = benchmark("overhead", tmp_path, "--trials=4", "--image-mb=9", "--families=conv")
    (row,) = report["trials"]
    assert row["trials"] == 4
    assert row["workers"] >= 1
    # The strict one counts the first epoch's preparations too.
    assert 0 < row["overhead s"] <= row["strict overhead s"] < row["s/trial"]
    few, many = report["images"]
    assert few["added MB"] == 0
    assert many["decoded MB"] == 9
    assert many["worker MB"] > 100  # TensorFlow alone is more: a real worker was seen


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a backbone, and a folder `expert` that stands in for scikit-learn.

    Only benchmarks need scikit-learn; the expert's own code runs.
    """
    folder = tmp_path_factory.mktemp("expert")
    weights = folder / "untrained.weights.h5"
    save_random_backbone(weights)
    stand_in = folder / "expert" / "sklearn" / "linear_model.py"
    stand_in.parent.mkdir(parents=True)
    (stand_in.parent / "__init__.py").touch()
    stand_in.write_text(NEAREST_MEAN)
    return weights


@pytest.mark.slow
def test_time_to_accuracy(tmp_path: Path, tiny_images: Path, untrained: Path) -> None:
    figure = tmp_path / "courses.png"
    report = benchmark(
        "time_to_accuracy",
        tmp_path,
        *("--data", tiny_images, "--weights", untrained, "--image-size=32", "--trials=3"),
        *("--peers=ray-tune", "--epochs=2", "--peer-epochs=1,2"),
        *("--expert-path", untrained.parent / "expert", "--figure", figure),
    )
    names = [row["contender"].partition(" (")[0] for row in report["rows"]]
    assert names == ["expert's script", "pawtune, cold", "pawtune, warm", "ray-tune"]
    assert report["missing"] == ["keras-tuner: not in --peers"]
    for course in report["courses"]:
        assert len(course["steps"]) == 3
        assert 0 < course["steps"][0][0] < course["seconds"]
    assert report["rows"][0]["of the expert's"] == 1
    assert figure.stat().st_size > 5_000


@pytest.mark.slow
def test_best_answer(tmp_path: Path, tiny_images: Path, untrained: Path) -> None:
    (row,) = benchmark(
        "best_answer",
        tmp_path,
        *("--data", tiny_images, "--weights", untrained, "--image-size=32", "--budget=60s"),
        *("--split-seeds", 3, "--expert-path", untrained.parent / "expert"),
    )["rows"]
    assert row["split seed"] == 3
    assert row["trials"] >= 1  # the first is a solved head
    assert row["pawtune validation"] >= row["solved"] > 0
    assert 0 <= row["pawtune test"] <= 1


@pytest.mark.slow
def test_hard_tasks(tmp_path: Path, tiny_images: Path, untrained: Path) -> None:
    report = benchmark(
        "hard_tasks",
        tmp_path,
        *("--data", tiny_images, "--weights", untrained, "--image-size=32", "--trials=6"),
        *("--photos=72", "--seeds", 3),
    )
    for task in ("rotation", "blur"):
        rows = [row for row in report["rows"] if row["task"] == task]
        assert [row["stage"] for row in rows] == ["last block", "several blocks", "fine-tuned"]
        assert sum(row["trials"] for row in rows) == 6
        assert all(0 <= row[split] <= 1 for row in rows for split in ("validation", "test"))
    assert all("space.tune_views=1" in command for command in report["commands"])


def test_hard_tasks_have_each_photo_in_one_class(
    tmp_path: Path, tiny_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    hard_tasks = importlib.import_module("hard_tasks")
    photos = hard_tasks.read_photos(str(tiny_images), None)
    for name, task in hard_tasks.TASKS.items():
        hard_tasks.make_images(task, photos, tmp_path / name, 32, seed=0)
        made = list((tmp_path / name).rglob("*.png"))
        assert len({path.name for path in made}) == len(made) == len(photos) == 80
        counts = [len(list(folder.iterdir())) for folder in (tmp_path / name).iterdir()]
        assert max(counts) - min(counts) <= 1


def test_hard_tasks_turn_and_blur(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    tasks = importlib.import_module("hard_tasks").TASKS
    marked = np.zeros((64, 64, 3), np.uint8)
    marked[:16, :16] = 255
    brightest, steepest = {}, []
    for label, change in tasks["rotation"].items():
        pixels = np.asarray(change(Image.fromarray(marked), 32))[..., 0]
        quarters = {"above left": pixels[2, 2], "above right": pixels[2, -3],
                    "below left": pixels[-3, 2], "below right": pixels[-3, -3]}  # fmt: skip
        brightest[label] = max(quarters, key=lambda place: int(quarters[place]))
    assert brightest == {  # counter-clockwise
        "turned_0": "above left",
        "turned_90": "below left",
        "turned_180": "below right",
        "turned_270": "above right",
    }
    for change in tasks["blur"].values():
        pixels = np.asarray(change(Image.fromarray(marked), 32), int)
        steepest.append(int(np.abs(np.diff(pixels, axis=0)).max()))
    assert steepest[0] > steepest[1] > steepest[2]


@pytest.mark.slow
def test_from_scratch(tmp_path: Path, tiny_images: Path) -> None:
    sizes = ("--image-size=32", "--epochs=2", "--budget=60s")
    script, ours = benchmark("from_scratch", tmp_path, "--data", tiny_images, *sizes)["rows"]
    assert script["nets"] == 1
    assert ours["nets"] >= 1
    assert ours["best validation"] >= ours["first net"] > 0
    assert all(0 <= row["test"] <= 1 for row in (script, ours))


@pytest.mark.slow
def test_learn_from(tmp_path: Path, tiny_images: Path) -> None:
    weights = tmp_path / "untrained.weights.h5"
    save_random_backbone(weights)
    report = benchmark(
        "learn_from",
        tmp_path,
        *("--data", tiny_images, "--weights", weights, "--image-size=32", "--trials=3"),
        *("--epochs=1", "--seeds=1"),
    )
    taught = [row["taught by"] for row in report["rows"]]
    assert taught == ["nobody", "other images", "same images", "misleading"]
    assert any(row["trials until 99%"] for row in report["rows"])


NEAREST_MEAN = """
import numpy as np


class LogisticRegression:
    def __init__(self, C, max_iter):
        pass

    def fit(self, features, labels):
        self.means = np.stack([features[labels == c].mean(0) for c in np.unique(labels)])
        return self

    def predict(self, features):
        return ((features[:, None] - self.means) ** 2).sum(-1).argmin(-1)
"""


@pytest.mark.slow
def test_logging_cost(tmp_path: Path) -> None:
    report = benchmark("logging_cost", tmp_path, "--trials=4", "--epochs=2")
    assert [row["part"] for row in report["parts"]][-1] == "both"
    assert report["wall_s"] > 2
    assert 0 < report["share"] < 0.5


def test_scaling_by_hand() -> None:
    """32 trials of 20 epochs; 2 trials took 10 s with 1 epoch and 16 s with 3."""
    code = (
        "from argparse import Namespace as N; from peer_runs import scaled_row;"
        "result = {str(e): {'seconds': s, 'val_accuracies': [0.5]} for e, s in ((1, 10), (3, 16))};"
        "options = N(trials=32, epochs=20);"
        "print([scaled_row(p, result, options)['seconds'] for p in ('ray-tune', 'keras-tuner')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY / "benchmarks",
        capture_output=True,
        text=True,
        timeout=60,
    )
    # At once: start-up 7 s, 3 s an epoch, 16 turns. One by one: 3.5 s, 1.5 s, 32 turns.
    assert done.stdout.strip() == "[1072, 1072]", done.stderr


@pytest.mark.slow
def test_one_writer(tmp_path: Path) -> None:
    options = ("--workers=4", "--processes=2", "--seconds=1", "--net-mb=1", "--store-mb=100")
    rows = benchmark("one_writer", tmp_path, *options)["rows"]
    assert [row["workers"] for row in rows] == [4, 4]
    assert all(row["epochs/s"] > 0 for row in rows)


@pytest.mark.slow
def test_shared_pixels(tmp_path: Path) -> None:
    options = ("--images=200", "--image-size=16", "--batches=4", "--store-mb=100")
    rows = benchmark("shared_pixels", tmp_path, *options)["rows"]
    assert [row["what"] for row in rows] == ["a file, mapped", "one object"]
