"""What a reproduction says where the machine, a version or a digit differs."""

from pathlib import Path
from typing import Any

from pawtune.models.baselines import baseline
from pawtune.search.cli.tables.trust import reproduction_lines
from pawtune.search.retraining.reproduce import (
    EpochPair,
    Reproduction,
    find_changes,
    first_difference,
)
from pawtune.search.storage.records import TrialFacts
from pawtune.search.storage.versions import installed_versions
from tests.run_folders import RunMaker, make_images
from tests.tiny_run import TINY, search_tiny

FACTS = TrialFacts(device="cpu", cpu="A", threads=1, precision="float32", training="live", code=2)


def pair(epoch: int, recorded: float, again: float) -> EpochPair:
    return EpochPair(epoch, {"loss": 1.0, "val_loss": recorded}, {"loss": 1.0, "val_loss": again})


def test_differences_are_relative_above_one() -> None:
    assert pair(1, 0.5, 0.6).largest == abs(0.5 - 0.6)
    assert pair(1, 4.0, 5.0).largest == 0.25


def test_the_first_difference_beyond_the_tolerance_is_named() -> None:
    pairs = [pair(1, 0.5, 0.5), pair(2, 0.5, 0.51), pair(3, 0.5, 0.6)]
    assert first_difference(pairs, 0.0, 0.0, 1) == "epoch 2: val_loss was 0.5, is 0.51 now"
    assert first_difference(pairs, 0.05, 0.3, 1) == "epoch 3: val_loss was 0.5, is 0.6 now"
    assert first_difference(pairs, 0.2, 0.3, 1) is None
    told = first_difference([pair(1, 0.5, 0.5)], 0.0, 1e-8, 1)
    assert told == "epoch 1: validation probabilities differ by up to 1e-08"
    assert first_difference([pair(1, 0.5, float("nan"))], 1.0, None, 1) is not None


def test_what_decides_on_digits_is_compared(runs_dir: Path, tmp_path: Path) -> None:
    maker = RunMaker(runs_dir, make_images(tmp_path / "images", ["a", "b"]))
    maker.add(baseline("tutorial_1", 4))
    run = maker.finish()
    assert find_changes(run, FACTS, FACTS) == []
    assert find_changes(run, TrialFacts(), FACTS) == []  # an older record does not say
    unversioned = TrialFacts(**{k: v for k, v in FACTS.as_dict().items() if k != "code"})
    assert find_changes(run, unversioned, FACTS) == ["pawtune's training code, version 1 → 2"]
    moved = FACTS.model_copy(update={"cpu": "B", "threads": 2})
    assert find_changes(run, FACTS, moved) == ["processor A → B", "threads 1 → 2"]
    with run.config_file.open("a") as stream:
        stream.write('versions: {keras: 3.0.0, ray: "\\e[2J"}\n')
    now = installed_versions()["keras"]
    keras, ray = find_changes(run, FACTS, FACTS)
    assert keras == f"keras 3.0.0 → {now}"
    assert ray.isprintable()


def test_a_trial_that_was_stopped_is_trained_on_its_whole_schedule(
    ray_cluster: dict[str, Any], tiny_images: Path, runs_dir: Path
) -> None:
    """A cosine over the two epochs that it was given would be another than over all four."""
    space = {**TINY["space"], "schedule": ["cosine"]}
    run = search_tiny(tiny_images, runs_dir, trials=1, epochs=4, space=space)
    (trial,) = run.folder.trials()
    trial.write_metrics(trial.read_metrics()[:2])
    trial.best_predictions.unlink()  # of a later epoch
    result = run.reproduce(trial.trial_id)
    assert [pair.epoch for pair in result.pairs] == [1, 2]
    assert result.first_difference is None


def test_the_verdict_says_what_it_rests_on() -> None:
    def told(tolerance: float, changed: list[str], again: float, found: str | None) -> str:
        pairs = [pair(1, 0.5, again)]
        result = Reproduction("0001", "conv", pairs, tolerance, changed, 0.0, found)
        return " ".join(reproduction_lines(result))

    assert told(0, [], 0.5, None).startswith("identical: all digits of 2 metrics in 1 epoch and")
    other = told(0.05, ["processor A → B"], 0.51, None)
    assert other.startswith("not as it was: processor A → B matches: 2 metrics in 1 epoch differ")
    assert "at most 0.01 (tolerance 0.05)" in other
    differs = told(0, [], 0.6, "epoch 1: val_loss was 0.5, is 0.6 now")
    assert differs.startswith("does not match (tolerance 0): epoch 1: val_loss was 0.5, is 0.6 now")
    assert "a file of the run folder has changed" in differs
