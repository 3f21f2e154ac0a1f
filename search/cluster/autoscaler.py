"""The nodes that a cluster's autoscaler may add.

An autoscaler may tell Ray (`node_groups`), but Ray's own do not: `ray up` gives them a file
on the head, which nobody else gets. So the file is read there; the command line of the autoscaler's
process names it. Where the autoscaler runs elsewhere, as under KubeRay, the person who made the
cluster can declare the same in the search's environment.
"""

import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import ray
import yaml

from pawtune.data_pipeline.safe_files import expanded
from pawtune.search.cluster.capacity import NodeKind
from pawtune.search.cluster.ray_internals import node_groups
from pawtune.search.errors import UserError

UNLIMITED_NODES = 100  # where an autoscaler names no limit
MOST_NODES = 10_000  # KubeRay says 2,147,483,647 where nobody set a limit
DECLARED = "PAWTUNE_AUTOSCALING"
ANSWER_S = 6.0  # a head may need 10 s to start a worker, but a refusal is to come within these
HEAD = "node:__internal_head__"  # a resource that the head's node alone has

Addable = tuple[tuple[NodeKind, ...], int | None]


def nodes_to_come() -> Addable:
    """What the autoscaler of the joined cluster may have, and how many nodes at once.

    Nothing and None where there is no autoscaler, or its configuration is unknown.

    Raises:
        UserError: What is declared cannot be read.
    """
    declared = os.environ.get(DECLARED)
    if declared:
        addable = addable_nodes(declared)
        if not addable[0]:
            raise UserError(
                f"{DECLARED} must name nodes as a cluster's configuration does, received "
                f"{declared!r}; for example {{available_node_types: {{gpu: {{resources: "
                f"{{CPU: 8, GPU: 1}}, max_workers: 4}}}}}}"
            )
        return addable
    groups = node_groups()
    if groups:
        return _usable(_kind(group.resources, group.max_count) for group in groups), None
    return addable_nodes(_configuration())


def addable_nodes(configuration: str) -> Addable:
    """What an autoscaler may add, by its configuration as `ray up` has it.

    Args:
        configuration: YAML; empty where there is none.
    """
    try:
        content = yaml.safe_load(configuration) or {}
        most = content.get("max_workers")
        most = None if most is None else _count(most)
        head = content.get("head_node_type")
        kinds = []
        for name, node_type in content.get("available_node_types", {}).items():
            count = node_type.get("max_workers", 0 if name == head else most)
            kinds.append(_kind(node_type.get("resources") or {}, -1 if count is None else count))
    except (yaml.YAMLError, AttributeError, TypeError, ValueError):
        return (), None  # not the file that `ray up` writes: it does not say
    return _usable(kinds), most


def _usable(kinds: Iterable[NodeKind]) -> tuple[NodeKind, ...]:
    """The kinds that may be added and whose CPUs or GPUs are known before one is started."""
    return tuple(kind for kind in kinds if kind.count and (kind.cpus or kind.gpus))


def _kind(resources: Mapping[str, float], count: int) -> NodeKind:
    return NodeKind(
        cpus=_units(resources.get("CPU", 0)),
        gpus=_units(resources.get("GPU", 0)),
        count=_count(count),
    )


def _units(value: Any) -> float:
    """CPUs or GPUs of a node.

    Raises:
        TypeError, ValueError: No node can have so many.
    """
    units = float(value)
    if not 0 <= units < math.inf:
        raise ValueError(f"a node has 0 or more CPUs and GPUs, received {value!r}")
    return units


def _count(value: object) -> int:
    """How many nodes a configuration means.

    Raises:
        TypeError: It is no whole number.
    """
    if not isinstance(value, int):
        raise TypeError(f"a number of nodes must be a whole number, received {value!r}")
    return min(value, MOST_NODES) if value >= 0 else UNLIMITED_NODES


def _configuration() -> str:
    """The configuration of the cluster's autoscaler; empty where there is none."""
    heads = [node["NodeID"] for node in ray.nodes() if node["Alive"] and HEAD in node["Resources"]]
    context = ray.get_runtime_context()
    address = context.gcs_address
    if heads == [context.get_node_id()]:
        return read_configuration(address)
    return _question(address, heads[0]).answer() if heads else ""


def read_configuration(gcs_address: str) -> str:
    """The configuration that an autoscaler on this machine was started with.

    Args:
        gcs_address: Address of its cluster's GCS.
    """
    port = gcs_address.rpartition(":")[2]  # hosts have several names
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, UnicodeError):
            words = (process / "cmdline").read_bytes().decode().split("\0")
            options = dict(word.split("=", 1) for word in words if "=" in word)
            file = options.get("--autoscaling-config")
            if file and options.get("--gcs-address", "").rpartition(":")[2] == port:
                return (process / "cwd" / expanded(file)).read_text(encoding="utf-8")
    return ""


class Question:
    """The same where the driver runs on another node than the head, which is asked.

    An answer is kept. Only the first asking waits for one; it is taken whenever it comes.

    Args:
        gcs_address: Address of the cluster's GCS.
    """

    def __init__(self, gcs_address: str) -> None:
        self._gcs_address = gcs_address
        self._patience_s = ANSWER_S
        self._task: Any = None
        self._answer: str | None = None

    def answer(self) -> str:
        """The configuration; empty where there is none, or it is not known yet."""
        if self._answer is None:
            if self._task is None:
                self._task = _read_there.remote(self._gcs_address)
            ready, _ = ray.wait([self._task], timeout=self._patience_s)
            self._patience_s = 0.0
            if ready:
                self._take()
        return self._answer or ""

    def _take(self) -> None:
        task, self._task = self._task, None
        # A worker that died is asked again. Nor is pawtune there, perhaps: the look at the nodes
        # tells.
        with suppress(ray.exceptions.RayError):
            self._answer = str(ray.get(task))


@lru_cache(maxsize=1)
def _question(gcs_address: str, head: str) -> Question:
    return Question(gcs_address)


@ray.remote(num_cpus=0, max_retries=0, resources={HEAD: 0.001})  # type: ignore[untyped-decorator]
def _read_there(gcs_address: str) -> str:
    return read_configuration(gcs_address)
