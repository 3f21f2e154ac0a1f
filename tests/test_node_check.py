"""Nodes that see neither the run folder nor the images: real ones, in mount namespaces.

Such a node sees an empty folder where the others see the runs or the photographs.
"""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pawtune.search.run import open_run
from pawtune.search.storage.run_folder import read_json
from tests.ray_head import IP, NODE_PORTS, Head, free_ports, kill_tree, ray_head
from tests.test_faults import EPOCHS, _reap  # noqa: F401  # a fixture
from tests.test_nodes import on, tell, wait_for_end
from tests.whole_run import assert_whole

pytestmark = pytest.mark.slow


@pytest.fixture
def head() -> Iterator[Head]:
    with ray_head(with_token=False) as head:
        yield head


@contextmanager
def node_blind_to(head: Head, folder: Path, num_cpus: int = 1, number: int = 2) -> Iterator[None]:
    """A further node, to which a folder is empty; skips where no namespace can be made."""
    mount = f"mount -t tmpfs none {shlex.quote(str(folder))}"
    if subprocess.run(["unshare", "--mount", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("mount namespaces are refused here: unshare --mount needs root")
    ports = dict(zip(NODE_PORTS, free_ports(len(NODE_PORTS)), strict=True))
    options = [f"--{name}={port}" for name, port in ports.items()]
    options += [f"--address={head.gcs_address}", f"--num-cpus={num_cpus}", "--num-gpus=0"]
    options += [f"--node-ip-address={IP}", "--min-worker-port=0", "--max-worker-port=0"]
    options += ["--object-store-memory=150000000", "--disable-usage-stats"]
    start = [str(Path(sys.executable).parent / "ray"), "start", "--block", *options]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", f"{mount} && exec {shlex.join(start)}"],
            env=head.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            wait_for_nodes(head, number)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                kill_tree(process.pid)
                process.wait(20)


def wait_for_nodes(head: Head, count: int) -> None:
    code = (
        "import ray, sys, time\n"
        f"ray.init(address={head.gcs_address!r}, log_to_driver=False, logging_level='ERROR')\n"
        f"while len(ray.nodes()) < {count}:\n    time.sleep(0.2)\n"
    )
    subprocess.run([sys.executable, "-c", code], env=head.environment, timeout=90, check=True)


def options(images: Path, runs_dir: Path, head: Head) -> list[str]:
    return [
        "run", f"--data={images}", "--families=conv", "--image-size=32", "--no-baselines",
        "--set=space.filters=[8]", "--set=space.conv_depth=2", "--trials=4", "--epochs=1",
        "--name=r", f"--runs-dir={runs_dir}", f"--address={head.gcs_address}",
    ]  # fmt: skip


def test_no_trial_needs_to_see_the_run_folder(
    tiny_images: Path, tmp_path: Path, runs_dir: Path
) -> None:
    """Three nodes: the driver's runs no trials, and the others do not see where they are kept.

    A trial whose worker is killed continues from its state all the same.
    """
    runs_dir.mkdir()
    with (
        ray_head(with_token=False, num_cpus=0) as head,
        node_blind_to(head, runs_dir),
        node_blind_to(head, runs_dir, number=3),
    ):
        victim = on(head, runs_dir, tiny_images, "--trials=4", log_dir=str(tmp_path), epoch_s=0.5)
        victim.wait_for(lambda: len(victim.epochs()) >= 8)
        _, trial_id, reached, pid, _ = victim.epochs()[-1]
        killed = time.time()
        os.kill(pid, signal.SIGKILL)
        wait_for_end(victim)
        real = head.pawtune(
            *options(tiny_images, runs_dir, head), "--name=real", cwd=tmp_path, timeout_s=300
        )
    tell("worker SIGKILL, no shared folder", victim, killed, trial_id, reached, pid)
    assert_whole(victim.run.root, 4, EPOCHS)
    assert real.returncode == 0, real.stderr
    assert "look at the nodes: 3 done" in real.stderr
    run = open_run("real", runs_dir)
    assert [row.status for row in run.rows()] == ["completed"] * 4
    assert all(trial.best_weights.exists() for trial in run.folder.trials())
    assert len({read_json(trial.facts_file)["node"] for trial in run.folder.trials()}) == 2


def test_a_node_that_does_not_see_the_images_gets_their_pixels(
    head: Head, tiny_images: Path, tmp_path: Path, runs_dir: Path
) -> None:
    with node_blind_to(head, tiny_images, num_cpus=2):
        ended = head.pawtune(*options(tiny_images, runs_dir, head), cwd=tmp_path, timeout_s=300)
    assert ended.returncode == 0, ended.stderr
    assert "look at the nodes: 2 done" in ended.stderr
    run = open_run("r", runs_dir)
    assert [row.status for row in run.rows()] == ["completed"] * 4
    nodes = {read_json(trial.facts_file)["node"] for trial in run.folder.trials()}
    assert len(nodes) == 2, "no trial ran on the node without images"
    assert os.listdir(tiny_images)
