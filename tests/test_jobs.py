"""Searches as jobs of a real Ray head, with and without token, and what is said when it fails."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pawtune.search.config.search_config import SearchConfig, load_config
from pawtune.search.errors import UserError
from pawtune.search.jobs.api import JobsApi
from pawtune.search.jobs.ray_jobs import Job, _folder_of, _of_run, pack, placed, resume
from tests.command_line import pawtune
from tests.ray_head import Head, ray_head
from tests.run_folders import RunMaker, make_images
from tests.s3_server import CREDENTIALS
from tests.waiting import wait_until

AT_ONCE_S = 60.0  # answers are given up after seconds; a crowded machine takes the rest
TINY = ("--families=conv", "--trials=1", "--image-size=32", "--no-baselines")


@pytest.fixture(autouse=True)
def _own_token_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command sets for Ray in this process ends with the test."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")


@pytest.fixture(scope="module")
def guarded() -> Iterator[Head]:
    """A head that asks for a token."""
    with ray_head(with_token=True) as head:
        yield head


@pytest.fixture(scope="module")
def images(tiny_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small images where a job finds them."""
    folder = tmp_path_factory.mktemp("job") / "two words"  # survives the shell and the file
    shutil.copytree(tiny_images, folder)
    return folder


def refused(done: subprocess.CompletedProcess[str], *phrases: str) -> None:
    """Bad input: exit code 2, one line on stderr, nothing on stdout."""
    assert (done.returncode, done.stdout) == (2, ""), done
    (line,) = done.stderr.splitlines()
    assert line.startswith("pawtune: ")
    for phrase in phrases:
        assert phrase in line


def test_submit_follow_and_ask(guarded: Head, images: Path, tmp_path: Path) -> None:
    where = ("--address", guarded.address)
    options = ("--data", images, "--name=first", "--epochs=1", *TINY)
    submitted = guarded.pawtune("submit", *options, *where, cwd=tmp_path)
    assert submitted.returncode == 0, submitted.stderr
    assert submitted.stderr == ""
    job_id = submitted.stdout.split("as job ")[1].split(";")[0]
    assert f"pawtune logs {job_id} -f --address {guarded.address}" in submitted.stdout
    assert f"pawtune stop {job_id}" in submitted.stdout
    twice = guarded.pawtune("submit", *options, *where, cwd=tmp_path)
    refused(twice, f"received 'first', which job {job_id} searches", "nothing was submitted")

    followed = guarded.pawtune("logs", job_id, "-f", *where, cwd=tmp_path, timeout_s=120)
    assert followed.returncode == 0
    # What everybody on the cluster's machines may read names neither data nor options.
    command = "exec python -m pawtune run --config submitted.yaml --address auto"
    assert f"Running entrypoint for job {job_id}: {command}\n" in followed.stdout
    assert "best: conv-0001" in followed.stdout
    assert f"job {job_id}: SUCCEEDED" in followed.stderr
    ended = guarded.pawtune("logs", job_id, "--tail", "2", *where, cwd=tmp_path)
    assert ended.stdout.splitlines() == followed.stdout.splitlines()[-2:]

    asked = guarded.json("status", job_id, cwd=tmp_path)
    assert (asked["job"]["status"], asked["job"]["run"]) == ("SUCCEEDED", "first")
    assert asked["run"]["counts"] == {"completed": 1}
    run = guarded.pawtune("status", "first", cwd=tmp_path)
    assert "run first: ended; trials: 1 completed; best trial" in run.stdout
    named = guarded.pawtune("status", "first", *where, cwd=images)  # where no such run lies
    assert named.stdout.startswith(f"job {job_id}: SUCCEEDED")
    assert "run first: ended; trials: 1 completed" in named.stdout
    assert job_id in [job["job_id"] for job in guarded.json("list", cwd=tmp_path)]
    again = guarded.pawtune("submit", *options, *where, cwd=tmp_path)
    refused(again, "--name must be new, received 'first'", "nothing was submitted")


def leaves_it_running(head: Head, job_id: str, cwd: Path) -> None:
    """Ctrl-C while following a job ends the following, not the job."""
    with head.begin("logs", job_id, "-f", cwd=cwd) as following:
        assert following.stdout is not None
        following.stdout.readline()
        following.send_signal(signal.SIGINT)
        _, said = following.communicate(timeout=30)
    assert following.returncode == 130
    assert f"job {job_id} continues" in said
    assert "Traceback" not in said
    assert head.json("status", job_id, cwd=cwd)["job"]["status"] == "RUNNING"


def watches_it(head: Head, job_id: str, cwd: Path) -> None:
    """A job is watched as its run is; Ctrl-C leaves it."""
    with head.begin("status", job_id, "--watch", cwd=cwd) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith("[0/1] running: ")
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=30)
    assert said == ""


@pytest.mark.slow
def test_a_search_goes_on_as_another_job(guarded: Head, images: Path, tmp_path: Path) -> None:
    where = ("--address", guarded.address)
    options = ("--data", images, "--name=onward", "--epochs=1", *TINY)
    job_id = guarded.json("submit", *options, cwd=tmp_path)["job_id"]
    guarded.pawtune("logs", job_id, "-f", *where, cwd=tmp_path, timeout_s=120)

    resumed = guarded.pawtune("resume", job_id, "--trials=+1", *where, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.startswith("continues as job onward-")
    job_id = resumed.stdout.split("as job ")[1].split(";")[0]
    assert f"pawtune logs {job_id} -f --address {guarded.address}" in resumed.stdout
    followed = guarded.pawtune("logs", job_id, "-f", *where, cwd=tmp_path, timeout_s=120)
    assert f"job {job_id}: SUCCEEDED" in followed.stderr
    asked = guarded.json("status", job_id, cwd=tmp_path)
    assert (asked["run"]["name"], asked["run"]["counts"]) == ("onward", {"completed": 2})

    shutil.rmtree(tmp_path / "runs" / "onward")
    gone = guarded.pawtune("resume", "onward", *where, cwd=tmp_path)
    refused(gone, f"received 'onward', whose folder {tmp_path}/runs/onward is not there")


@pytest.mark.slow
def test_a_job_learns_from_an_earlier_run(
    guarded: Head, images: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for runs, name in ((tmp_path / "runs", "near"), (elsewhere, "far")):
        teacher = RunMaker(runs, make_images(tmp_path / name, ["a", "b"]), name, image_size=32)
        teacher.proposals(3, ["conv"])
        teacher.finish()
    taught = ("--learn-from=near", f"--learn-from=../{elsewhere.name}/far")
    options = ("--data", images, "--name=taught", "--epochs=1", *TINY, *taught)
    where = ("--address", guarded.address)
    submitted = guarded.pawtune("submit", *options, *where, cwd=tmp_path)
    assert submitted.returncode == 0, submitted.stderr
    followed = guarded.pawtune("logs", "taught", "-f", *where, cwd=tmp_path, timeout_s=120)
    for name in ("near", "far"):
        assert f"learns from {name}: where to begin, from 2 of 3 trials" in followed.stdout
    assert "job taught-" in followed.stderr
    assert ": SUCCEEDED" in followed.stderr
    kept = load_config(tmp_path / "runs" / "taught" / "search.yaml").learn_from
    assert kept == (f"{tmp_path}/runs/near", f"{elsewhere}/far")


@pytest.mark.slow
def test_a_job_that_fails_says_why_in_one_line(guarded: Head, tmp_path: Path) -> None:
    options = ("--data=sample", "--name=greedy", "--gpus-per-trial=1", *TINY)
    job_id = guarded.json("submit", *options, cwd=tmp_path)["job_id"]
    where = ("--address", guarded.address)
    followed = guarded.pawtune("logs", "greedy", "-f", *where, cwd=tmp_path, timeout_s=90)
    assert followed.returncode == 1
    said = guarded.pawtune("status", job_id, *where, cwd=tmp_path).stdout.splitlines()
    assert said[0].startswith(f"job {job_id}: FAILED, ")
    assert "with exit code 2: pawtune: --gpus-per-trial must fit on one node" in said[0]
    assert said[1:] == []


@pytest.mark.slow
def test_stop_keeps_finished_epochs(guarded: Head, images: Path, tmp_path: Path) -> None:
    where = ("--address", guarded.address)
    options = ("--data", images, "--name=long", "--epochs=5000", *TINY)
    job_id = guarded.json("submit", *options, cwd=tmp_path)["job_id"]
    metrics = tmp_path / "runs" / "long" / "trials" / "0001" / "metrics.csv"
    wait_until(metrics.exists, 90)
    asked = guarded.pawtune("status", "long", cwd=tmp_path)
    assert "run long: running; trials: 1 running" in asked.stdout
    leaves_it_running(guarded, job_id, tmp_path)
    watches_it(guarded, job_id, tmp_path)
    second = guarded.pawtune("resume", "long", *where, cwd=tmp_path)
    refused(second, f"a run has one driver at a time, and long is held by job {job_id}")
    bare = ("--address", guarded.address.removeprefix("http://"))
    stopped = guarded.pawtune("stop", "long", *bare, cwd=tmp_path)
    assert stopped.returncode == 0, stopped.stderr
    assert f"job {job_id}: STOPPED; what had finished is kept" in stopped.stdout
    assert f"pawtune resume {job_id} --address {guarded.address}" in stopped.stdout
    status = guarded.json("status", job_id, cwd=tmp_path)
    assert status["run"]["reason"] == "interrupted", "it was killed, not stopped in order"
    assert status["run"]["counts"] == {"interrupted": 1}
    assert len(metrics.read_text().splitlines()) >= 2
    told = guarded.pawtune("status", "long", cwd=tmp_path).stdout
    assert "run long: ended early, interrupted; trials: 1 interrupted" in told
    again = guarded.pawtune("stop", job_id, *where, cwd=tmp_path)
    assert f"job {job_id}: STOPPED" in again.stdout


def start_job(head: Head, command: str, **metadata: str) -> str:
    """Has a head run any command as the job of a search; waits until it runs."""
    job_id = f"{metadata['run']}-1"
    asked = {"entrypoint": command, "submission_id": job_id, "metadata": metadata}
    token = Path(head.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def ask(path: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(f"{head.address}/api/jobs/{path}", body, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    ask("", json.dumps(asked).encode())
    wait_until(lambda: ask(job_id)["status"] == "RUNNING", 30)
    return job_id


class Refusing(BaseHTTPRequestHandler):
    """A store that lets nobody in."""

    def do_GET(self) -> None:
        self.send_error(403)

    do_HEAD = do_GET

    def log_message(self, *words: object) -> None:
        """Says nothing."""


@pytest.mark.slow
def test_a_job_whose_bucket_is_shut_to_us(guarded: Head, tmp_path: Path) -> None:
    where = ("--address", guarded.address.removeprefix("http://"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as store:
        threading.Thread(target=store.serve_forever, daemon=True).start()
        endpoint = f"endpoint_override=http%3A%2F%2F127.0.0.1%3A{store.server_port}&scheme=http"
        folder = f"s3://bucket/runs/shut?{endpoint}"
        more = "while echo more; do sleep 0.1; done"
        job_id = start_job(guarded, more, pawtune="1", run="shut", folder=folder)
        asked = guarded.pawtune("status", "shut", *where, cwd=tmp_path, **CREDENTIALS)
        assert asked.returncode == 0, asked.stderr
        assert asked.stdout.startswith(f"job {job_id}: RUNNING, ")
        assert f"run shut: not read from here: {folder}: the object store refuses" in asked.stdout
        assert "Next:" not in asked.stdout
        watched = guarded.pawtune("status", job_id, "--watch", *where, cwd=tmp_path, **CREDENTIALS)
        refused(watched, "--watch reads the run's folder", "refuses access", f"logs {job_id} -f")
        store.shutdown()

    with guarded.begin("logs", job_id, "-f", cwd=tmp_path) as following:
        assert following.stdout is not None
        assert following.stderr is not None
        following.stdout.readline()
        following.stdout.close()  # as `| head -1` does
        assert following.wait(30) == 1
        assert following.stderr.read() == "", "the cluster is not to blame"

    stopped = guarded.pawtune("stop", job_id, *where, cwd=tmp_path)
    assert f"  pawtune resume {job_id} --address {guarded.address}\n" in stopped.stdout


def test_a_tunnel_to_a_far_cluster_is_no_cluster_here(guarded: Head, tmp_path: Path) -> None:
    """On loopback, but this "machine" has another name than the cluster's head."""
    elsewhere = ["unshare", "--uts", "sh", "-c", 'hostname laptop && exec "$@"', "sh"]
    if subprocess.run([*elsewhere, "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare --uts is not allowed here (it takes root): no second host name")
    (tmp_path / "pets").mkdir()
    command = [*elsewhere, sys.executable, "-m", "pawtune", "submit", "--data", "pets"]
    done = subprocess.run(
        [*command, "--address", guarded.address],
        cwd=tmp_path,
        env=guarded.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    refused(done, "--data must be", "received 'pets', a path of this machine", "--shared-path")


def a_job(job_id: str, status: str, folder: str = "/shared/runs/pets") -> Job:
    return Job(job_id, status, "pets", folder, 0.0, None, "")


def test_a_runs_name_stands_for_the_job_that_drives_it() -> None:
    third, second, first = (
        a_job("pets-3", "FAILED"),
        a_job("pets-2", "RUNNING"),
        a_job("pets-1", "STOPPED"),
    )
    assert _of_run("pets", [third, second, first]) == second
    assert _of_run("pets", [third, first]) == third
    assert _of_run("dogs", [third, second, first]) is None
    with pytest.raises(UserError, match=r"received 'pets'; .* pets-3 .*, other-1 \(/other/pets\)"):
        _of_run("pets", [third, a_job("other-1", "RUNNING", "/other/pets")])


def test_a_run_that_no_job_made_goes_on_as_a_job_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, known = JobsApi.__new__(JobsApi), [a_job("pets-1", "STOPPED")]
    api.shown = "http://127.0.0.1:8265"  # no cluster is asked
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/pets", "runs/birds", "kept/pets"):
        (tmp_path / folder).mkdir(parents=True)

    def found(name: str, here: bool, runs_dir: str = "runs") -> str:
        return _folder_of(api, name, known, here, runs_dir)

    assert found("pets-1", True, "kept") == "/shared/runs/pets", "a job's own name"
    assert found("pets", True) == str(tmp_path / "runs/pets"), "as every other command has it"
    assert found("pets", False) == "/shared/runs/pets", "the cluster does not see ./runs"
    assert found("birds", True) == str(tmp_path / "runs/birds")
    assert found("pets", True, "kept") == str(tmp_path / "kept/pets")
    assert found("pets", False, "/shared/old") == "/shared/old/pets"
    assert found("pets", False, "s3://bucket/runs") == "s3://bucket/runs/pets"
    assert found("/shared/x", False, "/shared/old") == "/shared/x"
    with pytest.raises(UserError, match="received 'birds'; its jobs: pets-1"):
        found("birds", False)


def test_the_port_that_workers_join_is_no_dashboard(guarded: Head, tmp_path: Path) -> None:
    done = guarded.pawtune("list", "--address", guarded.gcs_address, cwd=tmp_path)
    refused(done, f"received http://{guarded.gcs_address}: that port does not speak HTTP")


@pytest.mark.slow
def test_another_ray_that_holds_the_agents_port_is_named(images: Path, tmp_path: Path) -> None:
    port = "dashboard-agent-listen-port"
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        with ray_head(with_token=False, chosen={port: other.getsockname()[1]}) as head:
            options = ("--data", images, "--name=held", "--epochs=1", *TINY)
            done = head.pawtune("submit", *options, "--address", head.address, cwd=tmp_path)
            refused(done, f"the cluster at {head.address} takes no job: ", f"head with --{port}")
            joined = head.pawtune("run", *options, "--address", head.gcs_address, cwd=tmp_path)
            assert joined.returncode == 0, joined.stderr  # a search that joins it needs no agent


def test_no_such_job(guarded: Head, tmp_path: Path) -> None:
    for verb in ("logs", "stop"):
        done = guarded.pawtune(verb, "nope", "--address", guarded.address, cwd=tmp_path)
        refused(done, "JOB must be a job of the cluster", "received 'nope'")
    unknown = guarded.pawtune("resume", "nope", "--address", guarded.address, cwd=tmp_path)
    refused(unknown, "RUN must be a job of the cluster", "received 'nope'", "its jobs: ")
    neither = guarded.pawtune("status", "nope", "--address", guarded.address, cwd=tmp_path)
    refused(neither, "neither a run", "nor a job")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"RAY_AUTH_TOKEN_PATH": None, "RAY_AUTH_MODE": None}, "needs a token"),
        ({"RAY_AUTH_TOKEN_PATH": None, "RAY_AUTH_MODE": "token"}, "RAY_AUTH_MODE asks for a token"),
        ({"RAY_AUTH_TOKEN_PATH": None, "RAY_AUTH_TOKEN": "ab" * 32}, "refused our token"),
    ],
)
def test_without_the_token_nobody_gets_in(
    guarded: Head, tmp_path: Path, changes: dict[str, str | None], problem: str
) -> None:
    started = time.monotonic()
    done = guarded.pawtune("list", "--address", guarded.address, cwd=tmp_path, **changes)
    assert time.monotonic() - started < AT_ONCE_S
    refused(done, problem, "RAY_AUTH_TOKEN_PATH")
    assert "abab" not in done.stderr


def test_a_wrong_weights_file_is_refused_before_the_job(
    guarded: Head, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "w.h5").write_bytes(b"no weights")
    search = ("submit", "--data", images, "--address", guarded.address, "--name", "never")
    done = guarded.pawtune(*search, "--weights", "w.h5", cwd=tmp_path)
    refused(done, "weights must be those of MobileNetV2 without the top, received", "as HDF5")
    done = guarded.pawtune(*search, "--weights", "VGG16=w.h5", cwd=tmp_path)
    refused(done, "--weights must be of a backbone that is searched, received VGG16's")
    listed = guarded.pawtune("list", "--address", guarded.address, cwd=tmp_path)
    assert "never" not in listed.stdout


def test_a_token_in_the_home_folder_is_used(guarded: Head, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    shutil.copy(guarded.environment["RAY_AUTH_TOKEN_PATH"], home / ".ray" / "auth_token")
    changes = {"HOME": str(home), "RAY_AUTH_TOKEN_PATH": None, "RAY_AUTH_MODE": None}
    done = guarded.pawtune("list", "--address", guarded.address, cwd=tmp_path, **changes)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_cluster_without_token(images: Path, tmp_path: Path) -> None:
    with ray_head(with_token=False) as head:
        assert head.json("list", cwd=tmp_path) == []
        empty = head.pawtune("list", "--address", head.address, cwd=tmp_path)
        assert "no search was submitted" in empty.stdout
        options = ("--data", images, "--name=open", "--epochs=1", *TINY)
        job_id = head.json("submit", *options, cwd=tmp_path)["job_id"]
        where = ("--address", head.address)
        followed = head.pawtune("logs", job_id, "-f", *where, cwd=tmp_path, timeout_s=120)
        assert "best: conv-0001" in followed.stdout
        job_id = head.json("resume", "open", "--trials=+1", cwd=tmp_path)["job_id"]
        followed = head.pawtune("logs", job_id, "-f", *where, cwd=tmp_path, timeout_s=120)
        assert "best of 2 trials" in followed.stdout


@pytest.mark.slow
def test_a_head_that_goes_while_one_follows(images: Path, tmp_path: Path) -> None:
    with ray_head(with_token=True) as head:
        options = ("--data", images, "--name=lost", "--epochs=5000", *TINY)
        job_id = head.json("submit", *options, cwd=tmp_path)["job_id"]
        following = head.begin("logs", job_id, "-f", cwd=tmp_path)
        assert following.stdout is not None
        following.stdout.readline()
    _, said = following.communicate(timeout=AT_ONCE_S)
    assert following.returncode == 2
    assert f"the cluster at {head.address} failed: " in said
    assert "Traceback" not in said


def test_a_cluster_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    for address, problem in [
        ("http://127.0.0.1:1", "Connection refused"),
        ("ray://127.0.0.1:10001", "must be the URL of a cluster's dashboard"),
        ("auto", "must be the URL of a cluster's dashboard"),
        ("http://me:geheim@127.0.0.1:1", "received http://***@127.0.0.1:1"),
    ]:
        started = time.monotonic()
        outcome = pawtune(capsys, "list", "--address", address)
        assert time.monotonic() - started < AT_ONCE_S
        assert (outcome.code, outcome.out) == (2, "")
        assert problem in outcome.err
        assert "geheim" not in outcome.err


def test_a_server_that_never_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        outcome = pawtune(capsys, "list", "--address", address)
        assert time.monotonic() - started < AT_ONCE_S
    assert outcome.code == 2
    assert "timed out" in outcome.err


def test_a_server_that_is_no_cluster(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from functools import partial

    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        outcome = pawtune(capsys, "list", "--address", address)
        (tmp_path / "api" / "jobs").mkdir(parents=True)
        (tmp_path / "api" / "jobs" / "index.html").write_text("<html>Grafana</html>")
        page = pawtune(capsys, "list", "--address", address)
        server.shutdown()
    assert outcome.code == 2
    assert "it answered 404" in outcome.err
    assert page.code == 2
    assert "that page is not the Ray dashboard" in page.err


def test_elsewhere_without_a_token_only_if_one_insists(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    outcome = pawtune(capsys, "list", "--address", "http://192.0.2.1:8265")
    assert outcome.code == 2
    assert "is not this machine, and there is no token" in outcome.err
    assert "or add --insecure" in outcome.err


def config(**settings: Any) -> SearchConfig:
    return load_config(None, (), {"data": "sample", "runs_dir": "/shared/runs", **settings})


@pytest.mark.parametrize(
    "data", ["sample", "https://host/a.zip", "s3://bucket/pets", "/shared/not-here/pets"]
)
def test_data_that_a_far_cluster_can_see(data: str) -> None:
    assert placed(config(data=data), here=False, shared=False).data == data


@pytest.mark.parametrize("option", ["data", "weights"])
def test_a_path_that_only_the_submitter_has(option: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.touch()
    for given in (str(mine), "mine", "nowhere"):
        with pytest.raises(UserError, match=rf"--{option} must be .*a path that the cluster sees"):
            placed(config(**{option: given}), here=False, shared=False)
    assert getattr(placed(config(**{option: "mine"}), True, shared=True), option) == str(mine)


def test_earlier_runs_that_a_job_can_see(tmp_path: Path) -> None:
    (tmp_path / "mine" / "pets").mkdir(parents=True)
    known: Any = {"learn_from": ["pets", "s3://bucket/runs/cats", "/shared/runs/dogs"]}
    assert placed(config(**known), here=False, shared=False).learn_from == tuple(
        known["learn_from"]
    )
    path: Any = {"learn_from": ["mine/pets"], "runs_dir": "mine"}
    with pytest.raises(UserError, match=r"--learn-from must be the name of a run or a path that"):
        placed(config(**path), here=False, shared=False)
    assert placed(config(**path), here=True, shared=False).learn_from == (f"{tmp_path}/mine/pets",)
    for name in ("nowhere", "mine/nowhere"):
        lost: Any = {"learn_from": [name], "runs_dir": "mine"}
        with pytest.raises(UserError, match=rf"--learn-from must be .* exists, received '{name}'"):
            placed(config(**lost), here=True, shared=False)


def test_runs_of_a_far_cluster_lie_on_it() -> None:
    with pytest.raises(UserError, match=r"--runs-dir must be the full path .* received 'runs'"):
        placed(config(runs_dir="runs"), here=False, shared=False)
    assert placed(config(), here=False, shared=False).runs_dir == "/shared/runs"


class Recording(JobsApi):
    """Keeps what would be submitted; no cluster is asked."""

    def __init__(self) -> None:
        self.shown = "http://192.0.2.1:8265"
        self.address = self.shown
        self.submitted: dict[str, Any] = {}

    def ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        if method == "list_jobs":
            return []
        self.submitted = self.submitted or options
        told = {"submission_id": "pets-1", "status": "PENDING", "metadata": {}, "message": ""}
        return SimpleNamespace(**told, start_time=None, end_time=None)


def test_a_job_hears_what_an_autoscaler_may_add(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = "{available_node_types: {gpu: {resources: {CPU: 8, GPU: 1}, max_workers: 4}}}"
    for declared in (None, nodes):
        if declared is None:
            monkeypatch.delenv("PAWTUNE_AUTOSCALING", raising=False)
        else:
            monkeypatch.setenv("PAWTUNE_AUTOSCALING", declared)
        far = Recording()
        resume(far, "/shared/runs/pets")
        heard = far.submitted["runtime_env"]["env_vars"]
        assert heard["RAY_JOB_STOP_SIGNAL"] == "SIGINT"
        assert heard.get("PAWTUNE_AUTOSCALING") == declared


def test_what_is_shipped_is_code_and_configuration_alone(tmp_path: Path) -> None:
    pack(tmp_path, config(seed=7))
    names = {path.name for path in tmp_path.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {
        "pawtune",
        "submitted.yaml",
    }
    assert load_config(tmp_path / "submitted.yaml").seed == 7
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if "__pycache__" in path.parts]
    assert sum(path.stat().st_size for path in files) < 2_000_000


def test_submit_takes_the_options_of_run(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = pawtune(capsys, "submit", "--data", "sample", "--dry-run")
    assert "--dry-run submits nothing" in outcome.err
    outcome = pawtune(capsys, "submit", "--data", "sample", "--trails", "3")
    assert outcome.code == 2
    assert "No such option: --trails" in outcome.err
