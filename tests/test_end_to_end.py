"""The main job through the command line: real images, real Ray, real Keras, from data to test."""

import csv
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from PIL import Image

from pawtune.search.run import open_run
from tests.command_line import pawtune
from tests.networks import save_random_backbone
from tests.tiny_run import assert_answers_as_trained

pytestmark = pytest.mark.usefixtures("ray_cluster")

QUICK = [
    "--image-size=32",
    "--epochs=2",
    "--no-baselines",
    "--set=space.conv_depth=2",
    "--set=space.filters=[8, 16]",
    "--set=space.conv_dense_width=[0, 16]",
    "--set=space.head_dense_width=[0, 16]",
]


@pytest.fixture(scope="module")
def backbone_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an untrained MobileNetV2: tests have no network."""
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.weights.h5"
    save_random_backbone(path)
    return path


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_images: Path,
    backbone_weights: Path,
    ray_cluster: object,
) -> Path:
    """A finished search of both families, and a copy of the images it used."""
    from pawtune.search.config.search_config import load_config
    from pawtune.search.driver import run_search

    folder = tmp_path_factory.mktemp("finished")
    images = folder / "images"
    shutil.copytree(tiny_images, images)
    overrides = [option.removeprefix("--set=") for option in QUICK if option.startswith("--set=")]
    config = load_config(
        None,
        [*overrides, "space.learning_rate=0.01"],
        {
            "data": str(images),
            "name": "tiny",
            "runs_dir": str(folder / "runs"),
            "weights": str(backbone_weights),
            "image_size": [32],
            "epochs": 3,
            "trials": 6,
            "families": ["conv", "transfer"],
            "baselines": "off",
            # As delivered: bfloat16, which some processors have, would round otherwise.
            "speed.precision": "float32",
        },
    )
    return run_search(config).folder.root


@pytest.fixture(scope="module")
def delivered(finished: Path) -> Path:
    """The best trial's complete model."""
    out = finished.parent / "best.keras"
    open_run(finished).save_best(out)
    return out


def test_the_leaderboard_ranks_all_trials(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = pawtune(capsys, "leaderboard", finished, "--json").json
    assert ",".join(board[0]) == (
        "rank,trial_id,name,family,status,best_val_accuracy,best_val_loss,train_accuracy,"
        "best_epoch,epochs,seconds,num_weights,params,state"
    )
    assert [row["rank"] for row in board] == [1, 2, 3, 4, 5, 6]
    accuracies = [row["best_val_accuracy"] for row in board]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] >= 0.9  # red against blue
    assert {row["family"] for row in board} == {"conv", "transfer"}
    table = pawtune(capsys, "leaderboard", finished)
    assert all(row["name"] in table.out for row in board)


def test_the_run_folder_holds_what_a_person_would_pass_on(finished: Path) -> None:
    config = yaml.safe_load((finished / "search.yaml").read_text())
    assert config["trials"] == 6
    assert config["name"] == "tiny"
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["rejects"] == []
    with (finished / "manifest.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 80
    assert {"path", "label", "split", "sha256"} <= set(rows[0])
    for trial in sorted((finished / "trials").iterdir()):
        assert json.loads((trial / "status.json").read_text())["status"] in ("completed", "stopped")
        predictions = np.load(trial / "best" / "val_predictions.npy", allow_pickle=False)
        assert predictions.shape == (12, 2)
        assert not (trial / "last").exists()
    assert not (finished / ".tune").exists()
    stages = json.loads((finished / "summary.json").read_text())["stages"]
    assert "hash" in stages  # others are not there where a test before made the same
    assert not (finished / "stage.json").exists()
    assert (finished / "leaderboard.csv").read_text().count("\n") == 7


def test_stored_predictions_are_those_of_the_best_epoch(finished: Path) -> None:
    run = open_run(finished)
    labels = run.manifest().labels("validation")
    for row in run.rows():
        predictions = np.load(run.folder.trial(row.trial_id).best_predictions)
        assert np.mean(predictions.argmax(axis=1) == labels) == pytest.approx(row.best_val_accuracy)


@pytest.mark.parametrize("family", ["conv", "transfer"])
def test_the_kept_checkpoint_predicts_as_it_did_in_training(finished: Path, family: str) -> None:
    run = open_run(finished)
    row = next(row for row in run.rows() if row.family == family)
    # Features are kept in float16: a head that is hardly penalised shows their 11 bits of mantissa.
    assert_answers_as_trained(run.best(row.trial_id), run, row.trial_id, atol=2e-2)


def test_test_and_predict_agree_on_every_image(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = pawtune(capsys, "test", finished, "--json").json
    assert first["n"] == 12
    low, high = first["interval_95"]
    assert low <= first["accuracy"] <= high
    assert list(first)[:7] == [
        "accuracy", "correct", "n", "interval_95", "trial_id", "baseline", "looks"
    ]  # fmt: skip
    assert sum(map(sum, first["confusion"])) == 12
    assert len(first["mistakes"]) == 12 - first["correct"]
    ledger = (finished / "test.jsonl").read_text().splitlines()
    assert json.loads(ledger[0])["classes"] == first["classes"]
    out = tmp_path / "best.keras"
    assert pawtune(capsys, "best", finished, "--out", out).code == 0
    entries = open_run(finished).manifest().split("test")
    root = Path(open_run(finished).manifest().root)
    paths = [root / entry.path for entry in entries]
    labels = pawtune(capsys, "predict", out, *paths, "--json").json
    assert [item["path"] for item in labels] == [str(path) for path in paths]
    hits = sum(item["label"] == entry.label for item, entry in zip(labels, entries, strict=True))
    assert hits == first["correct"]
    assert f"look {first['looks'] + 1}" in pawtune(capsys, "test", finished).out
    reference = pawtune(capsys, "test", finished, "--trial", "0001")  # the first trial
    assert "on the same images" not in reference.out  # it is not compared with itself


def test_the_model_needs_nothing_of_ours(delivered: Path) -> None:
    model = keras.models.load_model(delivered, compile=False, safe_mode=True)
    raw = np.random.default_rng(0).integers(0, 256, (2, 45, 61, 3), dtype=np.uint8)
    probabilities = model.predict(raw, verbose=0)
    assert probabilities.shape == (2, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_predict_goes_through_folders_and_names_what_it_cannot_read(
    delivered: Path, tiny_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(tiny_images / "red", folder)
    (folder / "broken.jpg").write_bytes(b"no picture")
    results = pawtune(capsys, "predict", delivered, folder, "--json").json
    assert len(results) == 41
    assert [item["path"] for item in results if item["label"] is None] == [
        str(folder / "broken.jpg")
    ]


def test_a_changed_test_image_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    shutil.copytree(finished.parent.parent / "images", images)
    victim = images / open_run(finished).manifest().split("test")[0].path
    Image.new("RGB", (48, 40)).save(victim)
    refused = pawtune(capsys, "test", finished, "--data", images)
    assert refused.code == 2
    assert f"{victim} has other content now" in refused.err
    victim.unlink()
    assert "cannot be read" in pawtune(capsys, "test", finished, "--data", images).err


def test_show_tells_all_of_a_trial(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    details = pawtune(capsys, "show", finished, "0001", "--json").json
    assert details["trial_id"] == "0001"
    assert [row["epoch"] for row in details["history"]] == list(range(1, details["epochs"] + 1))
    assert details["facts"]["num_weights"] > 0
    assert details["name"] in pawtune(capsys, "show", finished, "0001").out


@pytest.mark.slow
def test_a_recorded_configuration_runs_again(
    finished: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = pawtune(
        capsys, "run", "--config", finished / "search.yaml", "--name=again", "--trials=1",
        "--epochs=1", "--runs-dir", runs_dir, "--json",
    )  # fmt: skip
    assert again.code == 0
    assert again.json["run"] == "again"
    assert len(again.json["leaderboard"]) == 1


def test_a_dry_run_trains_nothing(
    tiny_images: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["run", "--data", tiny_images, *QUICK, "--families=conv", "--runs-dir", runs_dir]
    planned = pawtune(capsys, *common, "--dry-run", "--json").json
    assert planned["counts"]["test"] == {"blue": 6, "red": 6}
    assert planned["cost"]["epochs_at_most"] == 48
    assert not runs_dir.exists()
    assert "nothing was trained" in pawtune(capsys, *common, "--dry-run").out


@pytest.mark.slow
def test_a_search_in_which_every_trial_diverges_says_so(
    tiny_images: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The decay alone multiplies every weight by 0.004 * 1e38 at each of an epoch's 7 steps: beyond
    # float32 at the second, whatever the gradients are, and so on any processor.
    explosive = ["learning_rate=1e38", "optimizer=adamw", "batch_size=8", "batch_norm=false"]
    options = [*QUICK, "--families=conv", "--name=bad", "--runs-dir", runs_dir]
    settings = [f"--set=space.{setting}" for setting in explosive]
    ended = pawtune(capsys, "run", "--data", tiny_images, *options, *settings)
    assert ended.code == 1
    assert "every trial fails alike: DivergedError" in ended.out
    assert "no trial finished an epoch" in ended.err
    board = pawtune(capsys, "leaderboard", "bad", "--runs-dir", runs_dir, "--json").json
    assert 3 <= len(board) < 24
    assert {row["status"] for row in board} <= {"failed", "stopped", "pending"}
    assert board[-1]["best_val_accuracy"] is None
