"""Python first: what a script, a notebook's cell and a thread hold of a search."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from optuna.trial import TrialState
from ray import tune

import pawtune as pt
from pawtune.models.families.conv import ConvSpec
from pawtune.models.model_spec import TrainSpec
from pawtune.models.spec import TrialSpec
from pawtune.search.errors import in_python_words
from pawtune.search.progress.notebook import as_html
from pawtune.search.run import Run, open_run
from pawtune.search.storage.run_folder import read_json, write_json
from tests.run_folders import RunMaker, make_images
from tests.tiny_run import TINY


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of six trials, one failed, written as files."""
    folder = tmp_path_factory.mktemp("made")
    maker = RunMaker(folder / "runs", make_images(folder / "images", ["cat", "dog"]), "made")
    maker.proposals(5)
    spec = TrialSpec(name="broken", model=ConvSpec(filters=(8,)), train=TrainSpec(epochs=10))
    maker.add(spec, status="failed", epochs=1, reason="ValueError: <b>broken</b>")
    maker.finish()
    return open_run(maker.folder.root)


def test_a_trials_history_is_a_line_an_epoch(made: Run) -> None:
    best = made.rows()[0]
    history = made.history()
    assert history["epoch"].tolist() == list(range(1, best.epochs + 1))
    assert history["val_accuracy"].max() == pytest.approx(best.best_val_accuracy)
    assert made.history(best.name).equals(made.history(best.trial_id))
    assert len(made.history("broken")) == 1, "a trial that failed has a history too"
    with pytest.raises(pt.UserError, match="received '0099'"):
        made.history("0099")


def test_the_study_holds_every_trial_with_its_parameters(made: Run) -> None:
    study = made.study
    rows = {row.name: row for row in made.rows()}
    assert {trial.user_attrs["name"] for trial in study.trials} == set(rows)
    best = made.rows()[0]
    assert study.best_trial.user_attrs["name"] == next(
        row.name for row in rows.values() if row.status == "completed"
    )
    proposed = next(t for t in study.trials if t.user_attrs["name"] == best.name)
    assert proposed.params["family"] == best.family
    states = {t.user_attrs["name"]: t.state for t in study.trials}
    assert states["broken"] == TrialState.FAIL
    stopped = [row.name for row in rows.values() if row.status == "stopped"]
    assert stopped
    assert all(states[name] == TrialState.PRUNED for name in stopped)


class TestInANotebook:
    """The rich representation of a run."""

    def test_it_shows_headline_leaderboard_and_curves(self, made: Run) -> None:
        page = made._repr_html_()
        root = ElementTree.fromstring(page)  # it is well-formed
        best = made.rows()[0]
        assert f"{best.best_val_accuracy:.4f}" in page
        assert "corrected for picking the best of" in page
        assert len(root.findall(".//tbody/tr")) == 6
        curves = root.findall(".//polyline")
        assert len(curves) == 5, "the trial that failed has no curve"
        epochs = {row.epochs for row in made.rows()[:5]}
        assert {len(curve.attrib["points"].split()) for curve in curves} == epochs

    def test_what_a_run_folder_says_is_escaped(self, made: Run, tmp_path: Path) -> None:
        maker = RunMaker(tmp_path / "runs", made.manifest(), "own")
        maker.proposals(1, families=("conv",))
        spec = maker.folder.trial("0001").spec_file
        write_json(spec, read_json(spec) | {"name": "<script>alert(1)</script>"})
        page = Run(maker.folder)._repr_html_()
        assert "<script>" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page

    def test_a_run_without_a_trial_says_so(self, made: Run, tmp_path: Path) -> None:
        maker = RunMaker(tmp_path / "runs", made.manifest(), "empty")
        assert "No trial yet." in Run(maker.folder)._repr_html_()

    def test_the_live_view_is_escaped(self) -> None:
        drawn = as_html("[bold]<img src=x>[/bold]")
        assert "&lt;img src=x&gt;" in drawn
        assert "font-weight: bold" in drawn


def test_messages_speak_of_arguments(tmp_path: Path) -> None:
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    config = pt.SearchConfig(data="sample", name="taken", runs_dir=str(tmp_path / "runs"))
    with pytest.raises(pt.UserError, match="^name must be new, received 'taken'"):
        pt.run_search(config)
    with pytest.raises(pt.UserError, match="did you mean 'trials'"):
        pt.SearchConfig(data="sample", trails=2)
    kept = "type `pawtune run --name X`; time_budget_s must be 10m"
    assert in_python_words("type `pawtune run --name X`; --time-budget must be 10m") == kept


@pytest.mark.parametrize("given", [None, 3, b"pets", ["pets"], {"data": "sample"}])
def test_values_of_other_types_are_refused_by_name(made: Run, given: Any) -> None:
    with pytest.raises(pt.UserError, match="^run must be str or Path, received "):
        pt.open_run(given)
    with pytest.raises(pt.UserError, match="^config must be SearchConfig, received "):
        pt.run_search(given)
    with pytest.raises(pt.UserError, match="^run must be Run or RunFolder, received "):
        pt.resume_search(given)


def test_settings_of_methods_are_refused_by_name(made: Run, tmp_path: Path) -> None:
    calls: list[tuple[str, Any]] = [
        ("data", lambda: made.test(3)),  # type: ignore[arg-type]
        ("data", lambda: made.test([])),  # type: ignore[arg-type]
        ("trial", lambda: made.history(1)),  # type: ignore[arg-type]
        ("rank", lambda: made.choose(rank="1")),  # type: ignore[arg-type]
        ("top", lambda: made.ensemble("3")),  # type: ignore[arg-type]
        ("seeds", lambda: made.confirm(seeds=2.5)),  # type: ignore[arg-type]
        ("out", lambda: made.export(3, "keras")),  # type: ignore[arg-type]
        ("format", lambda: made.export(tmp_path / "m", 3)),  # type: ignore[arg-type]
        ("coverage", lambda: made.predictor(coverage="0.9")),  # type: ignore[arg-type]
        ("model", lambda: made.best(3)),  # type: ignore[arg-type]
        ("model", lambda: made.refit(["0001"])),  # type: ignore[arg-type]
        ("max_latency_ms", lambda: made.best(max_latency_ms="20ms")),  # type: ignore[arg-type]
    ]
    for name, call in calls:
        with pytest.raises(pt.UserError, match=f"^{name} must be .*, received .*; see help"):
            call()
    assert made.choose(rank=np.int64(1)).row.rank == 1


def test_a_name_too_long_for_a_folder_is_that_of_no_run() -> None:
    with pytest.raises(pt.UserError, match="^RUN must be the name of a run"):
        pt.open_run("x" * 300)


def test_a_python_without_docstrings_is_refused_before_ray_is_loaded() -> None:
    code = "import pawtune as pt\ntry:\n    pt.run_search\nexcept pt.UserError as e:\n    print(e)"
    words = [sys.executable, "-OO", "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Python must keep docstrings, which Ray reads, received ")


@pytest.mark.slow
def test_a_script_whose_thread_searched_ends_well(tiny_images: Path) -> None:
    """Ray could not be shut down once the thread that had started it was gone."""
    settings = {**TINY, "data": str(tiny_images), "trials": 1, "epochs": 1, "name": "threaded"}
    code = (
        "import threading, pawtune as pt\n"
        f"config = pt.SearchConfig(**{settings!r})\n"
        "thread = threading.Thread(target=pt.run_search, args=(config,))\n"
        "thread.start()\nthread.join()\n"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "GCS" not in done.stderr
    assert open_run("threaded").summary()["counts"] == {"completed": 1}


class Notes:
    """A callback that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, int]] = []

    def on_trial_start(self, event: pt.TrialEvent) -> None:
        self.heard.append(("start", event.trial_id, 0))

    def on_epoch(self, event: pt.TrialEvent) -> None:
        assert 0 <= event.result["val_accuracy"] <= 1
        self.heard.append(("epoch", event.trial_id, int(event.result["epoch"])))

    def on_trial_end(self, event: pt.TrialEvent) -> None:
        self.heard.append((event.status, event.trial_id, int(event.result["epoch"])))


class Broken:
    """A callback that raises."""

    def __init__(self) -> None:
        self.calls = 0

    def on_epoch(self, event: pt.TrialEvent) -> None:
        self.calls += 1
        raise RuntimeError("no tracker")


class OfTune(tune.Callback):  # type: ignore[misc]  # Ray is untyped
    """One of Ray Tune's own."""

    def __init__(self) -> None:
        self.completed = 0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.completed += 1


def test_a_search_from_a_thread_with_callbacks(
    ray_cluster: object, tiny_images: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One real search: what it returns predicts, and its callbacks have heard all of it."""
    notes, broken, of_tune = Notes(), Broken(), OfTune()
    found: list[Run] = []
    config = pt.SearchConfig(data=str(tiny_images), runs_dir=str(runs_dir), name="own", **TINY)

    def search() -> None:
        found.append(pt.run_search(config, callbacks=[notes, broken, of_tune]))

    thread = threading.Thread(target=search)
    thread.start()
    thread.join(timeout=300)
    (run,) = found
    for trial in ("0001", "0002"):
        mine = [(what, epoch) for what, who, epoch in notes.heard if who == trial]
        assert mine == [("start", 0), ("epoch", 1), ("epoch", 2), ("completed", 2)]
    assert broken.calls == 1
    assert of_tune.completed == 2
    assert "Broken.on_epoch raised RuntimeError: no tracker" in capsys.readouterr().err

    files = run.predict(tiny_images / "red")
    assert len(files) == 40
    assert set(files["label"]) <= {"blue", "red"}
    assert np.allclose(files[["probability.blue", "probability.red"]].sum(axis=1), 1, atol=1e-5)
    pixels = run.predict(np.zeros((2, 48, 40, 3), np.uint8))
    assert len(pixels) == 2
    assert pixels["confidence"].between(0.5, 1).all()
    with pytest.raises(pt.DataError, match=r"received an array of shape \(48, 40, 3\), float64"):
        run.predict(np.zeros((48, 40, 3)))


def test_an_object_without_the_methods_is_no_callback(runs_dir: Path) -> None:
    config = pt.SearchConfig(data="sample", runs_dir=str(runs_dir), name="none")
    with pytest.raises(pt.UserError, match="on_trial_end, or be a ray.tune.Callback, received int"):
        pt.run_search(config, callbacks=[3])
    assert not runs_dir.exists()
