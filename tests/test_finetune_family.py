"""The family `finetune` through a real search: its cache, its file, resume and reproduction."""

import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from pawtune.models.families.family import Activations, Backbone
from pawtune.models.families.finetune import FINETUNE, FinetuneSpec
from pawtune.models.model_spec import TrainSpec
from pawtune.search.config.search_config import dump_config
from pawtune.search.driver import resume_search
from pawtune.search.dry_run import describe
from pawtune.search.progress.reporter import Reporter
from pawtune.search.report.budget import budget
from pawtune.search.report.data import read_report_data
from pawtune.search.run import Run
from tests.command_line import pawtune
from tests.run_folders import split_trial
from tests.tiny_run import assert_answers_as_trained, search_untrained

pytestmark = pytest.mark.usefixtures("ray_cluster")
TRIALS = 7  # the first heads of the portfolio, that of fine-tuning, and a proposal


@pytest.fixture(scope="module")
def searched(
    tmp_path_factory: pytest.TempPathFactory, tiny_images: Path, ray_cluster: object
) -> Run:
    """A search on a backbone with random weights."""
    folder = tmp_path_factory.mktemp("tuned")
    given = {"families": ["transfer", "finetune"], "trials": TRIALS, "epochs": 2}
    return search_untrained(folder, tiny_images, "scheduler.name=none", **given)


def tuned(run: Run) -> list[str]:
    """Fine-tuned trials in the order in which they were proposed."""
    rows = [row for row in run.rows() if row.params["family"] == "finetune"]
    assert all(row.status == "completed" for row in rows), rows
    return sorted(row.trial_id for row in rows)


def test_fine_tuned_trials_follow_the_heads_and_share_their_activations(searched: Run) -> None:
    assert tuned(searched) == ["0006", "0007"]
    facts = searched.folder.trial("0006").read_facts()
    assert facts.training == "activations"
    first = searched.folder.trial("0006").read_metrics()[0]
    assert first["learning_rate"] == 0  # the solved head, before anything is trained
    stages = searched.summary()["stages"]
    made = [name for name in stages if name.startswith("activations of MobileNetV2 at 32 px")]
    assert made  # a job that ends between two looks of the driver has no stage


def test_the_report_says_what_each_way_of_training_brought(searched: Run) -> None:
    lines = budget(read_report_data(searched)).lines
    (line,) = [line for line in lines if line.startswith("Best validation accuracy by stage: ")]
    solved, trained, tuned = line.removeprefix("Best validation accuracy by stage: ").split("; ")
    assert re.fullmatch(r"solved \d\.\d{3} \(4 trials, .* s\)", solved)
    assert re.fullmatch(r"trained \d\.\d{3}, [+-]\d+\.\d points \(1 trial, .*\)", trained)
    assert re.fullmatch(r"fine-tuned \d\.\d{3}, [+-]\d+\.\d points \(2 trials, .*\)\.", tuned)


def test_a_dry_run_prices_what_trials_share(
    searched: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = describe(searched.config().model_copy(update={"name": None}), Reporter(quiet=True))
    shared = {part.name: part for part in plan.shared}
    counts = {split: len(searched.manifest().split(split)) for split in ("train", "validation")}
    features = shared["features of MobileNetV2 at 32 px"]
    assert features.passes == sum(counts.values())
    assert all(part.seconds > 0 for part in plan.shared)
    decomposition = shared["one decomposition of MobileNetV2 at 32 px"]
    assert "passes" not in str(decomposition)
    kept = 32 * 32 * 3 * sum(counts.values())
    assert plan.cost()["decoded_megabytes"] == round(kept / 1e6, 1) > 0
    cuts = [part for name, part in shared.items() if name.startswith("activations")]
    assert cuts
    assert cuts[0].passes == 5 * counts["train"] + counts["validation"]
    plan.show(None)
    assert f"  {features}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_dry_run_says_nothing_of_tensorflow(searched: Run, tmp_path: Path) -> None:
    """A process of its own, whose stderr TensorFlow's banners would reach."""
    settings = tmp_path / "again.yaml"
    settings.write_text(dump_config(searched.config().model_copy(update={"name": None})))
    command = [sys.executable, "-m", "pawtune", "run", "--config", str(settings), "--dry-run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "activations of MobileNetV2" in done.stdout
    assert "oneDNN" not in done.stderr


def test_the_delivered_file_predicts_as_training_did(searched: Run, tmp_path: Path) -> None:
    file = tmp_path / "model.keras"
    searched.best("0007").save(file)
    model = keras.models.load_model(file, compile=False, safe_mode=True)
    assert_answers_as_trained(model, searched, "0007", atol=2e-3)


def test_tops_above_one_cut_are_averaged_in_weights(
    searched: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The validation images are predicted again, by what the cut gives of them."""
    run = split_trial(searched, "0007", tmp_path / "halves")
    root = run.folder.root
    gone = pawtune(capsys, "ensemble", root, "--soup", "--data", tmp_path / "nowhere")
    assert gone.code == 2
    assert "the images of run halves are needed again" in gone.err
    soup = pawtune(capsys, "ensemble", root, "--soup", "--json").json
    assert (soup["method"], soup["wins"], soup["kept"], soup["candidates"]) == (
        "soup", True, True, 2,
    )  # fmt: skip
    kept = np.load(searched.folder.trial("0007").best_predictions)
    decided = np.load(root / "ensemble" / "val_predictions.npy")
    np.testing.assert_allclose(decided, kept, atol=2e-3)
    model = keras.models.load_model(root / "ensemble" / "model.keras", compile=False)
    temperature = soup["temperature"]
    assert_answers_as_trained(model, searched, "0007", atol=2e-3, temperature=temperature)
    assert model.count_params() == searched.best("0007").count_params()
    assert pawtune(capsys, "report", root).code == 0


@pytest.mark.slow
def test_it_is_reproduced_refitted_voted_and_reported(
    searched: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    root = searched.folder.root
    again = pawtune(capsys, "reproduce", root, "--trial", "0006", "--json")
    assert again.code == 0, again.err
    refit = pawtune(capsys, "refit", root, "--trial", "0006", "--json")
    assert refit.code == 0, refit.err
    assert refit.json["train_images"] == 56
    vote = pawtune(capsys, "ensemble", root, "--top", "7", "--anyway", "--json")
    assert vote.code == 0, vote.err
    lines = budget(read_report_data(searched)).lines
    assert [
        line for line in lines if re.search(r"; vote of 7 \d\.\d{3}, .* points \(.*\)\.$", line)
    ]
    assert pawtune(capsys, "report", root).code == 0


def test_an_interrupted_trial_is_run_to_the_same_end(searched: Run) -> None:
    folder = searched.folder.trial("0007")
    before = folder.read_metrics()
    folder.write_status("stopped", reason="interrupted")
    resume_search(searched.folder, reporter=Reporter(quiet=True))
    assert [row["epoch"] for row in folder.read_metrics()] == [1, 2]
    assert folder.read_metrics()[-1]["val_loss"] == pytest.approx(before[-1]["val_loss"], abs=1e-3)


def test_a_point_becomes_a_specification_and_back() -> None:
    point = {"image_size": 224, **FINETUNE.portfolio[0], "tune_backbone": "MobileNetV2"}
    model, train = FINETUNE.to_spec(point, TrainSpec(epochs=20, seed=3))
    assert (train.epochs, train.optimizer, train.seed) == (9, "adamw", 3)
    assert {"image_size": 224, **(FINETUNE.to_params(model, train) or {})} == point
    assert FINETUNE.to_spec(point, TrainSpec(epochs=2))[1].epochs == 2  # no more than asked for
    key = Backbone("MobileNetV2", 224)
    assert Activations(key, 0.25, 5) in FINETUNE.needs(model, 0)


def test_without_its_backbone_it_is_refused() -> None:
    with pytest.raises(ValueError, match="needs its backbone, MobileNetV2, received none"):
        FINETUNE.build_core(FinetuneSpec(), 3, {})
