"""What the nodes of a cluster see, asked before the first trial of each that is there.

The run folder is written beside the driver, so no other node need see it. The images need not be
seen by all either: those nodes that do decode them, and the others get the pixels through Ray's
object store.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.search.cluster.autoscaler import nodes_to_come
from pawtune.search.cluster.resource_wait import Progress, silent
from pawtune.search.errors import UserError

ANSWER_S = 60.0  # a node that starts a worker for the first time may need 10 s


@dataclass(frozen=True)
class Node:
    """A node that decodes images. cpus: what it has for tasks; 0 on a head that runs no trials."""

    node_id: str
    cpus: float

    def options(self) -> dict[str, Any]:
        """For a task that must run there."""
        return {
            "num_cpus": 1 if self.cpus >= 1 else 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(self.node_id, soft=False),
        }


def here() -> Node:
    """The node that the driver runs on."""
    node_id = ray.get_runtime_context().get_node_id()
    cpus = {node["NodeID"]: node["Resources"].get("CPU", 0.0) for node in ray.nodes()}
    return Node(node_id, cpus.get(node_id, 0.0))


def decoding_nodes(manifest: Manifest, progress: Progress = silent) -> list[Node]:
    """Finds out which nodes see the images.

    Args:
        manifest: The images, on paths of the driver's machine.
        progress: Called with (nodes that have answered, nodes in all) where there are several.

    Returns:
        The nodes that decode; empty where all see the images, as on a cluster of one. Where nodes
        may come and go it is the driver's: it is there to stay, and nobody waits for another.

    Raises:
        UserError: A node cannot run pawtune.
    """
    stays = [here()] if nodes_to_come()[0] else []
    seeing, all_see = nodes_that_see(Path(manifest.root) / manifest.entries[0].path, progress)
    if stays or all_see:
        return stays
    return [node for node in seeing if node.cpus >= 1] or seeing


def nodes_that_see(image: Path, progress: Progress = silent) -> tuple[list[Node], bool]:
    """Asks each node whether it sees an image.

    Args:
        image: Path of the image, on the driver's machine.
        progress: Called with (nodes that have answered, nodes in all) where there are several.

    Returns:
        Those that do, and whether all do; a cluster of one node is not asked.

    Raises:
        UserError: A node cannot run pawtune.
    """
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    if len(nodes) == 1:
        return [here()], True
    tasks = {
        _sees.options(**Node(node_id, 0).options()).remote(image): node_id for node_id in nodes
    }
    ready = _answers(list(tasks), progress)
    # One that does not answer has died, or is about to.
    seeing = [nodes[tasks[task]] for task in ready if _answer(task, nodes[tasks[task]])]
    found = [Node(node["NodeID"], node["Resources"].get("CPU", 0.0)) for node in seeing]
    return found, len(seeing) == len(ready)


def _answers(tasks: list[Any], progress: Progress) -> list[Any]:
    """Those that come within ANSWER_S."""
    ready: list[Any] = []
    pending, count = tasks, len(tasks)
    deadline = time.monotonic() + ANSWER_S
    progress(0, count)
    while pending and (left := deadline - time.monotonic()) > 0:
        done, pending = ray.wait(pending, num_returns=1, timeout=left)
        ready += done
        progress(len(ready), count)
    return ready


def _answer(task: Any, node: Mapping[str, Any]) -> bool:
    """Whether a node sees the images."""
    try:
        return bool(ray.get(task))
    except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
        return False  # it has gone meanwhile, as idle nodes do
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[-300:]
        raise UserError(
            "every node of the cluster must be able to run pawtune, and "
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}) is not: {reason}; "
            "install the same pawtune and Python there"
        ) from error


@ray.remote(max_retries=0)  # type: ignore[untyped-decorator]
def _sees(image: Path) -> bool:
    return image.exists()
