"""Fitting trials onto a cluster: on GPUs where there are any, and never the impossible."""

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from pawtune.search.cluster import autoscaler
from pawtune.search.cluster.autoscaler import addable_nodes, nodes_to_come
from pawtune.search.cluster.capacity import Capacity, NodeKind
from pawtune.search.cluster.connection import claim_process, plan_resources
from pawtune.search.config.search_config import ResourcesConfig
from pawtune.search.errors import UserError

CLUSTER_FILE = Path(__file__).resolve().parent.parent / "cluster.yaml"
CPU_ONLY = Capacity((NodeKind(2, 0),))
FOUR_GPUS = Capacity((NodeKind(8, 2), NodeKind(8, 2)))
GPUS_TO_COME = Capacity((NodeKind(2, 0),), addable=(NodeKind(8, 1, count=4),))


@pytest.mark.parametrize(
    ("options", "expected_gpus", "expected_concurrency"),
    [
        ({}, 1.0, 4),
        ({"gpus_per_trial": 0.5}, 0.5, 8),
        ({"gpus_per_trial": 0.0}, 0.0, 16),
        ({"concurrency": 3}, 1.0, 3),
        ({"concurrency": 99}, 1.0, 4),
        ({"cpus_per_trial": 8.0}, 1.0, 2),
        ({"cpus_per_trial": 5.0}, 1.0, 2),  # what is left on two nodes makes no third
    ],
)
def test_trials_take_gpus_where_there_are_any(
    options: dict[str, float], expected_gpus: float, expected_concurrency: int
) -> None:
    plan = plan_resources(ResourcesConfig.model_validate(options), FOUR_GPUS)
    assert (plan.gpus, plan.concurrency) == (expected_gpus, expected_concurrency)


def test_without_gpus_trials_take_cpus() -> None:
    plan = plan_resources(ResourcesConfig(), CPU_ONLY)
    assert (plan.cpus, plan.gpus, plan.concurrency, plan.threads) == (1.0, 0.0, 2, 1)
    assert plan.per_trial == {"cpu": 1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"gpus_per_trial": 1.0},
            r"--gpus-per-trial must fit on one node, received 1: .* has 0 GPUs",
        ),
        (
            {"cpus_per_trial": 3.0},
            r"--cpus-per-trial must fit on one node, received 3: .* has 2 CPUs",
        ),
    ],
)
def test_impossible_requests_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_resources(ResourcesConfig.model_validate(options), CPU_ONLY)


def test_gpus_that_the_autoscaler_may_add_count() -> None:
    plan = plan_resources(ResourcesConfig(), GPUS_TO_COME)
    assert (plan.gpus, plan.concurrency) == (1.0, 4)
    with pytest.raises(UserError, match=r"received 99: .* 8 CPUs \(1 x 2 CPU now; its "):
        plan_resources(ResourcesConfig(cpus_per_trial=99), GPUS_TO_COME)


def test_nodes_of_the_autoscaler_that_are_there_count_once() -> None:
    some_up = Capacity((NodeKind(2, 0), NodeKind(8, 1)), addable=(NodeKind(8, 1, count=4),))
    assert plan_resources(ResourcesConfig(), some_up).concurrency == 4


def test_a_limit_for_all_nodes_of_the_autoscaler_together() -> None:
    mixed = Capacity(
        (NodeKind(0, 0),), addable=(NodeKind(4, 1, count=4), NodeKind(8, 2, count=1)), most_added=3
    )
    assert plan_resources(ResourcesConfig(), mixed).concurrency == 4  # the large one and two others
    assert mixed.text() == (
        "1 x 0 CPU now; its autoscaler may have 4 x 4 CPU + 1 GPU, 1 x 8 CPU + 2 GPU, 3 at once"
    )


def test_what_the_shipped_cluster_may_add() -> None:
    addable, most = addable_nodes(CLUSTER_FILE.read_text(encoding="utf-8"))
    assert addable == (NodeKind(8, 1, count=4), NodeKind(8, 1, count=2))
    head_only = Capacity((NodeKind(0, 0),), addable, most)
    assert plan_resources(ResourcesConfig(), head_only).concurrency == most == 4


def test_what_is_declared_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    types = "{available_node_types: {gpu: {resources: {CPU: 4, GPU: 1}, max_workers: 2}}}"
    monkeypatch.setenv("PAWTUNE_AUTOSCALING", types)
    assert nodes_to_come() == ((NodeKind(4, 1, count=2),), None)
    monkeypatch.setenv("PAWTUNE_AUTOSCALING", "2 GPUs")
    with pytest.raises(
        UserError, match="PAWTUNE_AUTOSCALING must name nodes as .* received '2 GPUs'"
    ):
        nodes_to_come()
    for wrong in (
        "{max_workers: '4', available_node_types: {a: {resources: {CPU: 2}, max_workers: 1}}}",
        "{available_node_types: {a: {resources: {CPU: .inf}, max_workers: 1}}}",
        "{available_node_types: {a: {resources: {CPU: -2}, max_workers: 1}}}",
    ):
        monkeypatch.setenv("PAWTUNE_AUTOSCALING", wrong)
        with pytest.raises(UserError, match="PAWTUNE_AUTOSCALING must name nodes as "):
            nodes_to_come()


def test_an_autoscaler_without_a_limit_is_soon_counted() -> None:
    """KubeRay has maxReplicas 2147483647 where nobody sets it."""
    kind = "{resources: {CPU: 4}, max_workers: 2147483647}"
    addable, most = addable_nodes(f"available_node_types: {{a: {kind}, b: {kind}}}")
    began = time.process_time()
    assert Capacity((NodeKind(2, 0),), addable, most).fits(1, 0) == 2 + 2 * 4 * 10_000
    assert Capacity((), (NodeKind(4, 0, count=2**31 - 1),), 2**31 - 1).fits(4, 0) == 2**31 - 1
    assert time.process_time() - began < 30  # milliseconds; node by node it would be minutes


def test_what_an_autoscaler_tells_ray(
    ray_cluster: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """KubeRay's tells of its groups: of the head's own, too, and of those that are switched off."""
    groups = [
        ({"CPU": 8, "GPU": 1}, 2**31 - 1),
        ({"CPU": 8}, 0),
        ({"memory": 1}, 3),
        ({"CPU": 2}, -1),
    ]
    config = SimpleNamespace(
        node_group_configs=[SimpleNamespace(resources=r, max_count=n) for r, n in groups]
    )
    monkeypatch.setattr(ray._private.state.state, "get_cluster_config", lambda: config)
    assert nodes_to_come() == ((NodeKind(8, 1, 10_000), NodeKind(2, 0, 100)), None)


@ray.remote(num_cpus=0, max_retries=0)
def content_of(file: str) -> str:
    """What a file holds, once it is there."""
    while not Path(file).exists():
        time.sleep(0.05)
    return Path(file).read_bytes().decode()


def test_an_answer_that_comes_late_counts(
    ray_cluster: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that fails is asked for again; only the first asking waits."""
    monkeypatch.setattr(autoscaler, "_read_there", content_of)
    monkeypatch.setattr(autoscaler, "ANSWER_S", 0.1)
    file = tmp_path / "answer"
    question = autoscaler.Question(str(file))
    assert question.answer() == ""
    file.write_bytes(b"\xff")  # is no text: the task fails
    deadline = time.monotonic() + 60
    while question._task is not None:
        assert question.answer() == ""
        assert time.monotonic() < deadline
    (tmp_path / "whole").write_text("max_workers: 3")
    (tmp_path / "whole").replace(file)  # at once: there is always a task that reads it
    while not question.answer():
        assert time.monotonic() < deadline
    file.write_text("")
    assert question.answer() == "max_workers: 3"


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        ("", ()),
        ("available_node_types: {}", ()),
        ("[not, a, mapping]", ()),
        ("available_node_types: [a]", ()),
        ("broken: [", ()),
        ("available_node_types: {a: {resources: {CPU: many}, max_workers: 1}}", ()),
        ("available_node_types: {a: {max_workers: 2}}", ()),  # resources that nobody knows yet
        ("available_node_types: {a: {resources: {CPU: 2}, max_workers: 0}}", ()),
        ("{max_workers: many, available_node_types: {a: {resources: {CPU: 2}}}}", ()),
        (
            "{max_workers: '4', available_node_types: {a: {resources: {CPU: 2}, max_workers: 1}}}",
            (),
        ),
        ("available_node_types: {a: {resources: {CPU: 2}, max_workers: 2.5}}", ()),
        (
            "{max_workers: 3, head_node_type: h, available_node_types:"
            " {h: {resources: {CPU: 2}}, a: {resources: {CPU: 4}}}}",
            (NodeKind(4, 0, count=3),),
        ),
    ],
)
def test_what_other_configurations_say(configuration: str, expected: tuple[NodeKind, ...]) -> None:
    assert addable_nodes(configuration)[0] == expected


def test_cpus_and_gpus_on_different_nodes_do_not_help() -> None:
    apart = Capacity((NodeKind(8, 0), NodeKind(2, 1)))
    with pytest.raises(
        UserError,
        match=r"received 4 CPU \+ 1 GPU: no node has both \(1 x 2 CPU \+ 1 GPU, 1 x 8 CPU now\)",
    ):
        plan_resources(ResourcesConfig(cpus_per_trial=4.0), apart)


@ray.remote(num_cpus=1)
def threads_of_a_process(count: int) -> tuple[int, int]:
    """Computes with so many threads; the process, and what TensorFlow says it has."""
    import tensorflow as tf

    claim_process(count)
    float(tf.reduce_sum(tf.ones(4)))
    return os.getpid(), tf.config.threading.get_intra_op_parallelism_threads()


@pytest.mark.slow
def test_a_process_that_another_search_has_used_makes_room(ray_cluster: dict[str, Any]) -> None:
    pid, threads = ray.get(threads_of_a_process.remote(3))
    assert threads == 3
    for _ in range(2):
        other, threads = ray.get(threads_of_a_process.remote(2))
        assert threads == 2
        assert other != pid
