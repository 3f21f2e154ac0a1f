"""Temperatures are right on golden values, and inside the delivered model."""

from pathlib import Path

import keras
import numpy as np
import pytest

from pawtune.models.complete_model import compose_complete
from pawtune.models.families.conv import ConvSpec
from pawtune.models.out_of_fold.calibration import choose_temperature, cross_fitted, tempered
from pawtune.search.results.metrics import calibration_error
from pawtune.search.run import Run
from tests.command_line import pawtune
from tests.networks import network_of
from tests.run_folders import RunMaker, make_images


def overconfident(count: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities at half the temperature that they should have, and labels."""
    rng = np.random.default_rng(0)
    true = rng.dirichlet(np.ones(4), count)
    labels = np.array([rng.choice(4, p=row) for row in true])
    return tempered(true, 0.5), labels


def test_the_temperature_is_found_and_labels_stay() -> None:
    p, labels = overconfident()
    assert choose_temperature(p, labels) == pytest.approx(2, abs=0.15)
    after = cross_fitted(p, labels, np.arange(len(labels)))
    np.testing.assert_array_equal(after.argmax(axis=1), p.argmax(axis=1))
    assert calibration_error(after, labels) < calibration_error(p, labels) / 3
    np.testing.assert_allclose(tempered(tempered(p, 3.0), 1 / 3), p, atol=1e-5)


def test_images_that_are_all_right_leave_the_temperature_finite() -> None:
    sure = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    assert choose_temperature(sure, np.array([0, 1, 2, 0])) == pytest.approx(1, abs=0.05)
    doubtful = 0.7 * sure + 0.1
    assert 0.3 < choose_temperature(doubtful, np.array([0, 1, 2, 0])) < 1
    assert choose_temperature(sure[:0], np.zeros(0, int)) == 1


def make_run(folder: Path) -> Run:
    """A run of one trial with weights, whose validation predictions are overconfident."""
    maker = RunMaker(folder, make_images(folder / "images", ["a", "b"], 120), image_size=[32])
    trial = maker.folder.trial(maker.add_net(ConvSpec(image_size=32, filters=(8, 8))))
    run = Run(maker.finish())
    labels = run.manifest().labels("validation")
    told = np.where(np.arange(len(labels)) % 3 == 0, 1 - labels, labels)
    np.save(trial.best_predictions, np.eye(2, dtype=np.float32)[told] * 0.98 + 0.01)
    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("calibration"))


def test_the_delivered_model_has_it_inside(
    made: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, file = made.save_best(tmp_path / "best.keras")
    model = keras.models.load_model(file, compile=False, safe_mode=True)
    card = made.model_and_card(made.choose())[1]["calibration"]
    assert card["temperature"] > 2
    assert card["error_after"] < card["error_before"] * 2 / 3
    spec = made.folder.trial("0001")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 40, 48, 3), dtype=np.uint8)
    before = tempered(model.predict(pixels, verbose=0), 1 / card["temperature"])

    plain = made.folder.spec_of(spec.trial_id).model
    core = network_of(plain, 2, seed=0).core
    expected = compose_complete(plain, 2, core).predict(pixels, verbose=0)
    np.testing.assert_allclose(before, expected, atol=1e-5)
    assert "inside the model" in file.with_suffix(".md").read_text()
    for name in ("lite.tflite", "graph.onnx"):
        _, exported = made.export(tmp_path / name, name.partition(".")[2])
        assert exported.max_difference < 0.01
    session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "graph.onnx")
    (answer,) = session.run(None, {session.get_inputs()[0].name: pixels})
    np.testing.assert_allclose(answer, model.predict(pixels, verbose=0), atol=1e-3)
    look = pawtune(capsys, "test", made.folder.root, "--json").json
    assert 0 <= look["calibration_error"] != look["calibration_error_before"]
    report = pawtune(capsys, "report", made.folder.root)
    assert report.code == 0
    assert "Reliability diagram" in (made.folder.root / "report.html").read_text()


def test_a_temperature_is_one_layer_of_keras() -> None:
    spec = ConvSpec(image_size=32, filters=(4,))
    core = network_of(spec, 3, seed=0).core
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    plain = compose_complete(spec, 3, core).predict(pixels, verbose=0)
    warm = compose_complete(spec, 3, core, temperature=2.0)
    assert isinstance(warm.get_layer("calibration"), keras.layers.Rescaling)
    np.testing.assert_allclose(warm.predict(pixels, verbose=0), tempered(plain, 2.0), atol=1e-6)
