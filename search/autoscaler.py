"""The nodes that a cluster's autoscaler may add.

An autoscaler may tell Ray (`get_cluster_config`), but Ray's own do not: `ray up` gives them a file
on the head, which nobody else gets. So the file is read there; the command line of the autoscaler's
process names it. Where the autoscaler runs elsewhere, as under KubeRay, the person who made the
cluster can declare the same in the search's environment.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import ray
import yaml

from search.capacity import NodeKind
from search.errors import UserError

UNLIMITED_NODES = 100  # where an autoscaler names no limit
DECLARED = "PAWTUNE_AUTOSCALING"
ANSWER_S = 20.0  # a head that starts a worker for the first time may need 10 s
HEAD = "node:__internal_head__"  # a resource that the head's node alone has

Addable = tuple[tuple[NodeKind, ...], int | None]


def nodes_to_come() -> Addable:
    """What the autoscaler of the joined cluster may have, and how many nodes at once.

    Nothing and None where there is no autoscaler, or where nobody tells.

    Raises:
        UserError: What is declared cannot be read.
    """
    declared = os.environ.get(DECLARED)
    if declared:
        addable = addable_nodes(declared)
        if not addable[0]:
            raise UserError(
                f"{DECLARED} must name nodes as a cluster's configuration does, got {declared!r}; "
                "for example {available_node_types: {gpu: {resources: {CPU: 8, GPU: 1}, "
                "max_workers: 4}}}"
            )
        return addable
    config = ray._private.state.state.get_cluster_config()
    if config is not None and config.node_group_configs:
        groups = config.node_group_configs
        return tuple(_kind(group.resources, group.max_count) for group in groups), None
    return addable_nodes(_configuration())


def addable_nodes(configuration: str) -> Addable:
    """What an autoscaler may add, by its configuration as `ray up` has it.

    Args:
        configuration: YAML; empty where there is none.
    """
    try:
        content = yaml.safe_load(configuration) or {}
        most = content.get("max_workers")
        head = content.get("head_node_type")
        kinds = []
        for name, node_type in content.get("available_node_types", {}).items():
            count = node_type.get("max_workers", 0 if name == head else most)
            kinds.append(_kind(node_type.get("resources") or {}, -1 if count is None else count))
    except (yaml.YAMLError, AttributeError, TypeError, ValueError):
        return (), None  # another form of it than Ray's own, which does not tell
    # A type that is not there, or whose resources are known only when a node of it is there.
    return tuple(kind for kind in kinds if kind.count and (kind.cpus or kind.gpus)), most


def _kind(resources: Mapping[str, float], count: int) -> NodeKind:
    return NodeKind(
        cpus=float(resources.get("CPU", 0)),
        gpus=float(resources.get("GPU", 0)),
        count=count if count >= 0 else UNLIMITED_NODES,
    )


def _configuration() -> str:
    """The configuration of the cluster's autoscaler; empty where there is none."""
    heads = [node["NodeID"] for node in ray.nodes() if node["Alive"] and HEAD in node["Resources"]]
    context = ray.get_runtime_context()
    address = context.gcs_address
    if heads == [context.get_node_id()]:
        return read_configuration(address)
    return _asked_of_head(address, heads[0]) if heads else ""


def read_configuration(gcs_address: str) -> str:
    """The configuration that an autoscaler on this machine was started with.

    Args:
        gcs_address: Of its cluster.
    """
    port = gcs_address.rpartition(":")[2]  # hosts have several names
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, UnicodeError):
            words = (process / "cmdline").read_bytes().decode().split("\0")
            options = dict(word.split("=", 1) for word in words if "=" in word)
            file = options.get("--autoscaling-config")
            if file and options.get("--gcs-address", "").rpartition(":")[2] == port:
                return (process / "cwd" / Path(file).expanduser()).read_text(encoding="utf-8")
    return ""


@lru_cache(maxsize=1)
def _asked_of_head(gcs_address: str, head: str) -> str:
    """The same where the driver runs on another node; asked once a cluster."""
    task = _read_there.remote(gcs_address)
    ready, _ = ray.wait([task], timeout=ANSWER_S)
    if not ready:
        ray.cancel(task)
        return ""
    try:
        return str(ray.get(task))
    except ray.exceptions.RayError:
        return ""  # pawtune is not there, which the look at the nodes tells


@ray.remote(num_cpus=0, max_retries=0, resources={HEAD: 0.001})  # type: ignore[untyped-decorator]
def _read_there(gcs_address: str) -> str:
    return read_configuration(gcs_address)
