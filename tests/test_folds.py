"""The best trial predicts what it was trained without; labels of the test split on request."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from scipy.special import softmax

from pawtune.models.families.conv import ConvSpec
from pawtune.models.families.family import Backbone, Bank, ViewBank
from pawtune.models.features.augmented_views import make_view_table
from pawtune.models.out_of_fold.leave_out import deal_folds
from pawtune.models.training.solved_heads import decompose, solve_ridge
from pawtune.search.out_of_fold.run_features import SeenImages, find_backbone, read_features
from pawtune.search.progress.reporter import Reporter
from pawtune.search.results.look_ledger import read_ledger
from pawtune.search.results.model_choice import choose_row
from pawtune.search.retraining.folds import FoldArrays, folds_cost, predict_by_folds
from pawtune.search.run import Run
from tests.command_line import pawtune
from tests.run_folders import RunMaker, make_images
from tests.tiny_run import search_untrained

if TYPE_CHECKING:
    from pawtune.search.worker.trial_data import SharedArrays

pytestmark = pytest.mark.usefixtures("ray_cluster")


def search(folder: Path, images: Path, settings: list[str], **given: Any) -> Run:
    return search_untrained(folder, images, "scheduler.name=none", *settings, epochs=2, **given)


@pytest.fixture(scope="module")
def searched(
    tmp_path_factory: pytest.TempPathFactory, tiny_images: Path, ray_cluster: object
) -> Run:
    """A search of all families."""
    small = ["space.conv_depth=2", "space.filters=[8]", "space.conv_dense_width=0"]
    families = ["transfer", "finetune", "conv"]
    folder = tmp_path_factory.mktemp("folds")
    return search(folder, tiny_images, small, trials=8, families=families)


def ways(run: Run) -> dict[str, str]:
    """A trial of each way of training."""
    return {
        run.folder.trial(row.trial_id).read_facts().training: row.trial_id for row in run.rows()
    }


def predicted(run: Run, trial_id: str) -> np.ndarray:
    row = choose_row(run.rows(), trial=trial_id)
    quiet = Reporter(quiet=True)
    return predict_by_folds(
        run.folder, run.manifest(), row, data=None, address=None, reporter=quiet
    )


def test_a_solved_head_predicts_each_fold_as_by_hand(searched: Run) -> None:
    trial_id = next(
        row.trial_id
        for row in searched.rows()
        if (row.params.get("head"), row.params.get("taps")) == ("ridge", "average")
    )
    found = predicted(searched, trial_id)
    seen = SeenImages.of(searched.manifest())
    backbone = find_backbone(searched.folder, searched.rows())
    assert backbone is not None
    features = read_features(
        searched.folder, searched.config(), searched.manifest(), backbone, lambda *_: None
    )
    x, folds = features["average"], deal_folds(seen.labels, seen.groups)
    spec = searched.folder.spec_of(trial_id).model.model_dump()
    for fold in range(5):
        out = folds == fold
        parts = decompose(x[~out], x[out])
        head = solve_ridge(parts, seen.labels[~out], 2, spec["regularisation"])
        np.testing.assert_allclose(found[out], softmax(head.val_logits, axis=1), atol=1e-3)


def test_every_way_of_training_predicts_what_it_was_trained_without(searched: Run) -> None:
    found = ways(searched)
    assert {"solved", "features", "activations", "live"} <= found.keys()
    images = len(SeenImages.of(searched.manifest()).entries)
    for way in ("features", "activations", "live"):
        p = predicted(searched, found[way])
        assert p.shape == (images, 2)
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-3)


def test_a_fold_of_a_bank_is_scored_on_plain_images() -> None:
    table = make_view_table(6, 17)
    views = np.arange(6 * 17 * 2, dtype=np.float16).reshape(6, 17, 2)
    whole = SimpleNamespace(bank=lambda request: Bank(table, views, views[:1, 0]), bank_views=17)
    left_out = np.array([True, False, False, True, False, False])
    arrays = FoldArrays(cast("SharedArrays", whole), left_out)
    assert arrays.bank_views == 17
    bank = arrays.bank(ViewBank(Backbone("MobileNetV2", 32), "average"))
    np.testing.assert_array_equal(bank.table.angles, table.angles[[1, 2, 4, 5]])
    assert bank.table.rings == table.rings
    np.testing.assert_array_equal(bank.train, views[[1, 2, 4, 5]])
    np.testing.assert_array_equal(bank.validation, views[[0, 3], 0])


@pytest.mark.slow
def test_a_head_on_weighted_views_predicts_what_it_was_trained_without(
    tmp_path: Path, tiny_images: Path
) -> None:
    views = ["space.head=[trained]", "space.head_views=[weighted]"]
    run = search(tmp_path, tiny_images, views, trials=1, families=["transfer"])
    ((way, trial_id),) = ways(run).items()
    assert way == "bank"
    p = predicted(run, trial_id)
    assert p.shape == (len(SeenImages.of(run.manifest()).entries), 2)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-3)


def test_an_audit_from_cached_features_starts_no_ray(searched: Run) -> None:
    command = [sys.executable, "-m", "pawtune", "audit", str(searched.folder.root)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "decide on each in" in ended.stdout
    assert "Ray" not in ended.stderr


def make_run(folder: Path) -> Run:
    """A run of one conv net with weights, and no backbone."""
    images = make_images(folder / "images", ["a", "b"], 40)
    maker = RunMaker(folder, images, image_size=[32], epochs=2)
    maker.add_net(ConvSpec(image_size=32, filters=(8, 8)))
    return Run(maker.finish())


def test_a_run_without_a_backbone_is_audited_by_its_best_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path)
    root = run.folder.root
    refused = pawtune(capsys, "audit", root, "--test")
    assert refused.code == 2
    assert "needs a frozen backbone, and run made has none; give --retrain" in refused.err
    assert read_ledger(run.folder) == []  # refused before the look
    (row,) = run.rows()
    found = pawtune(capsys, "audit", root, "--retrain", "--json")
    assert found.code == 0, found.err
    assert f"training {row.name} 5 times, each without a fifth of the images" in found.err
    assert f"about {folds_cost(row)}" in found.err
    assert found.json["images"] == len(SeenImages.of(run.manifest()).entries)
    assert found.json["backbone"] is None
    assert found.json["look"] is None
    again = pawtune(capsys, "audit", root, "--retrain", "--test")
    assert "training" not in again.err.partition("audit")[0]  # kept in the run
    assert f"by {row.name}, trained without its fifth of the images" in again.out
    assert "copies and outliers need a frozen backbone" in again.out
    assert "this was look 1 at the test split" in again.out
    assert len(read_ledger(run.folder)) == 1
    assert "look 1 at the\ntest split." in (run.folder.audit_dir / "index.html").read_text()
    assert pawtune(capsys, "test", root, "--json").json["looks"] == 2
