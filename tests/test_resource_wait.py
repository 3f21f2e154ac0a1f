"""Work before the trials waits until the cluster has room for it, and says for what."""

import re
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from pawtune.search.cluster import resource_wait as room
from pawtune.search.cluster.capacity import Capacity
from pawtune.search.cluster.connection import ResourcePlan
from pawtune.search.storage.run_folder import create_run_folder
from pawtune.search.tuning import pending_trials as waiting
from pawtune.search.tuning.pending_trials import WaitingNotes
from tests.waiting import wait_until


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
    wait_until(lambda: told or not waiting.is_alive())
    waiting.join(0.5)
    assert waiting.is_alive()
    assert re.fullmatch(
        rf"waits \d+ s for 1 CPU; free on all nodes together: 0 CPU \(1 x {cpus} CPU now\)", told[0]
    )
    ray.kill(occupant)
    waiting.join(60)
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
    shortage = room.find_shortage(1, 1)
    assert shortage.text(599).endswith("its autoscaler may have 2 x 4 CPU + 1 GPU)")
    assert shortage.text(600).endswith(f"its autoscaler may have 2 x 4 CPU + 1 GPU){hint}")
    monkeypatch.delenv("PAWTUNE_AUTOSCALING")
    assert hint not in room.find_shortage(1, 1).text(600)


def test_the_cluster_is_asked_once_for_all_trials_that_wait(
    ray_cluster: dict[str, Any], runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Capacity] = []
    available = room.available_resources

    def count() -> Capacity:
        asked.append(available())
        return asked[-1]

    monkeypatch.setattr(room, "available_resources", count)
    monkeypatch.setattr(waiting, "USUAL_S", 0.0)
    monkeypatch.setattr(waiting, "LOOK_S", 0.0)
    run = create_run_folder(runs_dir, "waiting")
    trial_ids = ("0001", "0002", "0003")
    for trial_id in trial_ids:
        run.new_trial(trial_id).root.mkdir(parents=True)
        run.new_trial(trial_id).write_status("pending")
    trials = [SimpleNamespace(status="PENDING", config={"trial_id": i}) for i in trial_ids]
    told: list[str] = []
    WaitingNotes(run, ResourcePlan(1.0, 1.0, 3), told.append).on_step_end(1, trials)
    assert len(asked) == 1
    reasons = [run.new_trial(trial_id).read_status().reason for trial_id in trial_ids]
    assert told == [f"3 trials: {reasons[0]}"]
    assert len(set(reasons)) == 1
    # What is free may still be changing after the test before.
    assert re.fullmatch(
        r"waits 0 s for 1 CPU \+ 1 GPU; free on all nodes together: \d CPU \(1 x 2 CPU now\)",
        reasons[0],
    )
