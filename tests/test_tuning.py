"""Real Tune runs with scripted trials: what the study, the records and the scheduler make of them.

Scripted epochs make every ending certain; tests/test_end_to_end.py has the same with real training.
"""

import importlib
import logging
import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import ray
import ray.tune.tune
from optuna.trial import TrialState
from ray import tune

from pawtune.models.baselines import baseline
from pawtune.models.spec import TrialSpec
from pawtune.search.cluster import ray_internals
from pawtune.search.cluster.connection import ResourcePlan
from pawtune.search.config.search_config import SamplerConfig, load_config
from pawtune.search.errors import UserError
from pawtune.search.objective import Objective
from pawtune.search.progress.reporter import Reporter
from pawtune.search.sampling import space
from pawtune.search.storage.run_folder import RunFolder, create_run_folder, read_json
from pawtune.search.tuning.optuna_searcher import OptunaSearcher, make_sampler
from pawtune.search.tuning.recorder import StopSignal
from pawtune.search.tuning.tune_loop import Trials, run_trials
from pawtune.search.worker.trial_client import start_writer
from tests.scripted_trials import ScriptedWorker

pytestmark = pytest.mark.usefixtures("ray_cluster")
Script = dict[str, list[Any]]


class Search:
    """One scripted search and what it left behind."""

    def __init__(
        self,
        folder: Path,
        script: Script,
        *overrides: str,
        baselines: tuple[TrialSpec, ...] = (),
        families: tuple[str, ...] = ("conv", "transfer"),
        concurrency: int = 1,
    ) -> None:
        # Trials of several epochs: no head is solved in one.
        fixed = ["epochs=3", "scheduler.name=none", "space.head=trained"]
        self.config = load_config(None, [*fixed, *overrides], {"data": "sample"})
        self.run: RunFolder = create_run_folder(folder, "scripted")
        plan = ResourcePlan(cpus=1.0, gpus=0.0, concurrency=concurrency)
        trials = Trials(baselines, families, num_classes=2, plan=plan)
        self.lines: list[str] = []
        reporter = Reporter(quiet=True)
        reporter.say = self.lines.append  # type: ignore[method-assign]
        writer = start_writer(self.run.trials_dir, Objective())
        worker = tune.with_parameters(
            ScriptedWorker, script=script, log_dir=str(folder), writer=writer
        )
        self.log = folder / "log"
        self.reason = run_trials(self.config, self.run, trials, worker, reporter)

    def study(self) -> list[optuna.trial.FrozenTrial]:
        """Trials in the study file, in the order of their ends."""
        storage = f"sqlite:///{self.run.study_file}"
        (name,) = optuna.get_all_study_names(storage)
        return optuna.load_study(study_name=name, storage=storage).trials

    def statuses(self) -> list[str]:
        return [trial.read_status().status for trial in self.run.trials()]


def test_complete_trials_are_told_with_their_best_epoch(runs_dir: Path) -> None:
    search = Search(runs_dir, {"0001": [0.5, 0.9, 0.6], "0002": [0.4, 0.5, 0.7]}, "trials=2")
    assert search.reason is None
    assert [(t.state, t.value) for t in search.study()] == [
        (TrialState.COMPLETE, 0.9),
        (TrialState.COMPLETE, 0.7),
    ]
    assert search.study()[0].intermediate_values == {1: 0.5, 2: 0.9, 3: 0.9}
    assert search.statuses() == ["completed", "completed"]


def test_trials_that_asha_stops_are_told_as_pruned(runs_dir: Path) -> None:
    search = Search(
        runs_dir,
        {"0001": [0.8, 0.8, 0.8], "0002": [0.3, 0.9, 0.9], "0003": [0.9, 0.9, 0.95]},
        "trials=3",
        "scheduler.name=asha",
        "scheduler.grace_period=1",
        "space.half_size_share=0.0",  # trials of one kind are compared
        "space.schedule=cosine",
        families=("conv",),
    )
    told = [(t.state, t.value, t.intermediate_values) for t in search.study()]
    assert told[1] == (TrialState.PRUNED, 0.3, {1: 0.3})
    assert [state for state, *_ in told] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.COMPLETE,
    ]
    assert search.statuses() == ["completed", "stopped", "completed"]
    assert read_json(search.run.trial("0002").status_file)["reason"] == "asha"


def test_a_study_that_somebody_deletes_costs_nothing_else(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a button of optuna-dashboard does, here at the last moment."""

    def delete_and_close(searcher: OptunaSearcher) -> None:
        optuna.delete_study(study_name="scripted", storage=f"sqlite:///{file}")
        close(searcher)

    file, close = runs_dir / "scripted" / "study.db", OptunaSearcher.close
    monkeypatch.setattr(OptunaSearcher, "close", delete_and_close)
    search = Search(runs_dir, {"*": [0.5]}, "trials=1", "epochs=1")
    assert search.statuses() == ["completed"]
    assert [line.partition(";")[0] for line in search.lines] == [
        "study.db lacks 1 of the trials: somebody deleted its study"
    ]


def test_a_study_file_that_fails_leaves_nothing_of_tune_behind(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(searcher: OptunaSearcher) -> None:
        raise LookupError("unforeseen")

    ended: list[Reporter] = []
    monkeypatch.setattr(OptunaSearcher, "close", fail)
    monkeypatch.setattr(Reporter, "close", lambda reporter: ended.append(reporter))
    with pytest.raises(LookupError, match="unforeseen"):
        Search(runs_dir, {"*": [0.5]}, "trials=1", "epochs=1")
    assert not RunFolder(runs_dir / "scripted").tune_dir.exists()
    assert len(ended) == 2, "not before the trials and after them"


def test_failures_are_told_as_fail_and_the_search_goes_on(runs_dir: Path) -> None:
    script: Script = {"0001": ["ValueError: no"], "0002": [0.5, "DivergedError: loss is nan"]}
    search = Search(runs_dir, {**script, "*": [0.5, 0.6, 0.7]}, "trials=4")
    assert [t.state for t in search.study()] == [TrialState.FAIL] * 2 + [TrialState.COMPLETE] * 2
    assert search.statuses() == ["failed", "failed", "completed", "completed"]
    assert search.run.trial("0002").read_status().reason == "DivergedError: loss is nan"


def test_another_ray_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "__version__", "2.61.0")
    with pytest.raises(UserError) as refusal:
        importlib.reload(ray_internals)
    assert str(refusal.value) == (
        "Ray must be 2.60, whose Tune pawtune adapts, received 2.61.0: "
        "pip install 'ray[default,tune]==2.60.*'"
    )


@pytest.mark.parametrize("line", range(12))
def test_a_reason_to_stop_is_taken_in_the_middle_of_another(line: int) -> None:
    """A signal handler runs between any two lines of what it interrupts, locks held or not."""
    stop, passed = StopSignal(), 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal passed
        if event == "line":
            if passed == line:
                sys.settrace(None)
                stop.stop("interrupted")
            passed += 1
        return trace

    def interrupted() -> None:
        sys.settrace(trace)
        stop.stop("time budget")
        sys.settrace(None)

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert stop.stop_all()
    assert stop.reason in ("interrupted", "time budget")


def test_a_dying_worker_fails_its_trial_only(runs_dir: Path) -> None:
    search = Search(runs_dir, {"0001": ["die"], "*": [0.5, 0.6, 0.7]}, "trials=2")
    assert sorted(search.statuses()) == ["completed", "failed"]
    assert "worker process died 4 times" in search.run.trial("0001").read_status().reason
    assert {t.state for t in search.study()} == {TrialState.FAIL, TrialState.COMPLETE}


def test_a_trial_whose_worker_dies_while_it_is_handed_over_is_run_by_another(
    runs_dir: Path,
) -> None:
    script = {"0003": ["die handed over", 0.5, 0.6, 0.7], "*": [0.5, 0.6, 0.7]}
    search = Search(runs_dir, script, "trials=4")
    assert search.statuses() == ["completed"] * 4
    assert (search.log.parent / "died-0003").exists()


def test_a_worker_in_which_something_broke_is_replaced(runs_dir: Path) -> None:
    search = Search(runs_dir, {"0001": ["break"], "*": [0.5, 0.6, 0.7]}, "trials=3")
    assert search.statuses() == ["failed", "completed", "completed"]
    assert search.run.trial("0001").read_status().reason == "OSError: broken"
    assert "broken" in search.run.trial("0001").error_file.read_text()
    notes = [line.split() for line in search.log.read_text().splitlines()]
    process = {trial_id: pid for _, pid, trial_id, _ in notes}
    assert process["0001"] != process["0002"] == process["0003"]


def test_a_search_in_which_all_fail_alike_stops_early(runs_dir: Path) -> None:
    search = Search(runs_dir, {"*": ["OSError: disk on fire"]}, "trials=20")
    assert search.reason == "every trial fails alike: OSError: disk on fire"
    assert 3 <= len(search.statuses()) <= 5
    assert set(search.statuses()) <= {"failed", "stopped", "pending"}


def test_baselines_run_first_whole_and_outside_the_count(runs_dir: Path) -> None:
    # Both are worse than anything before them, and ASHA would stop them after one epoch.
    baselines = tuple(baseline(name, epochs=3) for name in ("tutorial_3", "tutorial_4"))
    search = Search(
        runs_dir,
        {"0001": [0.1, 0.1, 0.1], "0002": [0.05, 0.1, 0.1], "*": [0.5, 0.6, 0.7]},
        "trials=2",
        "scheduler.name=asha",
        "scheduler.grace_period=1",
        "space.rotation_factor.high=0.9",
        baselines=baselines,
    )
    names = [read_json(trial.spec_file)["name"] for trial in search.run.trials()]
    assert names[:2] == ["tutorial_3", "tutorial_4"]
    assert len(names) == 4
    told = {t.user_attrs["name"]: t for t in search.study()}
    assert told["tutorial_3"].state == TrialState.COMPLETE
    assert told["tutorial_3"].params["conv_depth"] == 3


def test_a_strong_family_does_not_stop_the_other(runs_dir: Path) -> None:
    # The baselines settle the rung: 0.95 for transfer, 0.5 for conv.
    baselines = tuple(baseline(name, epochs=3) for name in ("tutorial_4", "tutorial_3"))
    search = Search(
        runs_dir,
        {"0001": [0.95] * 3, "0002": [0.5] * 3, "*": [0.6, 0.65, 0.7]},
        "trials=3",
        "scheduler.name=asha",
        "scheduler.grace_period=1",
        baselines=baselines,
        families=("conv",),
    )
    assert search.statuses() == ["completed"] * 5


def test_a_net_is_stopped_that_cannot_come_near_a_solved_head(runs_dir: Path) -> None:
    """A head's first result is its last, which Tune hands to `on_trial_complete` alone."""
    search = Search(
        runs_dir,
        {"0001": [0.97], "*": [0.5, 0.54, 0.55, 0.56, 0.57] + [0.57] * 15},
        "trials=2",
        "epochs=20",
        "families=[conv, transfer]",
        "scheduler.name=asha",
        "scheduler.grace_period=3",
        "space.head=ridge",
        "space.half_size_share=0.0",
    )
    assert search.statuses() == ["completed", "stopped"]
    assert max(search.study()[1].intermediate_values) == 4  # 0.56 + 16 * 0.01 is less than 0.97


def test_no_configuration_runs_twice_and_an_exhausted_space_ends_the_search(
    runs_dir: Path,
) -> None:
    fixed = ["flip=[none]", "rotation_factor=0.0", "learning_rate=0.001", "batch_size=32"]
    fixed += ["optimizer=[adam, sgd]", "head_pooling=[average, max]", "head_dense_width=0"]
    fixed += ["schedule=[cosine]", "label_smoothing=0.0"]
    search = Search(
        runs_dir,
        {"*": [0.5, 0.6, 0.7]},
        "trials=9",
        *[f"space.{item}" for item in [*fixed, "head_dropout=0.2"]],
        families=("transfer",),
    )
    specs = [read_json(trial.spec_file) for trial in search.run.trials()]
    pairs = {(s["train"]["optimizer"], s["model"]["pooling"]) for s in specs}
    assert len(specs) == len(pairs) == 4
    assert len(search.lines) == 1
    assert "holds no more new configurations" in search.lines[0]
    assert len(search.study()) == 4


def test_every_family_that_is_named_gets_a_trial(runs_dir: Path) -> None:
    def families_of(trials: int, *families: str) -> list[str]:
        named, heads = f"families=[{', '.join(families)}]", "space.head=[ridge, trained]"
        search = Search(
            runs_dir / f"{trials}-{len(families)}",
            {"*": [0.5] * 3},
            f"trials={trials}", named, heads, families=families,
        )  # fmt: skip
        said.extend(search.lines)
        return [read_json(trial.spec_file)["model"]["family"] for trial in search.run.trials()]

    said: list[str] = []
    assert families_of(4, "conv", "transfer") == ["transfer"] * 3 + ["conv"]
    assert families_of(3, "conv", "transfer", "finetune") == ["transfer", "finetune", "conv"]
    assert said == []
    assert families_of(1, "conv", "transfer") == ["transfer"]
    assert said == [
        "each family that is named gets a trial if there are enough, received 1 for "
        "conv, transfer; give 1 more"
    ]


def test_no_proposal_breaks_the_limits(runs_dir: Path) -> None:
    search = Search(
        runs_dir,
        {"*": [0.5]},
        "epochs=1",
        "trials=12",
        "space.filters=[64]",
        "space.filter_growth=[2.0]",
        families=("conv",),
        concurrency=2,
    )
    from pawtune.models.families.table import check_limits

    for trial in search.run.trials():
        content = read_json(trial.spec_file)
        spec = TrialSpec.model_validate({k: content[k] for k in ("name", "model", "train")})
        check_limits(spec.model, 2)
        assert space.to_params(spec) is not None


def test_trials_run_side_by_side_on_reused_workers(runs_dir: Path) -> None:
    # The first trial continues when the second worker has begun its own.
    search = Search(runs_dir, {"*": ["meet", 0.5, 0.5]}, "epochs=2", "trials=8", concurrency=2)
    assert search.statuses() == ["completed"] * 8
    notes = [line.split() for line in search.log.read_text().splitlines()]
    processes = {pid for _, pid, _, _ in notes}
    assert len(processes) == 2
    running = most = 0
    for _, _, _, what in sorted(notes):
        running += 1 if what == "start" else -1
        most = max(most, running)
    assert most == 2


def test_a_time_budget_ends_the_search_in_order(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour is over as soon as the first trial has begun."""

    def monotonic() -> float:
        return time.monotonic() + (3600 if (runs_dir / "log").exists() else 0)

    clock = SimpleNamespace(time=time.time, monotonic=monotonic)
    monkeypatch.setattr("pawtune.search.tuning.recorder.time", clock)
    script: Script = {"*": [0.5] * 1000}
    search = Search(runs_dir, script, "trials=50", "epochs=1000", "time_budget_s=3600")
    assert search.reason == "time budget"
    assert search.statuses()[0] == "stopped"
    assert search.run.trial("0001").read_status().reason == "time budget"


def test_a_resumed_search_draws_other_points() -> None:
    """Random search with the seed of its start would propose what it has had, and end."""
    config = load_config(None, [], {"data": "sample"})
    points = []
    for num_past in (0, 20, 40):
        study = optuna.create_study(sampler=make_sampler(SamplerConfig(name="random"), 0, num_past))
        points.append(str(space.propose(study.ask(), config, ["conv", "transfer"])))
    again = optuna.create_study(sampler=make_sampler(SamplerConfig(name="random"), 0, 20))
    assert len(set(points)) == 3
    assert str(space.propose(again.ask(), config, ["conv", "transfer"])) == points[1]


def test_a_search_leaves_the_process_as_it_was() -> None:
    from ray.tune.execution import class_cache, tune_controller

    from pawtune.search.cluster.ray_internals import ENVIRONMENT, tune_adapted

    def state() -> tuple[Any, ...]:
        return (
            tune_controller.RayActorManager,
            ray.tune.tune.TuneController,
            set(class_cache.ENV_VARS_TO_PROPAGATE),
            logging.getLogger("ray.tune").level,
            {name: os.environ.get(name) for name in ENVIRONMENT},
        )

    before = state()
    with tune_adapted():
        assert all(now != then for now, then in zip(state(), before, strict=True))
    assert state() == before
    with pytest.raises(KeyError), tune_adapted():
        raise KeyError
    assert state() == before
