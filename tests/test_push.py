"""A run in trackers: a real MLflow store in SQLite, and W&B's offline files, read back."""

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pawtune.search.errors import UserError
from pawtune.search.integrations import push as pushing
from pawtune.search.integrations.push import push
from pawtune.search.run import Run, open_run
from tests.board import free_port
from tests.command_line import pawtune
from tests.run_folders import RunMaker
from tests.tiny_run import search_tiny
from tests.waiting import wait_until

pytestmark = [
    # Of MLflow and of W&B's own code on libraries that are newer than they are.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, tiny_images: Path, ray_cluster: object) -> Run:
    """A finished search, looked at on the test split."""
    run = search_tiny(tiny_images, tmp_path_factory.mktemp("pushed") / "runs")
    run.test()
    return run


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """MLflow's own SQLite store: the file itself, or a tracking server in front of it."""
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    file = f"sqlite:///{tmp_path}/mlflow.db"
    if request.param == "file":
        yield file
        return
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", file]
    command += ["--artifacts-destination", str(tmp_path / "artifacts"), "--workers", "1"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port)], cwd=tmp_path, stdout=log, stderr=log, process_group=0
        )
    try:
        health = f"http://127.0.0.1:{port}/health"
        wait_until(
            lambda: answers(health), 120, process=server, failure=(tmp_path / "log").read_text
        )
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # it starts others
        server.wait(30)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=30) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("store", ["file", "server"], indirect=True)
def test_mlflow_holds_the_run_its_trials_and_its_model(
    tiny: Run, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    done = pawtune(capsys, "push", tiny.folder.root, "--to", "mlflow", "--uri", store, "--json")
    assert done.code == 0, done.err
    parent = done.json["id"]
    client = mlflow.MlflowClient(store)
    found = client.get_run(parent)
    assert found.info.status == "FINISHED"
    assert found.data.params["metric"] == "val_accuracy"
    best = tiny.rows()[0]
    assert found.data.metrics["best_val_accuracy"] == pytest.approx(best.best_val_accuracy)
    assert found.data.metrics["looks_at_test"] == 1
    experiment = client.get_experiment_by_name("pawtune").experiment_id
    children = client.search_runs(
        [experiment], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=10
    )
    assert {child.info.run_name for child in children} == {row.name for row in tiny.rows()}
    for child in children:
        trial = tiny.history(child.info.run_name)
        curve = client.get_metric_history(child.info.run_id, "val_accuracy")
        assert [point.step for point in curve] == trial["epoch"].tolist()
        assert [point.value for point in curve] == pytest.approx(trial["val_accuracy"].tolist())
        assert child.data.params["learning_rate"] == str(
            next(r.params["learning_rate"] for r in tiny.rows() if r.name == child.info.run_name)
        )

    (version,) = client.search_model_versions("name = 'tiny'")
    assert version.description.startswith("# Model card") or "# Model card" in version.description
    loaded = mlflow.keras.load_model("models:/tiny/1")
    pixels = np.random.default_rng(0).integers(0, 255, (3, 40, 48, 3), np.uint8)
    expected = tiny.best().predict_on_batch(pixels)
    assert np.allclose(loaded.predict_on_batch(pixels), expected, atol=1e-6)
    schema = mlflow.models.get_model_info("models:/tiny/1").signature.inputs
    assert schema.inputs[0].shape == (-1, -1, -1, 3)

    again = pawtune(capsys, "push", tiny.folder.root, "--to", "mlflow", "--uri", store, "--json")
    assert again.json["id"] == parent, "a second push continues the first"
    curve = client.get_metric_history(children[0].info.run_id, "val_accuracy")
    assert [point.step for point in curve] == [1, 2], "and tells nothing twice"


@pytest.mark.slow
@pytest.mark.parametrize("store", ["file"], indirect=True)
def test_a_search_is_followed_to_its_end(
    tiny_images: Path,
    runs_dir: Path,
    store: str,
    ray_cluster: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow

    monkeypatch.setattr(pushing, "FOLLOW_S", 1.0)
    pushes: list[tuple[str, int]] = []

    def push_once() -> None:
        parent = mlflow.MlflowClient(store).get_run(push(opened, "mlflow", store))
        pushes.append((parent.info.status, len(opened.rows())))

    searching = threading.Thread(target=search_tiny, args=(tiny_images, runs_dir))
    searching.start()
    wait_until((runs_dir / "tiny" / "search.yaml").exists, 120)
    opened = open_run("tiny", runs_dir)
    pushing.follow(opened, push_once)
    searching.join()
    push_once()
    assert len(pushes) >= 2
    assert {status for status, _ in pushes[:-1]} == {"RUNNING"}
    assert pushes[-1] == ("FINISHED", 2)
    for row in opened.rows():
        (child,) = mlflow.search_runs(
            experiment_names=["pawtune"],
            filter_string=f"tags.`pawtune.trial` = '{row.trial_id}'",
            output_format="list",
        )
        curve = mlflow.MlflowClient(store).get_metric_history(child.info.run_id, "val_accuracy")
        assert [point.step for point in curve] == [1, 2]


@pytest.mark.slow
def test_wandb_writes_offline_what_can_be_read_back(
    tiny: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    assert push(tiny, "wandb") == "tiny"
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 3, "two trials and the search"
    runs = {logged["id"]: logged for logged in map(read_when_closed, files)}
    for row in tiny.rows():
        logged = runs[f"tiny-{row.trial_id}"]
        history = tiny.history(row.trial_id)
        assert logged["group"] == "tiny"
        assert logged["steps"] == history["epoch"].tolist()
        assert logged["val_accuracy"] == pytest.approx(history["val_accuracy"].tolist())
    assert runs["tiny-search"]["artifacts"] == ["tiny"]


def records(path: Path) -> Iterator[bytes]:
    """Records of W&B's file: LevelDB's log format, blocks of 32 KiB, after a header of 7 bytes."""
    content, place, parts = path.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        if kind == 0:
            return
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def read_when_closed(path: Path) -> dict[str, Any]:
    """W&B's own process writes the file, and may do so after `finish` has returned."""
    wait_until(lambda: read_offline(path)["closed"], failure=lambda: read_offline(path))
    return read_offline(path)


def read_offline(path: Path) -> dict[str, Any]:
    """What a file of W&B's offline mode holds."""
    from wandb.proto import wandb_internal_pb2

    logged: dict[str, Any] = {"steps": [], "val_accuracy": [], "artifacts": [], "closed": False}
    for data in records(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            logged |= {"id": record.run.run_id, "group": record.run.run_group}
        if kind == "history":
            items = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            if "val_accuracy" in items:
                logged["steps"].append(items["_step"])
                logged["val_accuracy"].append(items["val_accuracy"])
        if kind == "artifact":
            logged["artifacts"].append(record.artifact.name)
        logged["closed"] = logged["closed"] or kind == "exit"
    return logged


def test_an_unknown_tracker_is_refused(tiny_images: Path, runs_dir: Path) -> None:
    run = Run(RunMaker(runs_dir, tiny_images).folder)
    with pytest.raises(UserError, match="--to must be mlflow or wandb, received 'neptune'"):
        push(run, "neptune")


def test_a_missing_library_is_named_with_its_extra(
    tiny_images: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    run = Run(RunMaker(runs_dir, tiny_images).folder)
    with pytest.raises(UserError, match=r"type pip install 'pawtune\[wandb\]'"):
        push(run, "wandb")
