"""Fitting trials onto a cluster: on GPUs where there are any, and never the impossible."""

import pytest

from search.cluster import plan_resources
from search.config import ResourcesConfig
from search.errors import UserError

CPU_ONLY = {"CPU": 2.0, "GPU": 0.0}
FOUR_GPUS = {"CPU": 16.0, "GPU": 4.0}
TWO_GPU_NODE = {"CPU": 8.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("options", "expected_gpus", "expected_concurrency"),
    [
        ({}, 1.0, 4),
        ({"gpus_per_trial": 0.5}, 0.5, 8),
        ({"gpus_per_trial": 2.0}, 2.0, 2),
        ({"gpus_per_trial": 0.0}, 0.0, 16),
        ({"concurrency": 3}, 1.0, 3),
        ({"concurrency": 99}, 1.0, 4),
        ({"cpus_per_trial": 8.0}, 1.0, 2),
    ],
)
def test_trials_take_gpus_where_there_are_any(
    options: dict[str, float], expected_gpus: float, expected_concurrency: int
) -> None:
    plan = plan_resources(ResourcesConfig.model_validate(options), FOUR_GPUS, TWO_GPU_NODE)
    assert (plan.gpus, plan.concurrency) == (expected_gpus, expected_concurrency)


def test_without_gpus_trials_take_cpus() -> None:
    plan = plan_resources(ResourcesConfig(), CPU_ONLY, CPU_ONLY)
    assert (plan.cpus, plan.gpus, plan.concurrency, plan.threads) == (1.0, 0.0, 2, 1)
    assert plan.per_trial == {"cpu": 1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus_per_trial": 1.0}, r"--gpus-per-trial must fit on one node, got 1: .* has 0 GPUs"),
        ({"cpus_per_trial": 3.0}, r"--cpus-per-trial must fit on one node, got 3: .* has 2 CPUs"),
    ],
)
def test_impossible_requests_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_resources(ResourcesConfig.model_validate(options), CPU_ONLY, CPU_ONLY)
