"""A trial without rivals is judged by cost and by the best of the other families."""

from types import SimpleNamespace
from typing import Any

import pytest

from pawtune.search.objective import Objective
from pawtune.search.tuning.outlook import Outlook
from pawtune.search.tuning.scheduler import FamilyScheduler

SLOW = [0.50, 0.55, 0.57]  # +0.035 an epoch at most: 0.57 + 17 * 0.035 = 1.17, no verdict
FLAT = [0.55, 0.565, 0.57]  # +0.01 an epoch at most: 0.57 + 17 * 0.01 = 0.74


def outlook(**options: Any) -> Outlook:
    return Outlook(Objective(**options), grace_period=3, reduction_factor=3)


def follow(
    watched: Outlook, trial: str, family: str, values: list[float], seconds: float = 6.0
) -> None:
    for epoch, value in enumerate(values, start=1):
        watched.note(trial, family, epoch, value, seconds * epoch)


@pytest.mark.parametrize(
    ("values", "head_seconds", "hopeless"),
    [(FLAT, 1.0, True), (SLOW, 1.0, False), (FLAT, 200.0, False), (FLAT[:2], 1.0, False)],
    ids=["flat and dear", "may still arrive", "cheaper than the head", "in its grace"],
)
def test_the_only_net_beside_a_good_head(
    values: list[float], head_seconds: float, hopeless: bool
) -> None:
    watched = outlook()
    watched.note("head", "transfer", 1, 0.97, head_seconds)
    follow(watched, "net", "conv", values)
    assert watched.is_hopeless("net", epochs=20) is hopeless


def test_it_is_judged_at_every_epoch_after_its_grace() -> None:
    watched = outlook()
    watched.note("head", "transfer", 1, 0.97, 1.0)
    follow(watched, "net", "conv", SLOW)
    assert not watched.is_hopeless("net", epochs=20)
    watched.note("net", "conv", 4, 0.57, 24.0)  # +0.01 an epoch since the second
    assert watched.is_hopeless("net", epochs=20)


@pytest.mark.parametrize(("seconds_left", "hopeless"), [(120.0, False), (30.0, True), (-1.0, True)])
def test_only_epochs_for_which_there_is_time_count(seconds_left: float, hopeless: bool) -> None:
    watched = outlook()
    watched.note("head", "transfer", 1, 0.97, 1.0)
    follow(watched, "net", "conv", SLOW)  # 6 s an epoch: 0.57 + 5 * 0.035 = 0.745 in 30 s
    assert watched.is_hopeless("net", epochs=20, seconds_left=seconds_left) is hopeless


def test_without_another_family_there_is_no_verdict() -> None:
    watched = outlook()
    follow(watched, "other", "conv", [0.9, 0.95, 0.97])
    follow(watched, "net", "conv", FLAT)
    assert not watched.is_hopeless("net", epochs=20)


def test_with_rivals_halving_decides() -> None:
    watched = outlook()
    watched.note("head", "transfer", 1, 0.97, 1.0)
    for number in range(3):
        follow(watched, f"net-{number}", "conv", FLAT)
    assert not watched.is_hopeless("net-2", epochs=20)


def test_a_loss_is_judged_downwards() -> None:
    watched = outlook(metric="val_loss")
    watched.note("head", "transfer", 1, 0.08, 1.0)
    follow(watched, "net", "conv", [0.70, 0.69, 0.68])
    assert watched.is_hopeless("net", epochs=20)
    follow(watched, "fast", "conv", [0.70, 0.60, 0.50])
    assert not watched.is_hopeless("fast", epochs=20)


def trial(name: str, family: str, epochs: int, baseline: bool = False) -> Any:
    spec = {"model": {"family": family}, "train": {"epochs": epochs}}
    config = {"trial_id": name, "baseline": baseline, "spec": spec}
    return SimpleNamespace(trial_id=name, config=config)


def result(epoch: int, value: float) -> dict[str, Any]:
    return {"epoch": epoch, "objective": value, "time_total_s": 6.0 * epoch}


def test_a_schedule_of_its_own_may_dip_before_it_rises() -> None:
    scheduler = FamilyScheduler(Objective(), epochs=20, grace_period=3, reduction_factor=3)
    scheduler.on_trial_complete(None, trial("0001", "transfer", 1), result(1, 0.97))
    tuned = trial("0002", "finetune", 9)
    decisions = [scheduler.on_trial_result(None, tuned, result(e, 0.955)) for e in range(1, 9)]
    assert set(decisions) == {"CONTINUE"}


def test_epochs_on_smaller_images_are_not_judged() -> None:
    """Nor compared with whole ones: what they score on whole images says little."""
    scheduler = FamilyScheduler(Objective(), epochs=8, grace_period=1, reduction_factor=2)
    for number in range(3):
        whole = trial(f"000{number}", "conv", 8)
        scheduler.on_trial_result(None, whole, result(1, 0.9))
    nets = [trial(f"001{number}", "conv", 8) for number in range(2)]
    for net in nets:
        net.config["spec"]["train"]["half_size_share"] = 0.5
    decisions = {
        epoch: [
            scheduler.on_trial_result(None, net, result(epoch, value))
            for net, value in zip(nets, (0.8, 0.5), strict=True)
        ]
        for epoch in range(1, 6)
    }
    assert all(decisions[epoch] == ["CONTINUE"] * 2 for epoch in range(1, 5))
    assert decisions[5] == ["CONTINUE", "STOP"]
    assert (
        scheduler.on_trial_result(None, nets[0], result(6, 0.8)) == "CONTINUE"
    )  # one cut, not two


def test_a_net_without_rivals_is_judged_by_its_epochs_on_whole_images() -> None:
    scheduler = FamilyScheduler(Objective(), epochs=20, grace_period=3, reduction_factor=3)
    scheduler.on_trial_complete(None, trial("0001", "transfer", 1), result(1, 0.97))
    net = trial("0002", "conv", 20)
    net.config["spec"]["train"]["half_size_share"] = 0.5
    decisions = [scheduler.on_trial_result(None, net, result(e, 0.5)) for e in range(1, 14)]
    assert decisions == ["CONTINUE"] * 12 + ["STOP"]


def test_the_scheduler_stops_it_and_spares_a_baseline() -> None:
    scheduler = FamilyScheduler(Objective(), epochs=20, grace_period=3, reduction_factor=3)
    head, net = trial("0001", "transfer", 1), trial("0002", "conv", 20)
    spared = trial("0003", "conv", 20, baseline=True)
    scheduler.on_trial_complete(None, head, result(1, 0.97))
    decisions = [
        scheduler.on_trial_result(None, one, result(epoch, value))
        for one in (net, spared)
        for epoch, value in enumerate(FLAT, start=1)
    ]
    assert decisions == ["CONTINUE", "CONTINUE", "STOP", "CONTINUE", "CONTINUE", "CONTINUE"]
    assert scheduler.stopped == {"0002"}
