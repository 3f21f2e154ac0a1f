"""Work before the trials waits until the cluster has room for it, and says for what."""

import re
import threading
from typing import Any

import pytest
import ray

from search import room


@ray.remote
class Occupant:
    """Holds CPUs for as long as it lives."""

    def here(self) -> None:
        """Answers once it has them."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(room, "USUAL_S", 0.3)
    monkeypatch.setattr(room, "LOOK_S", 0.1)
    return []


def test_a_full_cluster_is_waited_for(ray_cluster: dict[str, Any], told: list[str]) -> None:
    cpus = int(ray.cluster_resources()["CPU"])
    occupant = Occupant.options(num_cpus=cpus).remote()  # type: ignore[attr-defined]
    ray.get(occupant.here.remote())
    waiting = threading.Thread(
        target=room.wait_for_room, args=({"num_cpus": 1, "num_gpus": 0}, told.append), daemon=True
    )
    waiting.start()
    waiting.join(1.5)
    assert waiting.is_alive()
    assert re.fullmatch(
        rf"waits \d s for 1 CPU; free on all nodes together: 0 CPU \(1 x {cpus} CPU now\)", told[0]
    )
    ray.kill(occupant)
    waiting.join(30)
    assert not waiting.is_alive()


def test_where_there_is_room_nothing_is_said(
    ray_cluster: dict[str, Any], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "USUAL_S", 30.0)
    room.wait_for_room({"num_cpus": 1}, told.append)
    room.wait_for_room({"num_cpus": 0}, told.append)
    assert told == []


def test_after_a_long_time_it_is_said_where_to_look(
    ray_cluster: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    types = "{available_node_types: {gpu: {resources: {CPU: 4, GPU: 1}, max_workers: 2}}}"
    monkeypatch.setenv("PAWTUNE_AUTOSCALING", types)
    hint = "; `ray status` on its head says why no node comes"
    assert room.waits(599, 1, 1).endswith("its autoscaler may have 2 x 4 CPU + 1 GPU)")
    assert room.waits(600, 1, 1).endswith(f"its autoscaler may have 2 x 4 CPU + 1 GPU){hint}")
    monkeypatch.delenv("PAWTUNE_AUTOSCALING")
    assert hint not in room.waits(600, 1, 1)
