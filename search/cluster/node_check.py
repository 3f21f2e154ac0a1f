"""What the nodes of a cluster see, asked before the first trial of each that is there.

Trials write their own folders, so a node that does not see the run folder would lose what it
trains: it is named, and nothing begins. The images need not be seen by all: those nodes that do
decode them, and the others get the pixels through Ray's object store.
"""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pawtune.data_pipeline.sources.object_store import ObjectStore, is_address
from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.search.cluster.autoscaler import nodes_to_come
from pawtune.search.cluster.resource_wait import Progress, silent
from pawtune.search.errors import UserError
from pawtune.search.storage.run_folder import RunFolder

ANSWER_S = 60.0  # a node that starts a worker for the first time may need 10 s
PROBE = ".probe"


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


def check_nodes(run: RunFolder, manifest: Manifest, progress: Progress = silent) -> list[Node]:
    """Makes sure that every node sees the run folder.

    Args:
        run: The run.
        manifest: The images, on paths of the driver's machine.
        progress: Called with (nodes that have answered, nodes in all) where there are several.

    Returns:
        The nodes that decode; empty where all see the images, as on a cluster of one. Where nodes
        may come and go it is the driver's: it is there to stay, and nobody waits for another.

    Raises:
        UserError: A node does not see the run folder, or cannot run pawtune.
    """
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    stays = [here()] if nodes_to_come()[0] else []
    if len(nodes) == 1:
        return stays
    token = secrets.token_hex(8)
    probe = run.root / PROBE
    place = str(probe) if run.mirror is None else run.place
    probe.mkdir()
    try:
        (probe / token).write_text(token)
        image = Path(manifest.root) / manifest.entries[0].path
        tasks = {
            _look.options(**Node(node_id, 0).options()).remote(place, token, image): node_id
            for node_id in nodes
        }
        ready = _answers(list(tasks), progress)
        seeing = []
        for task in ready:  # one that does not answer has died, or is about to
            node = nodes[tasks[task]]
            if _sees_images(task, node, run, probe):
                seeing.append(Node(tasks[task], node["Resources"].get("CPU", 0.0)))
    finally:
        for file in probe.iterdir():
            file.unlink()
        probe.rmdir()
    if stays or len(seeing) == len(ready):
        return stays
    return [node for node in seeing if node.cpus >= 1] or seeing


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


def _sees_images(task: Any, node: Mapping[str, Any], run: RunFolder, probe: Path) -> bool:
    name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
    try:
        answer, problem, sees_images = ray.get(task)
    except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
        return False  # it has gone meanwhile, as idle nodes do
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[-300:]
        raise UserError(
            f"every node of the cluster must be able to run pawtune, and {name} is not: {reason}; "
            "install the same pawtune and Python there"
        ) from error
    if run.mirror is not None and problem:
        raise UserError(
            f"every node of the cluster must be able to use {run.place}, and {name} is not: "
            f"{problem}"
        )
    if problem or (run.mirror is None and not (probe / answer).exists()):
        raise UserError(
            "--runs-dir must be a folder that every node of the cluster sees and may write, "
            f"received {run.runs_dir}: {name} does not "
            f"({problem or 'it has another folder of that name'}); give one on a shared file "
            "system, or in an object store: --runs-dir s3://BUCKET/runs"
        )
    return bool(sees_images)


@ray.remote(max_retries=0)  # type: ignore[untyped-decorator]
def _look(place: str, token: str, image: Path) -> tuple[str, str, bool]:
    """An answer written where the run is; what is wrong there; whether the images are seen."""
    answer = secrets.token_hex(8)
    problem = ""
    try:
        if is_address(place):
            ObjectStore(place).files("trials")
        else:
            (Path(place) / token).read_text()
            (Path(place) / answer).touch()
    except (OSError, ValueError) as error:
        problem = " ".join(str(error).split())[:300]
    return answer, problem, image.exists()
