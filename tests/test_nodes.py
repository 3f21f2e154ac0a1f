"""Searches on several nodes: where trials run, what they see, and what a lost node costs.

Nodes are real raylets on this machine: of `ray.cluster_utils.Cluster`, and of `ray start`.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ray.cluster_utils import Cluster

from pawtune.search.cluster.connection import WORKER_ENVIRONMENT
from pawtune.search.progress.run_status import of_run
from pawtune.search.run import open_run
from tests.ray_head import Head, kill_tree, ray_head, ray_node
from tests.test_faults import EPOCHS, Victim, _reap, begin  # noqa: F401  # a fixture
from tests.whole_run import assert_whole

pytestmark = pytest.mark.slow
LOOPBACK = "127.0.0.2"


@contextmanager
def nodes(*kinds: dict[str, Any]) -> Iterator[Cluster]:
    """A cluster of these nodes; the first is the head, which a driver runs beside."""
    common = {"node_ip_address": LOOPBACK, "object_store_memory": 100 * 2**20}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in WORKER_ENVIRONMENT.items():
            patch.setenv(name, value)  # as docs/cluster.md has it for `ray start`
        head, *others = kinds
        options = {"include_dashboard": False, **common, **head}
        cluster = Cluster(initialize_head=True, connect=False, head_node_args=options)
        try:
            for kind in others:
                cluster.add_node(wait=False, **common, **kind)
            yield cluster
        finally:
            cluster.shutdown()


def facts(victim: Victim) -> dict[str, dict[str, Any]]:
    """By trial."""
    return {
        trial.trial_id: json.loads(trial.facts_file.read_text()) for trial in victim.run.trials()
    }


def wait_for_end(victim: Victim, timeout_s: float = 120) -> str:
    out, err = victim.process.communicate(timeout=timeout_s)
    assert victim.process.returncode == 0, err
    return str(out + err)


def most_at_once(victim: Victim, place: Callable[[str], Any]) -> dict[Any, int]:
    """By place, the most trials that had epochs at one time there."""
    spans: dict[str, list[float]] = {}
    for moment, trial_id, *_ in victim.epochs():
        spans.setdefault(trial_id, []).append(moment)
    most: dict[Any, int] = {}
    for moment, trial_id, *_ in victim.epochs():
        here = place(trial_id)
        there = [i for i, times in spans.items() if min(times) <= moment <= max(times)]
        most[here] = max(most.get(here, 0), sum(place(i) == here for i in there))
    return most


def test_trials_spread_over_all_nodes(tiny_images: Path, runs_dir: Path) -> None:
    with nodes({"num_cpus": 1}, {"num_cpus": 1}, {"num_cpus": 1}) as cluster:
        victim = begin(runs_dir, tiny_images, "--trials=6", address=cluster.address, epoch_s=0.4)
        wait_for_end(victim)
    assert_whole(victim.run.root, 6, EPOCHS)
    assert len({fact["node"] for fact in facts(victim).values()}) == 3
    assert {fact["threads"] for fact in facts(victim).values()} == {1}
    assert all(fact["gpus"] == [] for fact in facts(victim).values())


def test_short_trials_have_all_workers(tiny_images: Path, runs_dir: Path) -> None:
    """Trials of 0.3 s, workers that take seconds to start: all start, and none is replaced."""
    with nodes({"num_cpus": 8}) as cluster:
        options = ("--trials=120", f"--epochs={EPOCHS}", "--set=keep_weights=120")
        victim = begin(runs_dir, tiny_images, *options, address=cluster.address, epoch_s=0.04)
        wait_for_end(victim)
    assert_whole(victim.run.root, 120, EPOCHS)
    workers = [pid for *_, pid, _ in victim.epochs()]
    by_worker = {pid: workers.count(pid) // EPOCHS for pid in set(workers)}
    print(f"\ntrials by worker: {sorted(by_worker.values())}")
    assert len(by_worker) == 8


FOUR_GPUS = ({"num_cpus": 0}, {"num_cpus": 4, "num_gpus": 2}, {"num_cpus": 4, "num_gpus": 2})


def test_each_trial_sees_the_gpus_that_are_its_own(tiny_images: Path, runs_dir: Path) -> None:
    with nodes(*FOUR_GPUS) as cluster:
        whole = begin(
            runs_dir / "1", tiny_images, "--trials=8", "--cpus-per-trial=2",
            address=cluster.address, epoch_s=0.4,
        )  # fmt: skip
        wait_for_end(whole)
        half = begin(
            runs_dir / "2", tiny_images, "--trials=10", "--gpus-per-trial=0.5",
            address=cluster.address, epoch_s=0.6,
        )  # fmt: skip
        wait_for_end(half)
        none = begin(runs_dir / "3", tiny_images, "--gpus-per-trial=0", address=cluster.address)
        wait_for_end(none)

    def card(victim: Victim) -> Callable[[str], tuple[str, str]]:
        known = facts(victim)
        return lambda trial_id: (known[trial_id]["node"], known[trial_id]["device"])

    assert_whole(whole.run.root, 8, EPOCHS)
    assert {fact["threads"] for fact in facts(whole).values()} == {2}
    assert set(most_at_once(whole, card(whole)).values()) == {1}
    assert len(most_at_once(whole, card(whole))) == 4, "not all four cards were used"
    assert_whole(half.run.root, 10, EPOCHS)
    assert set(most_at_once(half, card(half)).values()) == {2}
    assert {fact["device"] for fact in facts(none).values()} == {""}
    assert all(fact["gpus"] == [] for fact in facts(none).values())


def test_a_node_that_is_killed(tiny_images: Path, runs_dir: Path) -> None:
    with nodes({"num_cpus": 0}, {"num_cpus": 1}, {"num_cpus": 1}) as cluster:
        options = ("--trials=4", "--json")
        # Long enough that the search is there when Ray takes the node for dead, some 10 s later.
        victim = begin(runs_dir, tiny_images, *options, address=cluster.address, epoch_s=1.2)
        victim.wait_for(lambda: len({node for *_, node in victim.epochs()}) == 2)
        victim.wait_for(lambda: len(victim.epochs()) >= 8)
        lost = cluster.list_all_nodes()[1]
        gone, trial_id = lost.node_id, ""
        last = {node: (trial, epoch) for _, trial, epoch, _, node in victim.epochs()}
        trial_id, reached = last[gone]
        killed = time.time()
        cluster.remove_node(lost, allow_graceful=False)
        cluster.add_node(
            wait=False, num_cpus=1, node_ip_address=LOOPBACK, object_store_memory=100 * 2**20
        )
        out, err = victim.process.communicate(timeout=120)
    assert victim.process.returncode == 0, err
    assert len(json.loads(out)["leaderboard"]) == 4, "stdout is not JSON alone"
    lost = f"the cluster has lost node {LOOPBACK} ({gone[:8]}): its trials continue elsewhere"
    assert lost in err
    tell("node SIGKILL", victim, killed, trial_id, reached, gone)
    assert_whole(victim.run.root, 4, EPOCHS)


def tell(
    fault: str, victim: Victim, killed: float, trial_id: str, reached: int, gone: int | str
) -> None:
    """Prints, and checks, what a trial lost and when it continued.

    Workers of a node that is gone, a process or a node here, continue for some tenths of a second.
    """
    after = [
        (t, e)
        for t, trial, e, *where in victim.epochs()
        if trial == trial_id and t > killed and gone not in where
    ]
    again = [(t, e) for t, e in after if e <= reached]
    moment, first = min(after)
    print(
        f"\n{fault}: trial {trial_id} had {reached} epochs, continued with epoch {first} "
        f"{moment - killed:.1f} s later; {len(again)} epochs ran twice"
    )
    assert len(again) <= 2


def test_a_trial_that_takes_the_memory_of_its_node(tiny_images: Path, runs_dir: Path) -> None:
    """Ray's memory monitor kills its worker, each time; the other trials run to their ends."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
    total, free = kilobytes["MemTotal"], kilobytes["MemAvailable"]
    if free < 8e6:
        pytest.skip(f"8 GB of memory must be free, {free / 1e6:.1f} GB are")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_memory_usage_threshold", f"{(total - free + 4e6) / total:.3f}")
        patch.setenv("RAY_memory_monitor_refresh_ms", "100")
        with nodes({"num_cpus": 2}) as cluster:
            victim = begin(
                runs_dir, tiny_images, address=cluster.address, hog="0002", limit_mb=7000
            )
            said = wait_for_end(victim)
    reason = victim.run.trial("0002").read_status().reason
    print(f"\nout of memory: {reason}\n{said}")
    assert "the worker process died 4 times in this trial: out of memory" in reason
    assert_whole(victim.run.root, 3, EPOCHS, failed=1)


def drain(cluster: Cluster, node_id: str, deadline_s: int) -> None:
    """Tells a node that its machine will be taken away."""
    told = subprocess.run(
        [
            str(Path(sys.executable).parent / "ray"), "drain-node",
            f"--address={cluster.address}", f"--node-id={node_id}",
            "--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot",
            f"--deadline-remaining-seconds={deadline_s}",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr


def test_on_a_node_that_is_drained_no_trial_begins(tiny_images: Path, runs_dir: Path) -> None:
    """Also where a worker there has just become free."""
    with nodes({"num_cpus": 0}, {"num_cpus": 1}, {"num_cpus": 1}) as cluster:
        victim = begin(runs_dir, tiny_images, "--trials=16", address=cluster.address, epoch_s=0.15)
        victim.wait_for(lambda: len({node for *_, node in victim.epochs()}) == 2)
        leaves = cluster.list_all_nodes()[1].node_id
        drain(cluster, leaves, deadline_s=600)
        drained = time.time()
        wait_for_end(victim)
    assert_whole(victim.run.root, 16, EPOCHS)
    begun = [(t, node) for t, _, epoch, _, node in victim.epochs() if epoch == 1]
    before = sum(node == leaves for t, node in begun if t <= drained)
    after = sum(node == leaves for t, node in begun if t > drained + 1)
    print(f"\ntrials begun on the node: {before} before it was drained, {after} after")
    assert before > 0 == after


def test_a_node_that_is_drained_as_spot_machines_are(tiny_images: Path, runs_dir: Path) -> None:
    """The notice first; then the machine goes."""
    with nodes({"num_cpus": 0}, {"num_cpus": 1}, {"num_cpus": 1}) as cluster:
        options = ("--trials=3", "--epochs=24")  # long enough to be running at the deadline
        victim = begin(runs_dir, tiny_images, *options, address=cluster.address, epoch_s=0.5)
        victim.wait_for(lambda: len({node for *_, node in victim.epochs()}) == 2)
        lost = cluster.list_all_nodes()[1]
        drain(cluster, lost.node_id, deadline_s=3)
        time.sleep(3)
        last = {node: (trial, epoch) for _, trial, epoch, _, node in victim.epochs()}
        trial_id, reached = last[lost.node_id]
        killed = time.time()
        cluster.remove_node(lost, allow_graceful=False)
        wait_for_end(victim)
    tell("node drained", victim, killed, trial_id, reached, lost.node_id)
    assert_whole(victim.run.root, 3, 24)
    assert all(node != lost.node_id for t, *_, node in victim.epochs() if t > killed + 2)


def test_a_worker_that_is_killed(tiny_images: Path, runs_dir: Path) -> None:
    with nodes({"num_cpus": 1}) as cluster:
        victim = begin(runs_dir, tiny_images, "--trials=2", address=cluster.address, epoch_s=0.5)
        victim.wait_for(lambda: len(victim.epochs()) >= 4)
        _, trial_id, reached, pid, _ = victim.epochs()[-1]
        killed = time.time()
        os.kill(pid, signal.SIGKILL)
        wait_for_end(victim)
    tell("worker SIGKILL", victim, killed, trial_id, reached, pid)
    assert_whole(victim.run.root, 2, EPOCHS)


def test_a_node_that_is_lost_while_it_decodes(tiny_images: Path, tmp_path: Path) -> None:
    """The other one has its shards decoded again, and later the pixels need neither of them.

    In a process of its own, for this one may be a driver of another cluster.
    """
    with nodes({"num_cpus": 0}, {"num_cpus": 1}, {"num_cpus": 1}) as cluster:
        cluster.wait_for_nodes()
        seeing = [node.node_id for node in cluster.list_all_nodes()[1:]]
        command = [
            sys.executable, "-m", "tests.decode_on_nodes", cluster.address, str(tiny_images),
            str(tmp_path / "cache"), *seeing,
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdout is not None
            assert driver.stdout.readline() == "first shard\n"
            cluster.remove_node(cluster.list_all_nodes()[1], allow_graceful=False)
            assert driver.stdout.readline() == "decoded\n"
            cluster.remove_node(cluster.list_all_nodes()[1], allow_graceful=False)
            told, _ = driver.communicate(timeout=60)
    assert driver.returncode == 0
    assert told == "all there\n"


@pytest.fixture(scope="module")
def many_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,401 images, of which one cannot be read."""
    root = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    for label in ("blue", "red"):
        (root / label).mkdir()
        for number in range(1200):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{number}.png")
    (root / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return root


@pytest.mark.parametrize("what", ["free", "a node is lost", "busy"])
def test_all_nodes_that_see_the_images_hash_them(many_images: Path, what: str) -> None:
    """What is found is what one process finds; nobody waits for a node that is lost or busy."""
    with nodes({"num_cpus": 0}, {"num_cpus": 1}, {"num_cpus": 1}) as cluster:
        cluster.wait_for_nodes()
        command = [
            sys.executable, "-m", "tests.hash_on_nodes", cluster.address, str(many_images), what
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdout is not None
            assert driver.stdout.readline() == "begun\n"
            if what == "a node is lost":
                cluster.remove_node(cluster.list_all_nodes()[1], allow_graceful=False)
            said, _ = driver.communicate(timeout=50)
    assert driver.returncode == 0
    here, total = map(int, said.split())
    print(f"\n{what}: the driver read {here} of {total} shards")
    if what != "a node is lost":  # the driver may have read all before the other node has begun
        assert here == total if what == "busy" else here < total


def test_nodes_of_ray_start_and_a_head_that_is_lost(tiny_images: Path, runs_dir: Path) -> None:
    with ray_head(with_token=True) as head, ray_node(head), ray_node(head):
        victim = on(head, runs_dir, tiny_images, "--trials=8", epoch_s=2.0)
        victim.wait_for(lambda: len({node for *_, node in victim.epochs()}) == 3)
        victim.wait_for(lambda: len(victim.epochs()) >= 12)
        killed = time.time()
        kill_tree(head.process_id)
        out, err = victim.process.communicate(timeout=120)
        ended = time.time() - killed
    assert victim.process.returncode != 0
    assert "Traceback" not in err, err
    said = [line for line in err.splitlines() if "does not answer" in line]
    assert len(said) == 1
    assert f"`pawtune resume {victim.run.root} --address HOST:PORT`" in said[0]
    print(f"\nhead lost: the driver ended {ended:.1f} s later, code {victim.process.returncode}")
    print(f"what it had said: {said[0]}")
    before = {trial.trial_id: len(trial.read_metrics()) for trial in victim.run.trials()}
    with ray_head(with_token=True) as head:
        again = time.time()
        victim.environment |= head.environment
        victim.process = victim.start(
            "resume", str(victim.run.root), f"--address={head.gcs_address}", "--quiet"
        )
        wait_for_end(victim)
    first = min(t for t, *_ in victim.epochs() if t > again)
    print(f"{before} epochs kept; on another head the first new one came in {first - again:.1f} s")
    assert_whole(victim.run.root, 8, EPOCHS)


def test_status_says_what_a_trial_waits_for(tiny_images: Path, runs_dir: Path) -> None:
    """Two searches on one cluster with one GPU: a trial waits, and says for what."""
    with nodes({"num_cpus": 2, "num_gpus": 1}) as cluster:
        conv = "--families=conv"  # whose pixels are decoded without a GPU
        first = begin(runs_dir / "1", tiny_images, conv, address=cluster.address, epoch_s=9.0)
        first.wait_for(lambda: first.count("running") == 1)
        second = begin(runs_dir / "2", tiny_images, conv, address=cluster.address)
        second.wait_for(lambda: second.count("pending") == 1, timeout_s=90)
        trial = status_with(second, " s for ", 90)
    print(f"\n{trial}")
    waits = r"waits \d+ s for 1 CPU \+ 1 GPU; free on all nodes together: 1 CPU "
    waits += r"\(1 x 2 CPU \+ 1 GPU now\)"
    assert re.fullmatch(f"running; trials: 1 pending; trial 0001 {waits}", trial)


def status_with(victim: Victim, words: str, timeout_s: float) -> str:
    """The status of a run, once it has the words."""
    told = ""
    deadline = time.monotonic() + timeout_s
    while words not in told:
        assert victim.process.poll() is None, victim.process.communicate()
        assert time.monotonic() < deadline, told
        time.sleep(0.5)
        if victim.run.config_file.exists():
            told = of_run(open_run(victim.run.root).folder).text()
    return told


def on(head: Head, runs_dir: Path, images: Path, *options: str, **settings: Any) -> Victim:
    """A driver beside a head of `ray start`."""
    return begin(
        runs_dir, images, *options, address=head.gcs_address, environment=head.environment,
        **settings,
    )  # fmt: skip
