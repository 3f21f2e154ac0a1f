"""Event files: read back record by record, from scripted searches and from files alone."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from pawtune.models.baselines import BASELINES, baseline
from pawtune.models.families.conv import CONV, ConvSpec
from pawtune.models.families.transfer import TransferSpec
from pawtune.search.objective import Objective
from pawtune.search.storage.run_folder import RunFolder, read_json, write_json
from pawtune.search.tensorboard.event_pictures import Samples
from pawtune.search.tensorboard.model_outline import outline
from pawtune.search.tensorboard.search_events import SEARCH_RUN, SHOWN_FIRST
from pawtune.search.tensorboard.server import event_folder, hint_at_ticks
from pawtune.search.tensorboard.trial_events import TrialEvents, run_label
from pawtune.search.tuning.tensorboard_logger import TensorBoardLogger
from tests.board import fetch, run_board
from tests.event_reading import read_events, read_scalars, read_tags
from tests.run_folders import BACKBONE_WEIGHTS, RunMaker
from tests.test_tuning import Search
from tests.waiting import wait_until

BOTH = ("conv", "transfer")


def hparams(folder: Path, tag: str) -> list[HParamsPluginData]:
    return [
        HParamsPluginData.FromString(value.metadata.plugin_data.content)
        for event in read_events(folder)
        for value in event.summary.value
        if value.tag == f"_hparams_/{tag}"
    ]


def status_of(folder: Path) -> int | None:
    ends = hparams(folder, "session_end_info")
    return ends[-1].session_end_info.status if ends else None


def runs(run: RunFolder) -> list[str]:
    return sorted(folder.name for folder in run.tensorboard_dir.iterdir())


@pytest.fixture
def made(tiny_images: Path, runs_dir: Path) -> RunMaker:
    maker = RunMaker(runs_dir, tiny_images, epochs=4)
    maker.baselines(["tutorial_1", "tutorial_4"])
    return maker


@pytest.mark.usefixtures("ray_cluster")
def test_a_search_has_a_run_a_trial_with_every_epoch_once(runs_dir: Path) -> None:
    script = {"0001": [0.5, 0.9, 0.6], "0002": ["ValueError: no"], "*": [0.4, 0.5, 0.7]}
    search = Search(runs_dir, script, "trials=3")
    names = [read_json(trial.spec_file)["name"] for trial in search.run.trials()]
    labels = [run_label(f"{n:04d}", name) for n, name in enumerate(names, start=1)]
    assert runs(search.run) == [*labels, SEARCH_RUN]
    folder = search.run.tensorboard_dir
    curves = read_scalars(folder / labels[0])
    assert curves["val_accuracy"] == [(1, 0.5), (2, 0.9), (3, 0.6)]
    assert curves["best_val_accuracy"] == [(1, 0.5), (2, 0.9), (3, 0.9)]
    assert curves["trial/best_epoch"] == [(1, 1.0), (2, 2.0), (3, 2.0)]
    assert curves["trial/stopped_early"] == [(3, 0.0)]
    failed = [read_scalars(folder / label)["trial/failed"] for label in labels]
    assert failed == [[(3, 0.0)], [(0, 1.0)], [(3, 0.0)]]
    # 1 success, 2 failure
    assert [status_of(folder / label) for label in labels] == [1, 2, 1]
    for trial, label in zip(search.run.trials(), labels, strict=True):
        (start,) = hparams(folder / label, "session_start_info")
        assert set(start.session_start_info.hparams) == set(read_json(trial.spec_file)["params"])


@pytest.mark.usefixtures("ray_cluster")
def test_columns_are_the_union_of_all_families_from_the_start(runs_dir: Path) -> None:
    search = Search(runs_dir, {"*": [0.5, 0.6, 0.7]}, "trials=2", families=BOTH)
    (columns,) = hparams(search.run.tensorboard_dir / SEARCH_RUN, "experiment")
    names = {info.name for info in columns.experiment.hparam_infos}
    params = {n for trial in search.run.trials() for n in read_json(trial.spec_file)["params"]}
    assert params <= names
    assert {"filters", "backbone", "learning_rate"} <= names
    metrics = {info.name.tag for info in columns.experiment.metric_infos}
    assert "best_val_accuracy" in metrics
    assert "trial/stopped_early" in metrics


def test_words_can_be_filtered_by(made: RunMaker) -> None:
    """HParams offers a box for each word of a parameter: the proposals' and the baselines'."""
    resumed(made)
    (columns,) = hparams(made.folder.tensorboard_dir / SEARCH_RUN, "experiment")
    words = {
        info.name: [value.string_value for value in info.domain_discrete.values]
        for info in columns.experiment.hparam_infos
        if info.HasField("domain_discrete")
    }
    assert {"conv", "transfer"} <= set(words["family"])
    assert {"adam", "none"} <= {*words["optimizer"], *words["flip"]}
    used = [read_json(trial.spec_file)["params"] for trial in made.folder.trials()]
    for name, values in words.items():
        assert {params[name] for params in used if name in params} <= set(values), name


def test_what_matters_most_is_shown_before_it_is_ticked(made: RunMaker) -> None:
    """TensorBoard shows the first five parameters: those that differ, by name, before the rest."""
    resumed(made)
    (columns,) = hparams(made.folder.tensorboard_dir / SEARCH_RUN, "experiment")
    infos = columns.experiment.hparam_infos
    assert sorted(info.name for info in infos if info.differs) == sorted(SHOWN_FIRST)
    assert len(infos) > 15


def test_what_the_search_optimises_has_a_column(tiny_images: Path, runs_dir: Path) -> None:
    maker = RunMaker(runs_dir, tiny_images, epochs=4, metric="val_balanced_accuracy")
    maker.baselines(["tutorial_1"])
    resumed(maker)
    tag = "trial/val_balanced_accuracy_at_best"
    (columns,) = hparams(maker.folder.tensorboard_dir / SEARCH_RUN, "experiment")
    assert columns.experiment.metric_infos[0].name.tag == tag
    rows = maker.folder.trial("0001").read_metrics()
    curve = read_scalars(maker.folder.tensorboard_dir / "0001-tutorial_1")[tag]
    assert curve[-1][1] == round(max(row["val_balanced_accuracy"] for row in rows), 4)


@pytest.mark.usefixtures("ray_cluster")
def test_stopped_trials_are_told_by_a_column(runs_dir: Path) -> None:
    search = Search(
        runs_dir,
        {"0001": [0.8, 0.8, 0.8], "0002": [0.3, 0.9, 0.9]},
        "trials=2",
        "scheduler.name=asha",
        "scheduler.grace_period=1",
        "space.half_size_share=0.0",  # trials of one kind are compared
        "space.schedule=cosine",
        families=("conv",),
    )
    assert search.statuses() == ["completed", "stopped"]
    stopped = search.run.tensorboard_dir / "0002-conv"
    assert read_scalars(stopped)["trial/stopped_early"] == [(1, 1.0)]
    assert status_of(stopped) == 1


def test_an_independent_reader_sees_each_epoch_at_once(made: RunMaker) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = resumed(made)  # of two trials with 4 epochs each
    trial = made.folder.trial("0002")
    trial.write_status("running", started=1.0)
    logger.on_trial_start(0, [], fake_trial("0002"))
    reader = EventAccumulator(str(made.folder.tensorboard_dir / "0002-tutorial_4"))
    for epoch in (5, 6, 7):
        logger.on_trial_result(0, [], fake_trial("0002"), an_epoch(epoch, epoch / 10))
        reader.Reload()
        point = reader.Scalars("val_accuracy")[-1]
        assert (point.step, round(point.value, 4)) == (epoch, epoch / 10)
    logger.on_experiment_end([])


def trial_of(maker: RunMaker, number: int) -> TrialEvents:
    folder = maker.folder.trial(f"{number:04d}")
    return TrialEvents(maker.folder, folder, Objective(), Samples(maker.folder))


@pytest.mark.slow
def test_tensorboard_itself_shows_epochs_in_time_and_a_resumed_curve_once(
    made: RunMaker,
) -> None:
    made.finish()
    first = resumed(made)  # the files of a run of two trials, each with 4 epochs
    trial = made.folder.trial("0002")
    trial.write_status("running", started=time.time())
    first.on_trial_start(0, [], fake_trial("0002"))
    label = "0002-tutorial_4"
    with run_board(made.folder.root, num_runs=3) as address:

        def points() -> list[tuple[int, float]]:
            asked = f"{address}/data/plugin/scalars/scalars?tag=val_accuracy&run={label}"
            return [(step, round(value, 4)) for _, step, value in fetch(asked) or []]

        for epoch in (5, 6):
            first.on_trial_result(0, [], fake_trial("0002"), an_epoch(epoch, 0.5))
            wait_until(lambda last=(epoch, 0.5): points()[-1:] == [last], 10, failure=points)
        # SIGKILL, and a resume that continues from epoch 3 while TensorBoard keeps running.
        rows = trial.read_metrics()[:3]
        trial.write_metrics(rows)
        again = resumed(made)
        again.on_trial_start(0, [], fake_trial("0002"))
        for epoch in (4, 5):
            again.on_trial_result(0, [], fake_trial("0002"), an_epoch(epoch, 0.25))
        expected = [(row["epoch"], round(row["val_accuracy"], 4)) for row in rows]
        expected += [(4, 0.25), (5, 0.25)]
        wait_until(lambda: points() == expected, 20, failure=points)
    for logger in (first, again):
        logger.on_trial_complete(0, [], fake_trial("0002"))


def an_epoch(number: int, val_accuracy: float) -> dict[str, float]:
    return {"epoch": number, "val_accuracy": val_accuracy, "val_loss": 1.0, "seconds": 1.0}


def test_epochs_that_come_again_replace_what_followed(made: RunMaker) -> None:
    """A worker died after epoch 4, and the trial continued from the state of epoch 2."""
    events = trial_of(made, 1)
    folder = made.folder.tensorboard_dir / "0001-tutorial_1"
    before = read_scalars(folder)["val_accuracy"]
    assert [step for step, _ in before] == [1, 2, 3, 4]
    for epoch in (3, 4):
        events.add(an_epoch(epoch, 0.25))
    assert read_scalars(folder)["val_accuracy"] == [*before[:2], (3, 0.25), (4, 0.25)]
    assert len(list(folder.glob("events.*"))) == 1
    events.end()


def test_an_epoch_that_was_kept_but_not_reported_is_in_the_curve(made: RunMaker) -> None:
    """A worker died between the two, and the trial continued after it."""
    events = trial_of(made, 1)
    folder = made.folder.new_trial("0001")
    rows = folder.read_metrics()
    folder.write_metrics([*rows, {**rows[-1], "epoch": 5, "val_accuracy": 0.5}])
    events.add(an_epoch(6, 0.25))
    events.end()
    curve = read_scalars(made.folder.tensorboard_dir / "0001-tutorial_1")["val_accuracy"]
    assert curve[4:] == [(5, 0.5), (6, 0.25)]


def test_a_reader_that_is_open_drops_the_points_that_were_replaced(made: RunMaker) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = trial_of(made, 1)
    reader = EventAccumulator(str(made.folder.tensorboard_dir / "0001-tutorial_1"))
    reader.Reload()
    events.add(an_epoch(3, 0.25))
    reader.Reload()
    assert [point.step for point in reader.Scalars("val_accuracy")] == [1, 2, 3]
    events.end()


def resumed(maker: RunMaker) -> TensorBoardLogger:
    logger = TensorBoardLogger(maker.folder, maker.config, BOTH)
    logger.on_step_end(1, [])
    return logger


def fake_trial(trial_id: str) -> Any:
    return SimpleNamespace(config={"trial_id": trial_id})


def test_a_resumed_run_has_one_continuous_curve_a_trial(made: RunMaker) -> None:
    """The driver was killed: one trial's last point is missing, another's file is half written."""
    first = resumed(made)
    first.on_trial_start(0, [], fake_trial("0001"))
    folder = made.folder.tensorboard_dir
    first.on_trial_complete(0, [], fake_trial("0001"))
    whole = read_scalars(folder / "0001-tutorial_1")["val_accuracy"]
    for label in ("0001-tutorial_1", "0002-tutorial_4"):
        (file,) = (folder / label).glob("events.*")
        file.write_bytes(file.read_bytes()[:-30])
    # The second trial continues from epoch 2: its fourth epoch was never reported.
    trial = made.folder.trial("0002")
    trial.write_metrics(trial.read_metrics()[:3])
    trial.write_status("running", started=1.0)
    again = resumed(made)
    again.on_trial_start(0, [], fake_trial("0002"))
    for epoch in (3, 4):
        again.on_trial_result(0, [], fake_trial("0002"), an_epoch(epoch, 0.5))
    trial.write_status("completed", finished=2.0)
    again.on_trial_complete(0, [], fake_trial("0002"))
    again.on_experiment_end([])
    assert read_scalars(folder / "0001-tutorial_1")["val_accuracy"] == whole
    continued = read_scalars(folder / "0002-tutorial_4")["val_accuracy"]
    assert [step for step, _ in continued] == [1, 2, 3, 4]
    assert continued[2:] == [(3, 0.5), (4, 0.5)]


def test_pictures_texts_and_graph_of_the_search(made: RunMaker) -> None:
    logger = resumed(made)
    logger.on_experiment_end([])
    search = made.folder.tensorboard_dir / SEARCH_RUN
    assert {
        "samples",
        "best/confusion",
        "best/mistakes",
        "configuration",
        "best",
        "custom_scalars__config__",
    } <= read_tags(search)
    assert any(event.graph_def for event in read_events(search))
    assert "trial/augmentation" in read_tags(made.folder.tensorboard_dir / "0002-tutorial_4")


def test_credentials_are_not_shown(tiny_images: Path, runs_dir: Path) -> None:
    maker = RunMaker(runs_dir, tiny_images)
    config = maker.config.model_copy(update={"data": "https://me:hunter2@host/cats.zip"})
    logger = TensorBoardLogger(maker.folder, config, BOTH)
    logger.on_step_end(1, [])
    texts = [
        value.tensor.string_val[0].decode()
        for event in read_events(maker.folder.tensorboard_dir / SEARCH_RUN)
        for value in event.summary.value
        if value.tag == "configuration"
    ]
    assert "https://***@host/cats.zip" in texts[0]
    assert "hunter2" not in texts[0]


def test_a_search_goes_on_where_nothing_can_be_written(
    made: RunMaker, caplog: pytest.LogCaptureFixture
) -> None:
    made.folder.tensorboard_dir.write_text("in the way")
    logger = resumed(made)
    for _ in range(3):
        logger.on_trial_start(0, [], fake_trial("0001"))
    logger.on_experiment_end([])
    assert len(caplog.records) == 1
    assert "TensorBoard's files are not written any more" in caplog.text


def test_a_moved_run_without_event_files_gets_them_from_its_trials(
    made: RunMaker, tmp_path: Path
) -> None:
    made.finish()
    place = tmp_path / "elsewhere" / "moved"
    shutil.copytree(made.folder.root, place)
    folder = event_folder(RunFolder(place))
    assert folder == place / "tb"
    assert [step for step, _ in read_scalars(folder / "0001-tutorial_1")["loss"]] == [1, 2, 3, 4]
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("events.*")}
    assert event_folder(RunFolder(place)) == folder
    assert before == {file: file.stat().st_mtime_ns for file in folder.rglob("events.*")}


def test_more_runs_than_tensorboard_ticks_are_told(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number:04d}-conv").mkdir()
    assert hint_at_ticks(tmp_path) == ""
    (tmp_path / SEARCH_RUN).mkdir()
    assert "tick those to see: pictures and texts are in 'search'" in hint_at_ticks(tmp_path)


def test_a_long_or_odd_name_makes_a_short_label() -> None:
    assert run_label("0003", "../../etc/passwd $x") == "0003-.._.._etc_passwd_x"
    assert len(run_label("0003", "n" * 300)) <= 45


def some_specs() -> Iterator[ConvSpec]:
    for spec in BASELINES.values():
        if isinstance(spec.model, ConvSpec):
            yield spec.model
    yield ConvSpec(
        filters=(8, 16), padding="same", batch_norm=True, pooling="global_average", kernel_size=5
    )


@pytest.mark.parametrize("spec", list(some_specs()))
def test_an_outline_counts_every_weight(spec: ConvSpec) -> None:
    assert sum(layer.weights for layer in outline(spec, 3)) == CONV.price(spec, 3).weights


@pytest.mark.parametrize("dense_width", [0, 128])
def test_an_outline_tells_a_backbone_from_its_head(dense_width: int) -> None:
    trained = 1281 * dense_width + (dense_width + 1) * 2 if dense_width else 1281 * 2
    facts = {"num_weights": BACKBONE_WEIGHTS + trained, "trainable_weights": trained}
    layers = {
        layer.name: layer for layer in outline(TransferSpec(dense_width=dense_width), 2, facts)
    }
    assert layers["backbone"].weights == BACKBONE_WEIGHTS
    assert layers["pooling"].shape == (1280,)
    assert sum(layer.weights for layer in layers.values()) == facts["num_weights"]


def test_logging_costs_little(tiny_images: Path, runs_dir: Path) -> None:
    """100 trials of 3 epochs: of one second each, and one at a time, 5% would be 5 s."""
    maker = RunMaker(runs_dir, tiny_images, epochs=3)
    logger = resumed(maker)
    spent = 0.0
    for number in range(1, 101):
        folder = maker.folder.new_trial(f"{number:04d}")
        spec = baseline("tutorial_3", 3)
        content = {"baseline": False, "params": spec.params(), **spec.model_dump(mode="json")}
        write_json(folder.spec_file, content)
        started = time.process_time()
        trial = fake_trial(folder.trial_id)
        logger.on_trial_start(0, [], trial)
        for epoch in (1, 2, 3):
            result = {"epoch": epoch, "val_accuracy": 0.5, "val_loss": 1.0, "seconds": 0.3}
            logger.on_trial_result(0, [], trial, result)
        logger.on_trial_complete(0, [], trial)
        spent += time.process_time() - started
    assert spent < 5
