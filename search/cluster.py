"""The Ray cluster: connecting to it, and what a trial may ask of it."""

import logging
import math
import os
import platform
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray

from search.config import ResourcesConfig
from search.errors import UserError

PROBE_TIMEOUT_S = 5.0
# Read by Ray and TensorFlow when a worker process starts; a local cluster inherits them.
WORKER_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a CPU trial sees no GPU
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "1",
}


@dataclass(frozen=True)
class ResourcePlan:
    """What each trial gets, and how many run at once."""

    cpus: float
    gpus: float
    concurrency: int

    @property
    def threads(self) -> int:
        """TensorFlow threads of a trial."""
        return max(1, int(self.cpus))

    @property
    def per_trial(self) -> dict[str, float]:
        """In the words of `tune.with_resources`."""
        return {"cpu": self.cpus, **({"gpu": self.gpus} if self.gpus else {})}


def connect(address: str | None) -> None:
    """Joins the cluster at `address`, or starts one on this machine; joined already: nothing.

    Raises:
        UserError: Nothing answers at the address.
    """
    if ray.is_initialized():
        return
    # Without byte code TensorFlow is compiled anew at every worker start: 4 s each.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.update({k: v for k, v in WORKER_ENVIRONMENT.items() if k not in os.environ})
    logging.getLogger("ray").setLevel(logging.ERROR)
    # `auto` joins a running cluster or fails; an address left out never joins one by accident.
    options = {"address": address} if address else {"address": "local", "include_dashboard": False}
    try:
        _probe(address)
        ray.init(**options, logging_level="ERROR", log_to_driver=False, configure_logging=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"--address must be that of a running Ray cluster, got {address!r}: "
            f"{str(error).splitlines()[0]}; leave it out to use this machine alone"
        ) from error


def _probe(address: str | None) -> None:
    """Notices at once that nothing listens; Ray itself would go on trying for a minute."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_TIMEOUT_S).close()


def available_resources() -> tuple[dict[str, float], dict[str, float]]:
    """CPUs and GPUs of the whole cluster and of its largest node.

    What the autoscaler may add counts: a cluster that starts with no GPU worker must scale up.
    """
    totals = {"CPU": 0.0, "GPU": 0.0}
    largest = {"CPU": 0.0, "GPU": 0.0}
    for node in ray.nodes():
        if node["Alive"]:
            for kind in totals:
                amount = float(node["Resources"].get(kind, 0))
                totals[kind] += amount
                largest[kind] = max(largest[kind], amount)
    ceiling = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    for kind in totals:
        amount = float(ceiling.get(kind, 0))
        if 0 < amount < 1e9:  # Ray says "no limit" by a huge number
            totals[kind] = max(totals[kind], amount)
            largest[kind] = max(largest[kind], amount)
    return totals, largest


def plan_resources(
    config: ResourcesConfig, totals: Mapping[str, float], largest: Mapping[str, float]
) -> ResourcePlan:
    """Fits trials onto a cluster: on GPUs where there are any, else on CPUs.

    Raises:
        UserError: A request that this cluster can never meet.
    """
    gpus = config.gpus_per_trial
    if gpus is None:
        gpus = 1.0 if totals["GPU"] else 0.0
    cpus = float(config.cpus_per_trial)
    for option, asked, kind in (("gpus", gpus, "GPU"), ("cpus", cpus, "CPU")):
        if asked > largest[kind]:
            raise UserError(
                f"--{option}-per-trial must fit on one node, got {asked:g}: the largest node has "
                f"{largest[kind]:g} {kind}s (the cluster {totals[kind]:g}); ask for less, or join "
                "a larger cluster with --address"
            )
    fits = [totals["CPU"] / cpus if cpus else math.inf, totals["GPU"] / gpus if gpus else math.inf]
    most = max(1, math.floor(min(fits) + 1e-9))
    return ResourcePlan(cpus, gpus, min(config.concurrency or most, most))


def assigned_gpus() -> float | None:
    """GPUs, or the part of one, that Ray gave this process; None outside of Ray's workers."""
    if not ray.is_initialized() or ray.get_runtime_context().worker.mode != ray.WORKER_MODE:
        return None
    return float(ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0))


def place() -> dict[str, Any]:
    """Where a trial runs: the machine, Ray's node on it, and the GPUs that the trial sees."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return {
        "host": platform.node(),
        "node": ray.get_runtime_context().get_node_id() if ray.is_initialized() else None,
        "gpus": visible.split(",") if visible and assigned_gpus() != 0.0 else [],
    }
