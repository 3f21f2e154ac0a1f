"""Several objectives: costs of the complete model, the Pareto front, and who is stopped."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pawtune.search.config.search_config import SearchConfig, load_config
from pawtune.search.errors import UserError
from pawtune.search.objective import Objective, undominated
from pawtune.search.run import Run
from pawtune.search.tuning.domination import Domination
from pawtune.search.tuning.scheduler import FamilyScheduler
from tests.command_line import pawtune
from tests.run_folders import RunMaker
from tests.tiny_run import search_tiny

BOTH = Objective(costs=("latency_ms",))


def test_the_front_is_what_nothing_dominates() -> None:
    assert undominated([]) == []
    assert undominated([(0.9, -3), (0.8, -3), (0.8, -1), (0.9, -3), (0.1, -2)]) == [0, 2, 3]
    assert BOTH.directions == ["maximize", "minimize"]
    assert BOTH.values(0.9, {"size_mb": 1.0}) is None
    losses = Objective("val_loss", ("latency_ms",))
    assert losses.point([0.2, 5.0]) == (-0.2, -5.0)


def test_a_trial_is_compared_at_the_same_part_of_its_epochs() -> None:
    watched = Domination(BOTH)
    for epoch, value in enumerate([0.5, 0.6, 0.7], start=1):
        watched.note("long", "conv", 3, {"epoch": epoch, "objective": value, "latency_ms": 4.0})
    watched.note("late", "conv", 3, {"epoch": 1, "objective": 0.55, "latency_ms": 5.0})
    assert not watched.is_dominated("late")  # though the other one came to 0.7
    watched.note("late", "conv", 3, {"epoch": 2, "objective": 0.55, "latency_ms": 5.0})
    assert watched.is_dominated("late")
    watched.note("head", "transfer", 3, {"epoch": 1, "objective": 0.1, "latency_ms": 9.0})
    assert not watched.is_dominated("head")  # each family among its own


@pytest.mark.parametrize(("latency", "decision"), [(3.0, "CONTINUE"), (5.0, "STOP")])
def test_asha_stops_the_dominated_only(latency: float, decision: str) -> None:
    def trial(name: str) -> Any:
        spec = {"model": {"family": "conv"}, "train": {"epochs": 9}}
        return SimpleNamespace(
            trial_id=name, config={"trial_id": name, "baseline": False, "spec": spec}
        )

    scheduler = FamilyScheduler(BOTH, epochs=9, grace_period=1, reduction_factor=3)
    for number, value in enumerate([0.9, 0.8, 0.7]):
        result = {"epoch": 1, "objective": value, "latency_ms": 4.0}
        scheduler.on_trial_result(None, trial(f"000{number}"), result)
    weak = {"epoch": 1, "objective": 0.2, "latency_ms": latency}
    assert scheduler.on_trial_result(None, trial("0004"), weak) == decision


@pytest.mark.usefixtures("ray_cluster")
def test_a_search_measures_costs_and_chooses_within_them(
    tiny_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    costs = ("accuracy", "latency_ms", "size_mb")
    run = search_tiny(tiny_images, tmp_path, objectives=costs)
    rows = run.rows()
    for row in rows:
        assert row.latency_ms is not None
        assert row.size_mb is not None
        assert row.num_weights is not None
        assert row.size_mb == pytest.approx(4 * row.num_weights / 1e6, abs=0.001)
    names = {t.user_attrs["name"] for t in run.study.best_trials}
    assert names == {row.name for row in rows if row.on_front} != set()

    fastest = min(rows, key=lambda row: row.latency_ms or 0)
    limit = fastest.latency_ms or 0
    assert run.choose(max_latency_ms=limit).row == fastest
    assert run.best(max_latency_ms=1e6).output_shape == (None, 2)
    with pytest.raises(UserError, match=f"the nearest is {fastest.name} with"):
        run.choose(max_latency_ms=limit / 2)
    best = ["best", run.folder.root, "--json"]
    assert pawtune(capsys, *best, "--max-latency", f"{limit + 0.01}ms").code == 0
    done = pawtune(capsys, *best, "--max-latency", "soon")
    assert (done.code, "like 20ms, received 'soon'" in done.err) == (2, True)
    done = pawtune(capsys, *best, "--max-latency", 9, "--rank", 1)
    assert (done.code, "chooses among the trials by itself" in done.err) == (2, True)
    shown = pawtune(capsys, "leaderboard", run.folder.root).out
    assert "1*" in shown
    assert "* on the Pareto front" in shown
    report = pawtune(capsys, "report", run.folder.root)
    assert report.code == 0
    page = (run.folder.root / "report.html").read_text(encoding="utf-8")
    assert "milliseconds for one image" in page


def test_a_run_without_latencies_says_so(tiny_images: Path, tmp_path: Path) -> None:
    maker = RunMaker(tmp_path, tiny_images)
    maker.proposals(1, ["conv"])
    with pytest.raises(UserError, match="search with objectives accuracy,latency_ms"):
        Run(maker.finish()).choose(max_latency_ms=5)


def test_what_objectives_may_be() -> None:
    config = SearchConfig(data="sample", objectives="accuracy,size_mb")  # type: ignore[arg-type]
    assert config.objective == Objective(costs=("size_mb",))
    with pytest.raises(UserError, match="the first must be accuracy, .*received size_mb,accuracy"):
        load_config(None, ["objectives=[size_mb, accuracy]"], {"data": "sample"})
    with pytest.raises(UserError, match="received 'size_mb' twice"):
        load_config(None, ["objectives=[accuracy, size_mb, size_mb]"], {"data": "sample"})
    with pytest.raises(UserError, match="^objectives: must be accuracy, alone or with .*'price'"):
        load_config(None, ["objectives=[accuracy, price]"], {"data": "sample"})
