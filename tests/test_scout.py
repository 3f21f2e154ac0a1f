"""Several backbones are ranked on a few images, and only the best get full passes."""

from pathlib import Path

import keras
import numpy as np

from pawtune.search.config.search_config import load_config
from pawtune.search.driver import run_search
from pawtune.search.progress.reporter import Reporter
from pawtune.search.report.page import write_report
from pawtune.search.shared_work.scout import is_clearly_behind, sample_size, stratified_sample


def test_the_sample_has_every_class_in_turn() -> None:
    labels = np.repeat([0, 1, 2], [900, 90, 10])
    chosen = stratified_sample(labels, sample_size(len(labels)), seed=0)
    assert len(chosen) == len(set(chosen)) == 80
    assert np.bincount(labels[chosen]).tolist() == [35, 35, 10]
    assert (chosen == stratified_sample(labels, 80, seed=0)).all()
    assert (chosen != stratified_sample(labels, 80, seed=1)).any()


def test_only_what_chance_does_not_explain_is_clearly_behind() -> None:
    best = np.arange(100) < 90
    assert is_clearly_behind(np.arange(100) < 60, best)
    assert not is_clearly_behind(np.arange(100) < 86, best)
    assert not is_clearly_behind(best, best)


def test_a_backbone_that_sees_nothing_is_ranked_last_and_left_out(
    tmp_path: Path, tiny_images: Path, ray_cluster: object
) -> None:
    places = {}
    for name in ("MobileNetV2", "MobileNet"):
        keras.utils.set_random_seed(0)
        make = getattr(keras.applications, name)
        net = make(include_top=False, weights=None, input_shape=(32, 32, 3))
        if name == "MobileNet":  # the same features for every image
            net.set_weights([np.zeros_like(weight) for weight in net.get_weights()])
        places[name] = tmp_path / f"{name}.weights.h5"
        net.save_weights(places[name])
    config = load_config(
        None,
        [],
        {
            "data": str(tiny_images), "name": "scouted", "runs_dir": str(tmp_path / "runs"),
            "weights": ",".join(f"{name}={place}" for name, place in places.items()),
            "space.backbone": {"choices": list(places)}, "image_size": [32],
            "families": ["transfer"], "trials": 2, "speed.precision": "float32",
            "speed.keep_backbones": 1,
        },
    )  # fmt: skip
    lines: list[str] = []
    reporter = Reporter(quiet=True)
    reporter.say = lines.append  # type: ignore[method-assign]
    run = run_search(config, reporter)
    (line,) = [line for line in lines if line.startswith("backbones by a head solved on")]
    assert line.index("MobileNetV2 ") < line.index("MobileNet ")
    assert line.endswith("s, left out)")
    assert {row.params["backbone"] for row in run.rows()} == {"MobileNetV2"}
    kept = load_config(run.folder.config_file, [], {})
    assert kept.weights == f"MobileNetV2={places['MobileNetV2']}"
    assert line[1:] in write_report(run, kind="md").read_text()
