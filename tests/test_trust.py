"""From a finished search on `sample` to reproduced, confirmed, refit and voted models."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from pawtune.data_pipeline.cache import cache_dir
from pawtune.data_pipeline.sources.sample import make_sample
from pawtune.models.out_of_fold.calibration import tempered
from pawtune.search.results.calibration import trial_temperature
from pawtune.search.run import Run, open_run
from pawtune.search.storage.run_folder import read_json
from tests.command_line import pawtune
from tests.networks import save_random_backbone

# `test_solved_trials` goes through the same verbs with solved heads, in seconds.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


def search(folder: Path, data: str) -> Path:
    """A finished search with trials of both families."""
    from pawtune.search.config.search_config import load_config
    from pawtune.search.driver import run_search

    weights = folder / "mobilenet_v2.weights.h5"
    save_random_backbone(weights)
    space = ["conv_depth=2", "filters=[8, 16]", "conv_dense_width=[0, 16]", "head_dense_width=16"]
    space += ["head=trained", "head_views=weighted"]  # not the solved heads of the portfolio
    options = {
        "data": data,
        "name": "pets",
        "runs_dir": str(folder / "runs"),
        "weights": str(weights),
        "image_size": [32],
        "epochs": 2,
        "trials": 4,
        "families": ["conv", "transfer"],
        "baselines": "off",
    }
    run = run_search(load_config(None, [f"space.{item}" for item in space], options))
    assert {row.family for row in run.rows()} == {"conv", "transfer"}
    return run.folder.root


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, ray_cluster: object) -> Path:
    """A finished search on fewer pictures of the kind of `sample`; never altered."""
    folder = tmp_path_factory.mktemp("trust")
    make_sample(folder / "images", per_class={"train": 60, "validation": 30, "test": 20})
    return search(folder, str(folder / "images"))


@pytest.fixture
def pets(searched: Path, tmp_path: Path) -> Run:
    """A copy of the search, elsewhere, that a test may alter."""
    shutil.copytree(searched, tmp_path / "runs" / "pets")
    return open_run("pets", tmp_path / "runs")


def trial_of(run: Run, family: str) -> str:
    return next(row.trial_id for row in run.rows() if row.family == family)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("family", ["conv", "transfer"])
def test_a_trial_is_reproduced_to_the_last_digit(
    searched: Path, family: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(searched)
    trial_id = trial_of(open_run(searched), family)
    told = pawtune(capsys, "reproduce", searched, "--trial", trial_id, "--json")
    assert told.code == 0
    result = told.json
    assert result["identical"]
    assert result["matches"]
    assert result["tolerance"] == 0
    assert result["changed"] == []
    assert result["prediction_difference"] == 0
    assert [pair["epoch"] for pair in result["pairs"]] == [1, 2]
    for pair in result["pairs"]:
        assert pair["recorded"] == pair["again"]
        assert len(pair["recorded"]) == 6
    assert contents(searched) == before  # the run folder is only read


def test_a_figure_that_was_altered_is_found(pets: Run, capsys: pytest.CaptureFixture[str]) -> None:
    trial = pets.folder.trial(trial_of(pets, "conv"))
    rows = trial.read_metrics()
    rows[1]["val_loss"] += 1e-9
    trial.write_metrics(rows)
    told = pawtune(capsys, "reproduce", pets.folder.root, "--trial", trial.trial_id)
    assert told.code == 1
    assert f"does not match (tolerance 0): epoch 2: val_loss was {rows[1]['val_loss']}" in told.out
    again = pawtune(
        capsys, "reproduce", pets.folder.root, "--trial", trial.trial_id, "--tolerance=1e-6"
    )
    assert again.code == 0
    # Some 1e-9: losses are recorded with so many digits.
    assert re.search(r"at most (9\.\d+e-10|1(\.\d+)?e-09) \(tolerance 1e-06\)", again.out), (
        again.out
    )


@pytest.mark.slow
def test_on_the_built_in_sample_every_digit_comes_back_with_a_new_bank_too(tmp_path: Path) -> None:
    run = open_run(search(tmp_path, "sample"))
    shutil.rmtree(cache_dir() / "banks")
    for family in ("conv", "transfer"):
        result = run.reproduce(trial_of(run, family))
        assert result.identical
        assert result.tolerance == 0


@pytest.mark.slow
def test_a_copy_is_reproduced_with_the_images_elsewhere(
    pets: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    shutil.copytree(pets.manifest().root, images)
    config = pets.folder.config_file
    config.write_text(config.read_text().replace(pets.manifest().root, str(tmp_path / "gone")))
    header = json.loads((pets.folder.root / "manifest.json").read_text())
    header["root"] = str(tmp_path / "gone")
    (pets.folder.root / "manifest.json").write_text(json.dumps(header))
    arguments = ("reproduce", pets.folder.root, "--trial", trial_of(pets, "conv"))
    lost = pawtune(capsys, *arguments)
    assert lost.code == 2
    assert "give the place where they are now with --data" in lost.err
    assert pawtune(capsys, *arguments, "--data", images, "--json").json["identical"]
    victim = images / pets.manifest().split("train")[0].path
    victim.write_bytes(b"no picture")
    changed = pawtune(capsys, *arguments, "--data", images)
    assert changed.code == 2
    assert f"{victim} has other content now" in changed.err


def test_confirm_trains_with_other_seeds_and_goes_on_where_it_ended(
    pets: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    root = pets.folder.root
    trials, board = contents(pets.folder.trials_dir), pets.rows()
    result = pawtune(capsys, "confirm", root, "--top=2", "--seeds=2", "--json").json
    assert [trial["trial_id"] for trial in result["trials"]] == [r.trial_id for r in board[:2]]
    for trial, row in zip(result["trials"], board, strict=False):
        assert trial["searched"]["score"] == row.best_val_accuracy
        assert [repeat["seed"] for repeat in trial["repeats"]] == [10_000, 20_000]
        assert [repeat["epochs"] for repeat in trial["repeats"]] == [2, 2]
        scores = [repeat["score"] for repeat in trial["repeats"]]
        assert trial["mean_of_others"] == pytest.approx(np.mean(scores))
        everything = [row.best_val_accuracy, *scores]
        assert trial["mean"] == pytest.approx(np.mean(everything))
        assert trial["deviation"] == pytest.approx(np.std(everything, ddof=1))
        assert (trial["lowest"], trial["highest"]) == (min(everything), max(everything))
    # Nothing of it is the search's.
    assert contents(pets.folder.trials_dir) == trials
    assert pets.rows() == board
    # One retraining is lost, one is cut off: the others are not repeated.
    folders = sorted(path for path in pets.folder.confirm_dir.iterdir() if path.is_dir())
    assert len(folders) == 4
    shutil.rmtree(folders[0])
    kept = {path.name: contents(path) for path in folders[1:]}
    again = pawtune(capsys, "confirm", root, "--top=2", "--seeds=2", "--json")
    assert again.json == result
    assert "3 of 4 are there already" in again.err
    assert {path.name: contents(path) for path in folders[1:]} == kept
    shown = pawtune(capsys, "confirm", root, "--top=2", "--seeds=2", "--data=nowhere")
    assert shown.code == 0  # all is there: neither images nor a cluster are asked for
    assert "on average with other seeds" in shown.out


def test_a_refit_is_trained_on_both_splits_and_scored(
    pets: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, trial_id = pets.folder.root, trial_of(pets, "transfer")
    early = pawtune(capsys, "test", root, "--refit")
    assert early.code == 2
    assert "--refit needs a trial that `pawtune refit` has trained" in early.err
    refit = pawtune(capsys, "refit", root, "--trial", trial_id, "--json").json
    counts = {split: sum(n.values()) for split, n in pets.manifest().counts().items()}
    assert (refit["train_images"], refit["validation_images"]) == (120, counts["validation"])
    row = next(row for row in pets.rows() if row.trial_id == trial_id)
    assert refit["epochs"] == row.best_epoch
    weights = pets.folder.refit_dir / trial_id / "best" / "core.weights.h5"
    assert weights.read_bytes() != pets.folder.trial(trial_id).best_weights.read_bytes()
    look = pawtune(capsys, "test", root, "--refit", "--json").json
    assert (look["model"], look["trial_id"], look["looks"]) == ("refit", trial_id, 1)
    out = tmp_path / "refit.keras"
    assert pawtune(capsys, "best", root, "--refit", "--out", out).code == 0
    card = json.loads(out.with_suffix(".json").read_text())
    assert card["model"] == "refit"
    assert card["test"]["accuracy"] == look["accuracy"]
    page = out.with_suffix(".md").read_text()
    assert f"trained again on its 120 training and {counts['validation']} validation" in page
    assert "No validation images were left" in page
    assert "validation, of the trial before it was refit" in page


def test_a_refit_of_a_conv_net_is_trained_on_pixels_of_both_splits(pets: Run) -> None:
    trial_id = trial_of(pets, "conv")
    pets.refit(trial_id)
    facts = read_json(pets.folder.refit_dir / trial_id / "facts.json")
    assert facts["training"] == "live"
    pixels = np.zeros((1, 50, 60, 3), np.uint8)
    refit = pets.best(pets.choose(trial_id, kind="refit")).predict(pixels, verbose=0)
    before = pets.best(trial_id).predict(pixels, verbose=0)
    assert refit.shape == before.shape == (1, 2)
    assert np.abs(refit - before).max() > 1e-6


def test_a_vote_is_kept_scored_retrieved_and_used(
    pets: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = pets.folder.root
    vote = pawtune(capsys, "ensemble", root, "--top=3", "--anyway", "--json").json
    assert vote["kept"]
    ids = [row.trial_id for row in pets.rows()[:3]]
    assert [member["trial_id"] for member in vote["members"]] == ids
    # The stored predictions are what the kept model says of the validation images.
    assert vote["correct"] == round(vote["accuracy"] * vote["images"])
    model = keras.models.load_model(
        root / "ensemble" / "model.keras", compile=False, safe_mode=True
    )
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), dtype=np.uint8)
    # A vote has a temperature of its own: that of each member is taken out again.
    members = [
        tempered(pets.best(one).predict(pixels, verbose=0), 1 / trial_temperature(pets.folder, one))
        for one in ids
    ]
    expected = tempered(np.mean(members, axis=0), vote["temperature"])
    np.testing.assert_allclose(model.predict(pixels, verbose=0), expected, atol=1e-5)
    look = pawtune(capsys, "test", root, "--ensemble", "--json").json
    assert (look["model"], look["trial_id"]) == ("ensemble", "+".join(ids))
    choice = pets.choose(kind="ensemble")
    assert pets.model_and_card(choice)[1]["calibration"]["temperature"] == vote["temperature"]
    for name in ("lite.tflite", "graph.onnx"):
        _, exported = pets.export(tmp_path / name, name.partition(".")[2], choice)
        assert exported.max_difference < 0.01
    out = tmp_path / "vote.keras"
    written = pawtune(capsys, "best", root, "--ensemble", "--out", out)
    assert "ensemble of 3 → " in written.out
    page = out.with_suffix(".md").read_text()
    assert f"the mean of the probabilities of 3 trials: {ids[0]}" in page
    assert f"| test, look 1 | {look['accuracy']:.4f} |" in page
    image = Path(pets.manifest().root) / pets.manifest().split("train")[0].path
    labels: Any = pawtune(capsys, "predict", out, image, "--json").json
    assert labels[0]["label"] in pets.manifest().class_names
    both = pawtune(capsys, "best", root, "--ensemble", "--refit")
    assert both.code == 2
    assert "--refit and --ensemble exclude each other" in both.err
    mixed = pawtune(capsys, "test", root, "--ensemble", "--rank=2")
    assert "leave those out" in mixed.err
