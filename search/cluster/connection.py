"""The Ray cluster: connecting to it, and what a trial may ask of it."""

import logging
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import ray

from pawtune.search.cluster.autoscaler import nodes_to_come
from pawtune.search.cluster.capacity import Capacity, NodeKind, amount
from pawtune.search.cluster.head_address import head_here, no_cluster, probe_head
from pawtune.search.cluster.local_ray import prepare_local_ray, start_to_the_end
from pawtune.search.cluster.node_events import Say, report_node_events
from pawtune.search.cluster.ray_internals import (
    check_token,
    lean_node,
    local_resources,
    session_folder,
)
from pawtune.search.cluster.worker_start import PATIENCE_S, worker_error
from pawtune.search.config.search_config import ResourcesConfig
from pawtune.search.errors import UserError
from pawtune.search.process import held_back_stderr, undisturbed

# Read by Ray and TensorFlow when a worker process starts; a local cluster inherits them.
WORKER_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a CPU trial sees no GPU
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "1",
}
# `ray.init` would wait for the first workers without end, deaf to signals, where none can start.
UNWAITED = {"RAY_prestart_worker_first_driver": "0"}
WORKER_WAIT_S = 60.0


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


def connect(address: str | None, say: Say | None = None) -> None:
    """Joins the cluster at `address`, or starts one on this machine; joined already: nothing.

    Args:
        address: host:port of a head; `auto`, the one that runs here; `local` or None, a new one.
        say: Takes a line for the person who watches, when something happens to the cluster.

    Raises:
        UserError: No Ray cluster answers there, or it does not let us in, or none can be started.
    """
    if ray.is_initialized():
        return
    # Without byte code TensorFlow is compiled again at every worker start: 4 s each.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.update({k: v for k, v in WORKER_ENVIRONMENT.items() if k not in os.environ})
    logging.getLogger("ray").setLevel(logging.ERROR)
    # `auto` joins a running cluster or fails; an address left out never joins one by accident.
    here = address in (None, "", "local")
    head = probe_head(address) or (None if here else head_here())
    options = {"address": head} if head else {"address": "local", "include_dashboard": False}
    say = say or (lambda line: print(line, file=sys.stderr))
    if head is None:
        prepare_local_ray(say)
        os.environ.update(UNWAITED)
    try:
        if head is not None:
            _show_token(head)
        with undisturbed(), lean_node() if head is None else nullcontext():
            start_to_the_end(
                lambda: ray.init(
                    **options, logging_level="ERROR", log_to_driver=False, configure_logging=False
                )
            )
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise (_not_started(error) if head is None else no_cluster(address, error, head)) from error
    if head is None:
        _await_worker()
    report_node_events(say)


@contextmanager
def leaving_ray() -> Iterator[None]:
    """Ends, after a block that ends well, the Ray that `connect` has started or joined in it.

    Left to the end of the process, Ray (2.60) would first wait for half a second.
    """
    before = ray.is_initialized()
    yield
    if not before:
        ray.shutdown()


def _await_worker() -> None:
    """Starts as many workers as there are CPUs, and waits for the first.

    Raises:
        UserError: None can start, with what one of them said last.
    """
    began, cpus = time.monotonic(), int(ray.cluster_resources().get("CPU", 1))
    try:
        answer = ray.remote(num_cpus=1)(platform.node)  # imports nothing of ours
        answers = [answer.remote() for _ in range(cpus)]
        while not ray.wait(answers, timeout=1)[0]:
            waited = time.monotonic() - began
            error = worker_error(session_folder()) if waited > PATIENCE_S else None
            if error or waited > WORKER_WAIT_S:
                reason = error or f"none answers within {WORKER_WAIT_S:.0f} s"
                raise _not_started(RuntimeError(f"no worker starts: {reason}"))
    except BaseException:
        ray.shutdown()
        raise


def _not_started(error: Exception) -> UserError:
    return UserError(
        "Ray must be able to start on this machine, and does not: "
        f"{' '.join(str(error).split())[:300]}; `pawtune doctor` checks what it needs"
    )


def _show_token(address: str) -> None:
    """Fails at once where a head refuses our token; `ray.init` would ask it for 20 s.

    Raises:
        ValueError: It does not.
    """
    with held_back_stderr():  # Ray's own code prints the refusal, too
        try:
            check_token(address)
        except ray.exceptions.AuthenticationError as error:
            refusal = error
        else:
            return
    raise ValueError(
        f"{str(refusal).split('. ')[0]}: put the cluster's token into ~/.ray/auth_token, or name "
        "its file in RAY_AUTH_TOKEN_PATH"
    )


def available_resources() -> Capacity:
    """The cluster's nodes and what its autoscaler may add.

    The latter counts: a cluster that starts with no GPU worker must scale up.
    """
    nodes = tuple(
        NodeKind(float(node["Resources"].get("CPU", 0)), float(node["Resources"].get("GPU", 0)))
        for node in ray.nodes()
        if node["Alive"]
    )
    return Capacity(nodes, *nodes_to_come())


def this_machine() -> Capacity:
    """What a local Ray would have, without starting it."""
    return Capacity((NodeKind(*local_resources()),))


def plan_resources(config: ResourcesConfig, capacity: Capacity) -> ResourcePlan:
    """Fits trials onto a cluster: on GPUs where there are any, else on CPUs.

    Raises:
        UserError: A request that this cluster can never meet.
    """
    largest = capacity.largest
    gpus = config.gpus_per_trial
    if gpus is None:
        gpus = 1.0 if largest["GPU"] else 0.0
    cpus = float(config.cpus_per_trial)
    for option, asked, kind in (("gpus", gpus, "GPU"), ("cpus", cpus, "CPU")):
        if asked > largest[kind]:
            raise UserError(
                f"--{option}-per-trial must fit on one node, received {asked:g}: the largest node "
                f"has {largest[kind]:g} {kind}s ({capacity.text()}); ask for less, or join "
                "a larger cluster with --address"
            )
    most = capacity.fits(cpus, gpus)
    if not most:
        raise UserError(
            f"--cpus-per-trial and --gpus-per-trial must fit on one node together, received "
            f"{amount(cpus, gpus)}: no node has both ({capacity.text()}); ask for less, or join a "
            "larger cluster with --address"
        )
    return ResourcePlan(cpus, gpus, min(config.concurrency or most, most))


def claim_process(threads: int) -> None:
    """Limits TensorFlow to this worker's share of the machine; may be called again.

    A worker that computes with another number of threads already, for an earlier search of the
    same driver, cannot be changed: it ends, and Ray gives the work to another.
    """
    from pawtune.models import precision

    try:
        precision.limit_threads(threads)
    except RuntimeError:
        if ray.get_runtime_context().get_actor_id():
            ray.actor.exit_actor()
        os._exit(1)
    precision.share_gpus(assigned_gpus())


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
