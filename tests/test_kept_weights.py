"""Weights of trials that are ranked out are dropped, and nothing that is still needed."""

from pathlib import Path

import pytest

from pawtune.models.baselines import baseline
from pawtune.search.errors import UserError
from pawtune.search.objective import Objective
from pawtune.search.progress.live_view import TrialEvent
from pawtune.search.results.kept_weights import WeightDropper
from pawtune.search.run import Run
from tests.run_folders import RunMaker

ENDED = TrialEvent("0001", "x", "conv", 10, "completed", {})


def add(maker: RunMaker, name: str, accuracy: float, **how: object) -> str:
    trial_id = maker.add(baseline(name, 10), accuracy=accuracy, **how)  # type: ignore[arg-type]
    maker.folder.trial(trial_id).best_weights.write_bytes(b"weights")
    return trial_id


def with_weights(maker: RunMaker) -> set[str]:
    return {trial.trial_id for trial in maker.folder.trials() if trial.best_weights.exists()}


def test_the_best_of_all_and_of_each_family_keep_their_weights(
    tiny_images: Path, runs_dir: Path
) -> None:
    maker = RunMaker(runs_dir, tiny_images)
    best = [add(maker, "tutorial_4", 0.9), add(maker, "tutorial_4", 0.89)]
    of_family = add(maker, "tutorial_1", 0.6)
    unfinished = add(maker, "tutorial_1", 0.5, epochs=3, status="stopped", reason="interrupted")
    running = add(maker, "tutorial_1", 0.5, epochs=3, status="running")
    failed = add(maker, "tutorial_1", 0.5, epochs=3, status="failed", reason="NaN")
    out = [add(maker, "tutorial_1", 0.4), add(maker, "tutorial_4", 0.7, epochs=3)]
    dropper = WeightDropper(maker.folder, Objective(), keep=2)
    for _ in range(19):
        dropper.on_trial_end(ENDED)
    assert with_weights(maker) >= {*out}
    dropper.on_trial_end(ENDED)  # the twentieth
    assert with_weights(maker) == {*best, of_family, unfinished, running, failed}
    run = Run(maker.finish())
    assert run.validation() is not None
    assert len(run.rows()) == 8
    assert all((run.folder.trial(trial_id).best_predictions).exists() for trial_id in out)
    with pytest.raises(UserError, match="and it has none: a search keeps those"):
        run.best(out[0])
