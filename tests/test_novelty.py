"""Novelty: what it says of images unlike any other, and that models and runs keep what it needs."""

import csv
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from pawtune.models.backbones.frozen_backbone import load_backbone
from pawtune.models.families.transfer import TransferSpec
from pawtune.models.features.novelty import Novelty, images_kept
from pawtune.search.results.delivery.model_file import NOVELTY_MEMBER
from pawtune.search.run import Run
from pawtune.search.storage.run_folder import write_json
from tests.command_line import pawtune
from tests.networks import save_random_backbone
from tests.run_folders import RunMaker, make_images
from tests.test_calibration import make_run as make_conv_run


def test_images_like_no_other_are_above_1_and_a_twentieth_of_known_ones() -> None:
    rng = np.random.default_rng(0)
    centres = 3 * rng.normal(size=(8, 30))
    known = centres[rng.integers(0, 4, 900)] + rng.normal(size=(900, 30))
    novelty = Novelty.fitted(known[:400], known[400:600])
    assert float((novelty.score(known[600:]) > 1).mean()) == pytest.approx(0.05, abs=0.03)
    strange = centres[rng.integers(4, 8, 50)] + rng.normal(size=(50, 30))
    assert (novelty.score(strange) > 1).all()
    again = Novelty.unpacked(novelty.packed(), novelty.threshold)
    np.testing.assert_array_equal(again.score(strange), novelty.score(strange))
    assert images_kept(1280) == 2000
    assert images_kept(40_000) == 100


def make_run(folder: Path) -> Run:
    """A run of one linear head on an untrained backbone."""
    maker = RunMaker(folder, make_images(folder / "images", ["a", "b"], 120), image_size=[32])
    weights = maker.folder.backbones_dir / "MobileNetV2-32.weights.h5"
    weights.parent.mkdir()
    save_random_backbone(weights)
    facts = {"source_hash": "0" * 64, "num_weights": 2257984, "num_features": 1280}
    write_json(weights.with_name("MobileNetV2-32.json"), facts)
    model = TransferSpec(image_size=32)
    maker.add_net(model, backbone=load_backbone("MobileNetV2", 32, weights))
    return Run(maker.finish())


def test_a_net_from_scratch_has_no_novelty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its features know little besides its classes: what it said would be of no use."""
    run = make_conv_run(tmp_path)
    image = Path(run.manifest().root) / run.manifest().split("validation")[0].path
    (record,) = pawtune(capsys, "predict", run.folder.root, image, "--json").json
    assert record["label"] in ("a", "b")
    assert "novelty" not in record
    assert not run.folder.novelty_dir.exists()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("novelty"))


def test_the_column_is_the_same_from_the_file_and_the_run(
    made: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, images = made.folder.root, Path(made.manifest().root)
    best = tmp_path / "best.keras"
    assert pawtune(capsys, "best", root, "--out", best).code == 0
    assert (made.folder.novelty_dir / "0001.npy").exists()
    shutil.move(images, tmp_path / "moved")  # what the run keeps suffices
    try:
        folders = [tmp_path / "moved" / "a", tmp_path / "moved" / "b"]
        of_file = pawtune(capsys, "predict", best, *folders, "--json").json
        of_run = pawtune(capsys, "predict", root, *folders, "--json").json
    finally:
        shutil.move(tmp_path / "moved", images)
    found = np.array([record["novelty"] for record in of_file])
    np.testing.assert_allclose(found, [record["novelty"] for record in of_run], atol=1e-3)
    paths = {Path(entry.path).name for entry in made.manifest().split("validation")}
    assert len(paths) > 10
    assert 0 < (found > 1).mean() < 0.15
    assert (found < 1e-2).any()  # training images are their own neighbours
    out = tmp_path / "labels.csv"
    assert pawtune(capsys, "predict", best, images / "a", "--out", out).code == 0
    with out.open(newline="") as stream:
        assert next(csv.reader(stream)) == ["path", "label", "confidence", "reason", "novelty"]
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    lines = pawtune(capsys, "predict", best, tmp_path / "a.jpg", images / "a" / "000.jpg").out
    header, unreadable, read = (line.split("\t") for line in lines.splitlines())
    assert header == ["path", "label", "confidence", "reason", "novelty"]
    assert unreadable[-1] == ""
    assert float(read[-1]) >= 0
    assert keras.models.load_model(best, compile=False, safe_mode=True).output_shape == (None, 2)


def test_a_damaged_member_is_refused_and_without_images_there_is_no_column(
    made: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = Path(made.manifest().root)
    _, file = made.save_best(tmp_path / "best.keras")
    damaged = tmp_path / "damaged.keras"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(damaged, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content[:500] if name == NOVELTY_MEMBER else content)
    ended = pawtune(capsys, "predict", damaged, images / "a")
    assert ended.code == 2
    assert "its novelty.npy: it is cut short" in ended.err
    shutil.copytree(made.folder.root, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "novelty")
    shutil.move(images, tmp_path / "moved")
    try:
        records = pawtune(
            capsys, "predict", tmp_path / "copy", tmp_path / "moved" / "a", "--json"
        ).json
    finally:
        shutil.move(tmp_path / "moved", images)
    assert all("novelty" not in record for record in records)
