"""A real Ray head whose autoscaler adds and removes nodes, as `ray up cluster.yaml` makes one.

The machines are raylets on this one, of Ray's own provider for that; both autoscalers are Ray's.
"""

import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ray._private import services
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider

from tests.ray_head import Head, free_ports, kill_tree, ray_head

HEAD_ID = "f" * 51 + "00000"  # as the provider calls the node of the head
HEAD_TYPE = "ray.head.default"
ROOT = Path(__file__).resolve().parent.parent
COMMANDS = (
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
    "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files",
    "rsync_exclude", "rsync_filter",
)  # fmt: skip
IDLE_S = 6.0  # then a node goes


class Machines(FakeMultiNodeProvider):  # type: ignore[misc]  # Ray is untyped
    """Ray's provider: it starts the processes of a node on this machine.

    Named by its class: by its name Ray wants a file of defaults that its wheels leave out.
    """

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        services.RAYLET_EXECUTABLE = provider_config.get("raylet", services.RAYLET_EXECUTABLE)
        self._delay_s = provider_config.get("delay_s", 0.0)

    def create_node_with_resources_and_labels(self, *arguments: Any) -> None:
        """In a thread that starts nodes."""
        time.sleep(self._delay_s)
        super().create_node_with_resources_and_labels(*arguments)


def raylet_blind_to(folder: Path, script: Path) -> str:
    """A raylet to whose workers a folder is empty; skips where no namespace can be made."""
    mount = f"mount -t tmpfs none {shlex.quote(str(folder))}"
    if subprocess.run(["unshare", "--mount", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("mount namespaces are refused here: unshare --mount needs root")
    inside = f'{mount} && exec {shlex.quote(services.RAYLET_EXECUTABLE)} "$@"'
    script.write_text(f'#!/bin/sh\nexec unshare --mount sh -c {shlex.quote(inside)} raylet "$@"\n')
    script.chmod(0o700)
    return str(script)


def node_type(cpus: int, gpus: int, most: int) -> dict[str, Any]:
    """Nodes that may come."""
    resources = {"CPU": cpus, "GPU": gpus, "object_store_memory": 100_000_000}
    return {
        "resources": resources, "node_config": {}, "min_workers": 0, "max_workers": most
    }  # fmt: skip


@contextmanager
def autoscaled_head(
    types: dict[str, dict[str, Any]],
    most: int = 2,
    with_token: bool = False,
    version: int = 2,
    **provider: Any,
) -> Iterator[Head]:
    """A head without CPUs, and nodes that come when work waits for them.

    Args:
        types: By name, as `node_type` makes them.
        most: Nodes at once, beside the head.
        with_token: Whether the cluster asks for one.
        version: Of Ray's autoscaler; `ray up` takes the second unless it is told otherwise.
        **provider: Of `Machines`: `delay_s` that a node takes to come, `raylet` that it runs.
    """
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    config = {
        "cluster_name": "tests", "max_workers": most, "idle_timeout_minutes": IDLE_S / 60,
        "upscaling_speed": 1.0,
        "provider": {
            "type": "external", "module": f"{__name__}.Machines", "head_node_id": HEAD_ID,
            "disable_node_updaters": True, "disable_launch_config_check": True,
            "launch_multiple": True, "use_node_id_as_ip": True, **provider,
        },
        "available_node_types": {HEAD_TYPE: head, **types}, "head_node_type": HEAD_TYPE,
        # Ray fills these in by itself only for providers with a file of defaults.
        **dict.fromkeys(("auth", "docker", "file_mounts"), {}), **dict.fromkeys(COMMANDS, []),
        "file_mounts_sync_continuously": False,
    }  # fmt: skip
    environment = {
        "RAY_FAKE_CLUSTER": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "AUTOSCALER_METRIC_PORT": str(free_ports(1)[0]),
        # Has the provider's nodes take 127.0.0.1, not the address that others reach.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    if version == 2:  # as `ray up` does
        environment |= {
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
            "RAY_NODE_TYPE_NAME": HEAD_TYPE,
        }
    with ray_head(with_token, 0, config, **environment) as head_node:
        try:
            yield head_node
        finally:
            # Nodes are children of the autoscaler, which ends without them if it ends in order.
            kill_tree(head_node.process_id)
