"""The Ray cluster: connecting to it, and what a trial may ask of it."""

import logging
import math
import os
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from search.cluster_news import Say, hear_news
from search.config import ResourcesConfig
from search.doors import knock, no_cluster
from search.errors import UserError
from search.interruption import undisturbed
from search.quiet import held_back_stderr

UNLIMITED_NODES = 100  # where an autoscaler names no limit
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


def connect(address: str | None, say: Say | None = None) -> None:
    """Joins the cluster at `address`, or starts one on this machine; joined already: nothing.

    Args:
        address: host:port of a head; `auto`, the one that runs here; `local` or None, a new one.
        say: Takes a line for the person who watches, when something befalls the cluster.

    Raises:
        UserError: No Ray cluster answers there, or it does not let us in.
    """
    if ray.is_initialized():
        return
    # Without byte code TensorFlow is compiled anew at every worker start: 4 s each.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.update({k: v for k, v in WORKER_ENVIRONMENT.items() if k not in os.environ})
    logging.getLogger("ray").setLevel(logging.ERROR)
    # `auto` joins a running cluster or fails; an address left out never joins one by accident.
    here = address in (None, "", "local")
    options = {"address": "local", "include_dashboard": False} if here else {"address": address}
    door = knock(address)
    try:
        if door is not None:
            _show_token(door)
        with undisturbed():
            ray.init(**options, logging_level="ERROR", log_to_driver=False, configure_logging=False)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise no_cluster(address, error) from error
    hear_news(say or (lambda line: print(line, file=sys.stderr)))


def _show_token(address: str) -> None:
    """Notices at once that a head does not let us in; `ray.init` would ask it for 20 s.

    Raises:
        ValueError: It does not.
    """
    with held_back_stderr():  # Ray's own code tells of a refusal, too
        try:
            ray._raylet.GcsClient(address=address)
        except ray.exceptions.AuthenticationError as error:
            refusal = error
        else:
            return
    raise ValueError(
        f"{str(refusal).split('. ')[0]}: put the cluster's token into ~/.ray/auth_token, or name "
        "its file in RAY_AUTH_TOKEN_PATH"
    )


@dataclass(frozen=True)
class NodeKind:
    """Nodes that are alike.

    Attributes:
        cpus, gpus: Of one node.
        count: How many there are, or may come to be.
    """

    cpus: float
    gpus: float
    count: int = 1

    def fits(self, cpus: float, gpus: float) -> int:
        """Trials at once on one node."""
        most = [self.cpus / cpus if cpus else math.inf, self.gpus / gpus if gpus else math.inf]
        return math.floor(min(most) + 1e-9)


@dataclass(frozen=True)
class Capacity:
    """What a cluster has, and what its autoscaler may add to it.

    Attributes:
        nodes: Those that are there.
        addable: What may come; empty where nothing scales the cluster.
    """

    nodes: tuple[NodeKind, ...]
    addable: tuple[NodeKind, ...] = ()

    @property
    def kinds(self) -> tuple[NodeKind, ...]:
        """All nodes that there may be."""
        # Nodes of an autoscaler's kind are among those it may have: they are not counted twice.
        ours = {(kind.cpus, kind.gpus) for kind in self.addable}
        there = [node for node in self.nodes if (node.cpus, node.gpus) not in ours]
        return (*there, *self.addable)

    @property
    def largest(self) -> dict[str, float]:
        """The most that one node has of each."""
        return {
            "CPU": max((kind.cpus for kind in self.kinds), default=0.0),
            "GPU": max((kind.gpus for kind in self.kinds), default=0.0),
        }

    def text(self) -> str:
        """In words: what there is, and what may come."""
        told = [f"{_nodes(self.nodes)} now"]
        if self.addable:
            told.append(f"its autoscaler may have {_nodes(self.addable)}")
        return "; ".join(told)


def _nodes(kinds: Sequence[NodeKind]) -> str:
    alike = Counter[tuple[float, float]]()
    for kind in kinds:
        alike[kind.cpus, kind.gpus] += kind.count
    parts = [f"{count} x {amount(cpus, gpus)}" for (cpus, gpus), count in sorted(alike.items())]
    return ", ".join(parts) or "no node"


def amount(cpus: float, gpus: float) -> str:
    """CPUs and GPUs in words."""
    return f"{cpus:g} CPU" + (f" + {gpus:g} GPU" if gpus else "")


def available_resources() -> Capacity:
    """The cluster's nodes and what its autoscaler may add.

    The latter counts: a cluster that starts with no GPU worker must scale up.
    """
    nodes = tuple(
        NodeKind(float(node["Resources"].get("CPU", 0)), float(node["Resources"].get("GPU", 0)))
        for node in ray.nodes()
        if node["Alive"]
    )
    config = ray._private.state.state.get_cluster_config()
    groups = config.node_group_configs if config is not None else ()
    addable = tuple(
        NodeKind(
            cpus=float(group.resources.get("CPU", 0)),
            gpus=float(group.resources.get("GPU", 0)),
            count=group.max_count if group.max_count >= 0 else UNLIMITED_NODES,
        )
        for group in groups
        if group.max_count != 0
    )
    return Capacity(nodes, addable)


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
                f"--{option}-per-trial must fit on one node, got {asked:g}: the largest node has "
                f"{largest[kind]:g} {kind}s ({capacity.text()}); ask for less, or join "
                "a larger cluster with --address"
            )
    most = sum(kind.count * kind.fits(cpus, gpus) for kind in capacity.kinds)
    if not most:
        raise UserError(
            f"--cpus-per-trial and --gpus-per-trial must fit on one node together, got "
            f"{amount(cpus, gpus)}: no node has both ({capacity.text()}); ask for less, or join a "
            "larger cluster with --address"
        )
    return ResourcePlan(cpus, gpus, min(config.concurrency or most, most))


def claim_process(threads: int) -> None:
    """Tells TensorFlow what of the machine is this worker's; again is accepted.

    A worker that computes with another number of threads already, for an earlier search of the
    same driver, cannot be told again: it ends, and Ray gives the work to another.
    """
    from models import precision

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
