"""Searches on a cluster that starts with nothing but a head: its autoscaler adds what they need.

Head, autoscaler and nodes are real, of `ray start`; the machines are raylets on this one.
"""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pawtune.search.run import open_run
from pawtune.search.storage.run_folder import read_json
from tests.autoscaled_head import autoscaled_head, node_type, raylet_blind_to
from tests.ray_head import Head
from tests.test_faults import EPOCHS, Victim, _reap  # noqa: F401  # a fixture
from tests.test_node_check import options
from tests.test_nodes import facts, most_at_once, on, status_with, wait_for_end
from tests.test_refusals import AT_ONCE_S
from tests.whole_run import assert_whole

pytestmark = pytest.mark.slow

# As in cluster.yaml: spot machines, and the same on demand.
TYPES = {"spot": node_type(2, 1, 2), "on_demand": node_type(2, 1, 1)}
MAY_COME = "1 x 0 CPU now; its autoscaler may have 3 x 2 CPU + 1 GPU, 2 at once"
WHOLE_NODE = "--cpus-per-trial=2"
DELAY_S = 20.0  # of a node: longer than what is usual for a worker


def seconds_until_alone(head: Head) -> float:
    """How long until all nodes but the head are gone."""
    code = (
        "import ray, time\n"
        f"ray.init(address={head.gcs_address!r}, log_to_driver=False, logging_level='ERROR')\n"
        "while sum(node['Alive'] for node in ray.nodes()) > 1:\n    time.sleep(0.2)\n"
    )
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], env=head.environment, timeout=90, check=True)
    return time.monotonic() - began


def test_nodes_come_for_a_search_and_go_after_it(
    tiny_images: Path, runs_dir: Path, tmp_path: Path
) -> None:
    with autoscaled_head(TYPES, with_token=True, delay_s=DELAY_S) as head:
        refuse_the_impossible(head, tiny_images, runs_dir, tmp_path)
        victim = on(head, runs_dir, tiny_images, "--trials=6", WHOLE_NODE, epoch_s=0.8)
        report = status_with(victim, "s for 2 CPU + 1 GPU", 60)
        print(f"\n{report}")
        assert report.startswith("running; trials: ")
        assert f"s for 2 CPU + 1 GPU; free on all nodes together: 0 CPU ({MAY_COME})" in report
        wait_for_end(victim)
        assert_whole(victim.run.root, 6, EPOCHS)
        at_once = most_at_once(victim, lambda i: facts(victim)[i]["node"])
        assert sorted(at_once.values()) == [1, 1], "not each of two nodes had a trial at a time"
        print(f"the nodes were gone {seconds_until_alone(head):.1f} s after the search")
        # Bank and pixels were made on nodes that are gone; the next trials bring others.
        again = time.time()
        victim.process = victim.start(
            "resume", str(victim.run.root), "--trials=+2", f"--address={head.gcs_address}"
        )
        report = status_with(victim, "; trial 0007 waits ", 60)
        print(report)
        assert f"s for 2 CPU + 1 GPU; free on all nodes together: 0 CPU ({MAY_COME})" in report
        out = wait_for_end(victim)
    assert_whole(victim.run.root, 8, EPOCHS)
    first = min(t for t, *_ in victim.epochs() if t > again)
    print(f"the first epoch came {first - again:.1f} s after resume")
    said = [line for line in out.splitlines() if " s for 2 CPU + 1 GPU; free" in line]
    assert len(said) == 1, out
    assert said[0].startswith("2 trials: waits ")
    assert "infeasible" not in out


def refuse_the_impossible(head: Head, images: Path, runs_dir: Path, cwd: Path) -> None:
    began = time.monotonic()
    refused = head.pawtune(
        "run", f"--data={images}", f"--runs-dir={runs_dir}", f"--address={head.gcs_address}",
        "--cpus-per-trial=3", cwd=cwd,
    )  # fmt: skip
    seconds = time.monotonic() - began
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "pawtune: --cpus-per-trial must fit on one node, received 3: the largest node has 2 CPUs "
        f"({MAY_COME}); ask for less, or join a larger cluster with --address\n"
    )
    assert seconds < AT_ONCE_S


def test_a_real_search_begins_on_a_head_without_cpus(
    tiny_images: Path, runs_dir: Path, tmp_path: Path
) -> None:
    """With the first of Ray's autoscalers, which `ray up` still takes where it is asked for."""
    with autoscaled_head(TYPES, version=1) as head:
        ended = head.pawtune(*options(tiny_images, runs_dir, head), cwd=tmp_path, timeout_s=300)
        assert ended.returncode == 0, ended.stderr
        print(f"\nthe nodes were gone {seconds_until_alone(head):.1f} s after the search")
    run = open_run("r", runs_dir)
    assert [row.status for row in run.rows()] == ["completed"] * 4
    assert {read_json(trial.facts_file)["device"] for trial in run.folder.trials()} == {"cpu"}


def test_nodes_that_come_need_not_see_the_runs(
    tiny_images: Path, runs_dir: Path, tmp_path: Path
) -> None:
    runs_dir.mkdir()
    raylet = raylet_blind_to(runs_dir, tmp_path / "raylet")
    conv = ("--trials=4", "--families=conv")
    with autoscaled_head(TYPES, raylet=raylet) as head:
        victim = on(head, runs_dir, tiny_images, *conv, log_dir=str(tmp_path))
        wait_for_end(victim, timeout_s=200)
    assert_whole(victim.run.root, 4, EPOCHS)
