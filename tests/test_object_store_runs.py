"""Runs in an object store: copies, claims, and a search whose driver and storage go away."""

import json
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.progress import silent
from pawtune.data_pipeline.sources.object_store import (
    ObjectStore,
    is_address,
    join,
    retry_store,
    split,
)
from pawtune.data_pipeline.sources.resolve import resolve_source
from pawtune.data_pipeline.sources.stored_files import stored_file
from pawtune.data_pipeline.splitting.build import build_manifest
from pawtune.models.baselines import baseline
from pawtune.search.cluster.connection import ResourcePlan
from pawtune.search.errors import UserError
from pawtune.search.objective import Objective
from pawtune.search.run import open_run
from pawtune.search.sampling import study_file
from pawtune.search.sampling.study_file import StudyFile
from pawtune.search.storage import lease, object_store_sync
from pawtune.search.storage import mirror as mirrors
from pawtune.search.storage.lease import StoreLock
from pawtune.search.storage.mirror import CLAIMS, Mirror, open_mirror
from pawtune.search.storage.object_store_sync import Uploader
from pawtune.search.storage.run_folder import (
    BEST_WEIGHTS,
    RunFolder,
    TrialFolder,
    open_run_folder,
    read_json,
    write_json,
    write_text,
)
from pawtune.search.storage.trial_writer import KeptEpoch, TrialWriter
from pawtune.search.storage.untrusted_files import REQUIRED_METRICS
from pawtune.search.tuning import pending_trials
from pawtune.search.tuning.pending_trials import WaitingNotes
from tests.command_line import begun, pawtune
from tests.run_folders import RunMaker, make_images
from tests.s3_server import CREDENTIALS, Server, s3_server
from tests.tiny_run import small_search
from tests.waiting import wait_until
from tests.whole_run import assert_continued

EPOCH = dict.fromkeys(REQUIRED_METRICS, 0.5) | {"epoch": 1}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        with s3_server() as server:
            yield server


@pytest.fixture
def address(server: Server, request: pytest.FixtureRequest) -> str:
    """A place for this test's run."""
    return server.address(f"{request.node.name[:60].replace('[', '-').strip(']')}/pets")


def test_addresses_are_joined_and_split() -> None:
    assert is_address("s3://bucket/x")
    assert is_address("gs://bucket/x")
    assert not is_address("/shared/s3://x")
    assert join("gs://bucket", "pets") == "gs://bucket/pets"
    assert split(join("s3://b/runs?scheme=http", "pets")) == ("s3://b/runs?scheme=http", "pets")


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(DataError, match="must hold no credentials before '@'") as refused:
        ObjectStore("s3://AKIAKEY:hush@bucket/runs")
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("wrong", ["s3:///runs", "s3://bucket/x?endpiont=1"])
def test_an_address_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(DataError, match="an address must be like s3://bucket/folder"):
        ObjectStore(wrong)


def test_files_go_out_and_come_back_whole(address: str, tmp_path: Path) -> None:
    store = ObjectStore(address)
    assert store.files() == {}
    assert store.stat("a") is None
    store.write("deep/a.gz", b"not really gzip")
    store.write("empty", b"")
    store.write("large", os.urandom(6_000_000))
    assert {name: s.size for name, s in store.files().items()} == {
        "deep/a.gz": 15, "empty": 0, "large": 6_000_000,
    }  # fmt: skip
    assert store.read("deep/a.gz") == b"not really gzip"
    counts: list[int] = []
    store.download("large", tmp_path / "large", counts.append)
    assert sum(counts) == 6_000_000
    assert (tmp_path / "large").read_bytes() == store.read("large")
    store.delete("empty")
    store.delete("empty")
    assert store.stat("empty") is None


def test_a_name_that_leads_out_is_not_copied(address: str) -> None:
    store = ObjectStore(address)
    store.write("a/../../../out", b"x")
    store.write("search.yaml", b"data: sample\n")
    assert list(store.files()) == ["search.yaml"]


def test_a_missing_bucket_is_told_in_one_line(server: Server) -> None:
    store = ObjectStore(server.address("x").replace("s3://bucket", "s3://buckte"))
    no_bucket = pytest.raises(DataError, match=r"s3://buckte/x.*there is no such bucket; make it")
    with no_bucket as told, StoreLock(Mirror(store.address)):
        pass
    assert "\n" not in str(told.value)


def test_a_store_that_comes_back_is_waited_for_and_told(server: Server, address: str) -> None:
    store, said = ObjectStore(address), []
    asked = []

    def write() -> None:
        asked.append(1)
        if len(asked) < 3:
            raise OSError("AWS Error NETWORK_CONNECTION (Request ID: xyz)")
        store.write("a", b"1")

    retry_store(write, 60, said.append)
    assert store.read("a") == b"1"
    assert said == [
        "the object store does not answer, trying again: AWS Error NETWORK_CONNECTION",
        "the object store answers again",
    ]
    with pytest.raises(FileNotFoundError):
        retry_store(lambda: store.read("none"), 60)


def test_a_copy_follows_the_store(address: str) -> None:
    store = ObjectStore(address)
    store.write("search.yaml", b"data: a\n")
    store.write("trials/0001/status.json", b"{}")
    store.write("trials/0001/best/core.weights.h5", b"weights")
    store.write("trials/0001/best/val_predictions.npy", b"predictions")
    mirror = Mirror(address)
    mirror.pull()
    run = RunFolder(mirror.root, mirror)
    assert run.name == "pets"
    assert run.config_file.read_text() == "data: a\n"
    weights = mirror.root / "trials/0001/best/core.weights.h5"
    predictions = weights.with_name("val_predictions.npy")
    assert not weights.exists()
    assert not predictions.exists()  # `status` would wait for 200 MB a trial
    assert run.new_trial("0001").best_weights.read_bytes() == b"weights"
    assert run.new_trial("0001").best_predictions.read_bytes() == b"predictions"
    store.write("search.yaml", b"data: b\n")  # as long, and within the same second
    store.delete("trials/0001/status.json")
    run.refresh()
    assert run.config_file.read_text() == "data: b\n"
    assert not (mirror.root / "trials/0001/status.json").exists()


def test_a_view_fetches_the_files_that_it_shows(address: str) -> None:
    store = ObjectStore(address)
    for name in ("search.yaml", "progress.json", "stage.json", "trials/0001/status.json"):
        store.write(name, b"{}")
    mirror = Mirror(address)
    mirror.pull()
    run = RunFolder(mirror.root, mirror)
    store.write("progress.json", b'{"a": 1}')
    store.write("trials/0001/status.json", b'{"a": 1}')
    store.write(f"{CLAIMS}/driver/x", b"{}")
    store.delete("stage.json")
    run.refresh(only=("progress.json", "stage.json"))
    assert (run.root / "progress.json").read_bytes() == b'{"a": 1}'
    assert not (run.root / "stage.json").exists()
    assert (run.root / "driver.lock").exists()
    assert (run.root / "trials/0001/status.json").read_bytes() == b"{}"
    run.refresh()
    assert (run.root / "trials/0001/status.json").read_bytes() == b'{"a": 1}'


def test_weights_of_trials_are_dropped_in_the_store(address: str) -> None:
    store = ObjectStore(address)
    weights = [f"trials/{number:04d}/best/core.weights.h5" for number in range(3)]
    for name in (*weights, "trials/0000/spec.json"):
        store.write(name, b"x")
    Mirror(address).drop([*weights[:2], "trials/0009/best/core.weights.h5"])
    assert sorted(store.files()) == ["trials/0000/spec.json", weights[2]]


def test_what_was_written_in_one_second_settles(address: str) -> None:
    """A store tells times in seconds: two contents of one size may have the same."""
    store = ObjectStore(address)
    store.write("search.yaml", b"1")
    mirror = Mirror(address)
    mirror.pull()
    file = mirror.root / "search.yaml"
    stored = store.stat("search.yaml")
    assert stored is not None
    assert file.stat().st_mtime_ns != stored.mtime_ns
    time.sleep(2.1)
    mirror.pull()
    assert file.stat().st_mtime_ns == stored.mtime_ns
    inode = file.stat().st_ino
    mirror.pull()
    assert file.stat().st_ino == inode


def test_two_processes_have_two_copies(address: str) -> None:
    first, second = Mirror(address), Mirror(address)
    assert first.root != second.root
    assert first.root.name == second.root.name == "pets"
    root = first.root
    write_text(root / "left.txt", "by a driver that was killed")
    del first
    third = Mirror(address)
    assert third.root == root
    third.pull()
    assert not (root / "left.txt").exists()


def test_runs_are_opened_by_address_and_by_name(address: str) -> None:
    store = ObjectStore(address)
    store.write("search.yaml", b"data: sample\n")
    runs_dir, name = split(address)
    opened = open_run_folder("pets", runs_dir)
    assert opened.place == address
    assert opened.runs_dir == runs_dir
    assert open_run_folder(address).root == opened.root
    with pytest.raises(UserError, match="received 'dogs'; runs there: pets"):
        open_run_folder("dogs", runs_dir)


def test_one_driver_holds_a_run(address: str) -> None:
    held = pytest.raises(UserError, match=rf"pets is held by process {os.getpid()} on .* since")
    with StoreLock(Mirror(address)), held, StoreLock(Mirror(address)):
        pass
    with StoreLock(Mirror(address)):
        pass
    assert ObjectStore(address).files() == {}


def test_confirm_and_refit_hold_the_run_in_the_store(address: str, tmp_path: Path) -> None:
    """They held only this machine's copy: two machines could train into one run."""
    maker = RunMaker(tmp_path, make_images(tmp_path / "images", ["a", "b"]))
    maker.add(baseline("tutorial_1", 4))
    _upload(ObjectStore(address), maker.finish().root)
    run = open_run(address)
    with StoreLock(Mirror(address)):
        for verb in (run.confirm, run.refit):
            with pytest.raises(UserError, match=r"pets is held by process"):
                verb()


def test_of_many_that_want_a_run_at_once_never_two_have_it(address: str) -> None:
    inside: list[int] = []
    most, held, refused = [0], [], []

    def contend(number: int) -> None:
        try:
            with StoreLock(mirrors[number], wait_s=20):
                inside.append(number)
                most[0] = max(most[0], len(inside))
                time.sleep(0.05)
                inside.remove(number)
            held.append(number)
        except UserError:
            refused.append(number)

    mirrors = [Mirror(address) for _ in range(6)]
    threads = [threading.Thread(target=contend, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert sorted(held) == list(range(6)), refused


@pytest.mark.slow
def test_a_dead_drivers_claim_is_taken_over_and_a_sleeping_one_is_told(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.2)
    monkeypatch.setattr(lease, "STALE_S", 3.0)
    monkeypatch.setattr(lease, "HESITATION_S", 0.2)
    store = ObjectStore(address)
    elsewhere = {"host": "elsewhere", "pid": 1, "process": "1", "since": "long ago"}
    with StoreLock(Mirror(address)) as sleeping:
        # It sleeps: as if on another machine, without a heartbeat.
        sleeping._released.set()
        sleeping._thread.join()
        store.write(sleeping._claim, json.dumps(elsewhere).encode())
        with pytest.raises(UserError, match="process 1 on elsewhere"), StoreLock(Mirror(address)):
            pass
        time.sleep(4.1)
        with StoreLock(Mirror(address)):
            sleeping._released.clear()
            sleeping._beat()  # it wakes
            assert sleeping.lost.is_set()


def test_a_claim_of_a_dead_process_of_this_machine_does_not_hold(address: str) -> None:
    with StoreLock(Mirror(address)) as lock:
        content = json.loads(lock._content)
        lock._released.set()
        lock._thread.join()
        lock._store.write(lock._claim, json.dumps({**content, "process": "gone"}).encode())
        with StoreLock(Mirror(address)):
            pass


def test_a_trial_is_found_as_another_driver_left_it(address: str) -> None:
    """What it continues from is fetched; what its records lost is deleted in the store."""
    first = Mirror(address)
    trial = RunFolder(first.root, first).new_trial("0001")
    write_text(trial.spec_file, "{}")
    trial.write_metrics([EPOCH])
    for file in (trial.best / BEST_WEIGHTS, trial.last / "epoch_1.weights.h5"):
        write_text(file, "weights")
    write_json(trial.last / "state.json", {"epoch": 1})
    first.send_trial("0001")
    second = Mirror(address)
    second.pull()
    found = TrialFolder(second.root / "trials/0001")
    assert found.read_metrics() == [EPOCH]
    assert not found.last.exists()  # most who open a run need no state
    second.pull_trial("0001")
    assert found.best_weights.read_text() == "weights"
    assert read_json(found.last / "state.json") == {"epoch": 1}
    (found.last / "epoch_1.weights.h5").unlink()
    write_text(found.last / "epoch_2.weights.h5", "state")
    write_json(found.last / "state.json", {"epoch": 2})
    found.best_weights.unlink()
    found.metrics_file.unlink()
    second.send_trial("0001")
    assert sorted(ObjectStore(address).files()) == [
        "trials/0001/best/core.weights.h5",  # which others may not have fetched: see `drop`
        "trials/0001/last/epoch_2.weights.h5",
        "trials/0001/last/state.json",
        "trials/0001/spec.json",
    ]


def test_states_that_change_all_the_time_are_sent_whole(address: str) -> None:
    """The writer replaces a state while it is sent: what is in the store belongs together."""
    mirror, store = Mirror(address), ObjectStore(address)
    trial = RunFolder(mirror.root).new_trial("0001")
    trial.root.mkdir(parents=True)
    over = threading.Event()

    def write() -> None:
        epoch = 0
        while not over.is_set():
            epoch += 1
            contents = {f"epoch_{epoch}.weights.h5": epoch, "state.json": {"epoch": epoch}}
            state = {
                name: np.frombuffer(json.dumps(content).encode(), np.uint8)
                for name, content in contents.items()
            }
            TrialWriter(trial, Objective()).keep(KeptEpoch([EPOCH], state=state))
            time.sleep(0.005)

    writer = threading.Thread(target=write)
    writer.start()
    sent = set()
    for _ in range(40):
        mirror.send_trial("0001")
        if store.stat("trials/0001/last/state.json") is not None:
            epoch = json.loads(store.read("trials/0001/last/state.json"))["epoch"]
            assert store.read(f"trials/0001/last/epoch_{epoch}.weights.h5") == str(epoch).encode()
            sent.add(epoch)
    over.set()
    writer.join()
    assert len(sent) > 1


def test_commands_refuse_a_wrong_address_in_one_line(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    none = server.address("nothing/here")
    refused = pawtune(capsys, "leaderboard", none)
    assert refused.code == 2
    assert "RUN must be the name of a run under s3://bucket/nothing" in refused.err
    started = time.monotonic()
    away = none.replace(str(server.port), "1")
    refused = pawtune(capsys, "leaderboard", away)
    assert refused.code == 2
    assert "the object store does not answer" in refused.err
    assert time.monotonic() - started < 60  # a search under way would wait for minutes


def test_one_mirror_a_process(address: str) -> None:
    mirror = open_mirror(address)
    assert open_mirror(address) is mirror


def _upload(store: ObjectStore, folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            store.write(path.relative_to(folder).as_posix(), path.read_bytes())


def test_images_in_an_object_store_are_copied_once(
    server: Server, address: str, tiny_images: Path, tmp_path: Path
) -> None:
    _upload(ObjectStore(address), tiny_images)
    told: list[tuple[str, int, int | None]] = []
    root = resolve_source(address, cache=tmp_path, progress=lambda *news: told.append(news))
    assert build_manifest(root).fingerprint == build_manifest(tiny_images).fingerprint
    size = sum(path.stat().st_size for path in tiny_images.rglob("*.*"))
    assert told[0] == ("download", 0, size)
    assert told[-1] == ("download", size, size)
    told.clear()
    assert resolve_source(address, cache=tmp_path, progress=lambda *n: told.append(n)) == root
    assert told == []
    ObjectStore(address).write("blue/new.png", b"more")
    assert resolve_source(address, cache=tmp_path) != root


def test_an_archive_and_weights_in_an_object_store(
    address: str, tiny_images: Path, tmp_path: Path
) -> None:
    archive = shutil.make_archive(str(tmp_path / "pets"), "zip", tiny_images)
    store = ObjectStore(address)
    store.write("pets.zip", Path(archive).read_bytes())
    root = resolve_source(join(address, "pets.zip"), cache=tmp_path / "cache")
    assert build_manifest(root).fingerprint == build_manifest(tiny_images).fingerprint
    store.write("broken.zip", b"PK no archive")
    with pytest.raises(DataError, match=r"^s3://bucket/\S+broken.zip\S*: "):
        resolve_source(join(address, "broken.zip"), cache=tmp_path / "cache")
    assert not list((tmp_path / "cache" / "stored").glob("*.archive"))
    store.write("top.h5", b"weights")
    file = stored_file(join(address, "top.h5"), tmp_path / "cache", silent)
    assert (file.name, file.read_bytes()) == ("top.h5", b"weights")
    with pytest.raises(DataError, match="it must be a file, and is a folder"):
        stored_file(address, tmp_path / "cache", silent)


def test_data_that_is_not_there_is_refused_in_one_line(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = server.address("no/such/pets")
    for address, reason in {
        missing: "there is nothing; check the path below the bucket",
        missing.replace("//bucket", "//buckte"): "there is no such bucket; check its name",
    }.items():
        refused = pawtune(capsys, "run", "--data", address, "--runs-dir", tmp_path / "runs")
        assert refused.code == 2
        assert refused.err.splitlines()[-1] == f"pawtune: {address}: {reason}"
    assert not list((tmp_path / "runs").glob("*"))


@pytest.fixture
def search_options(tiny_images: Path, address: str) -> list[str]:
    """A small conv search into the object store, as options of `pawtune run`."""
    return [*small_search(tiny_images, *split(address)), "--quiet"]


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.slow
def test_a_search_lives_in_the_object_store(
    search_options: list[str],
    address: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = pawtune(capsys, *search_options, "--trials=2", "--epochs=2")
    assert ended.code == 0, ended
    assert f"kept in {address}" in ended.out
    here = open_mirror(address).root
    files = ObjectStore(address).files()
    assert {name for name in files if "/" not in name} == {
        "leaderboard.csv", "manifest.csv", "manifest.json", "search.yaml", "study.db",
        "summary.json", "validation_labels.npy",
    }  # fmt: skip
    for trial_id in ("0001", "0002"):
        names = {"spec.json", "status.json", "metrics.csv", "facts.json", "best/core.weights.h5"}
        assert {f"trials/{trial_id}/{name}" for name in names} <= files.keys()
        assert not [name for name in files if name.startswith(f"trials/{trial_id}/last/")]
    assert "secret-of-the-test" not in "".join(
        path.read_text(errors="replace") for path in here.rglob("*") if path.is_file()
    )
    again = pawtune(capsys, *search_options, "--trials=1")
    assert again.code == 2
    assert "--name must be new, received 'pets'" in again.err
    # Another machine: nothing of the run is there.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    mirrors._open.clear()
    board = pawtune(capsys, "leaderboard", "pets", "--runs-dir", split(address)[0], "--json")
    assert [row["epochs"] for row in board.json] == [2, 2], board
    assert pawtune(capsys, "show", address, "0001", "--json").json["epochs"]
    assert pawtune(capsys, "status", address, "--json").json["run"]["counts"] == {"completed": 2}
    assert pawtune(capsys, "best", address).code == 0
    assert pawtune(capsys, "test", address, "--json").json["looks"] == 1
    assert pawtune(capsys, "report", address).code == 0
    files = ObjectStore(address).files()
    assert {"best/model.keras", "best/model_card.json", "report.html", "test.jsonl"} <= files.keys()
    # And a third, which adds a trial and a look.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "third"))
    mirrors._open.clear()
    resumed = pawtune(capsys, "resume", address, "--trials", "+1", "--quiet")
    assert resumed.code == 0, resumed
    assert pawtune(capsys, "test", address, "--json").json["looks"] == 2
    assert [row.epochs for row in open_run(address).rows()] == [2, 2, 2]


@pytest.mark.usefixtures("ray_cluster")
def test_what_waits_and_what_has_ended_is_soon_in_the_store(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial without a worker, and the last trial that ended: others look at them there."""
    monkeypatch.setattr(pending_trials, "USUAL_S", 0.0)
    monkeypatch.setattr(pending_trials, "LOOK_S", 0.0)
    monkeypatch.setattr(study_file, "INTERVAL_S", 1.0)  # after what a trial's end sends
    monkeypatch.setattr(object_store_sync, "INTERVAL_S", 0.1)
    store, mirror = ObjectStore(address), Mirror(address)
    run = RunFolder(mirror.root, mirror)
    for trial_id, status in [("0001", "completed"), ("0002", "pending")]:
        run.new_trial(trial_id).root.mkdir(parents=True)
        run.new_trial(trial_id).write_status(status)  # type: ignore[arg-type]
    with StoreLock(mirror) as lock, Uploader(run, lock, pytest.fail) as uploader:
        study = StudyFile(run.study_file, "pets", Objective(), pytest.fail)
        waits = SimpleNamespace(status="PENDING", config={"trial_id": "0002"})
        WaitingNotes(run, ResourcePlan(1.0, 1.0, 1), lambda line: None, uploader).on_step_end(
            1, [waits]
        )
        study.add(optuna.trial.create_trial(value=0.5))
        uploader.ended("0001")
        wait_until(
            lambda: "trials/0002/status.json" in store.files() and _studied(store, tmp_path) == 1,
            30,
            failure=store.files,
        )
        said = json.loads(store.read("trials/0002/status.json"))
        assert said["reason"].startswith("waits 0 s for 1 CPU + 1 GPU; free on all nodes together")
        study.close()


def _studied(store: ObjectStore, folder: Path) -> int:
    """How many trials the study in the store holds."""
    if "study.db" not in store.files():
        return 0
    store.download("study.db", folder / "study.db")
    with closing(sqlite3.connect(folder / "study.db")) as connection:
        if not connection.execute("SELECT * FROM sqlite_master WHERE name = 'trials'").fetchall():
            return 0  # Optuna was just making it
        return int(connection.execute("SELECT count(*) FROM trials").fetchone()[0])


LONG = 300  # epochs of some 20 ms, of which a trial sends what it has every 2 s


def _reached(address: str) -> int:
    """Epochs of the furthest trial, as the store has them."""
    store = ObjectStore(address)
    files = [name for name in store.files("trials") if name.endswith("/metrics.csv")]
    return max((store.read(name).count(b"\n") - 1 for name in files), default=0)


def _wait_for_epochs(address: str, epochs: int, driver: "subprocess.Popen[str]") -> None:
    wait_until(lambda: _reached(address) >= epochs, 300, process=driver, pause_s=0.3)


def _check_whole(address: str, trials: int, epochs: int) -> None:
    assert_continued(open_run(address), trials, epochs)
    assert [n for n in ObjectStore(address).files() if "/last/" in n or ".claims" in n] == []


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_search_goes_on_from_the_store_on_another_machine(
    search_options: list[str],
    address: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "first")}
    with begun(*search_options, "--trials=3", f"--epochs={LONG}", env=first) as driver:
        _wait_for_epochs(address, 5, driver)
        refused = pawtune(capsys, "resume", address, "--quiet")
        assert refused.code == 2
        assert f"pets is held by process {driver.pid} on " in refused.err
    reached = _reached(address)
    assert 5 <= reached < LONG
    shutil.rmtree(tmp_path / "first")
    mirrors._open.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "second"))
    assert pawtune(capsys, "leaderboard", address, "--json").json[0]["epochs"] >= reached
    resumed = pawtune(capsys, "resume", address, "--quiet")
    assert resumed.code == 0, resumed
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "third"))
    mirrors._open.clear()
    _check_whole(address, trials=3, epochs=LONG)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_store_that_is_away_for_20_s_costs_nothing(
    server: Server, search_options: list[str], address: str, tmp_path: Path
) -> None:
    long = ("--trials=3", f"--epochs={LONG}")
    with (tmp_path / "err").open("wb") as log, begun(*search_options, *long, stderr=log) as driver:
        _wait_for_epochs(address, 5, driver)
        with server.away():
            time.sleep(20)
        driver.wait(timeout=400)
    said = (tmp_path / "err").read_text()
    assert driver.returncode == 0, said
    assert "the object store does not answer, trying again" in said
    assert "the object store answers again" in said
    mirrors._open.clear()
    _check_whole(address, trials=3, epochs=LONG)
