"""Earlier runs teach a search: on the same images by their trials, on others by their best two."""

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from pawtune.search.config.search_config import load_config
from pawtune.search.driver import run_search
from pawtune.search.errors import UserError
from pawtune.search.sampling import space
from pawtune.search.sampling.earlier_runs import Lessons, learn_from
from pawtune.search.storage.run_folder import create_run_folder
from pawtune.search.tuning.optuna_searcher import OptunaSearcher
from tests.run_folders import RunMaker, make_images

HEADS = ("transfer",)


@pytest.fixture
def teacher(runs_dir: Path, tmp_path: Path) -> RunMaker:
    """A run of 12 heads and two baselines, which lie outside the space of heads."""
    maker = RunMaker(runs_dir, make_images(tmp_path / "images", ["a", "b"]), name="teacher")
    maker.proposals(12, HEADS)
    maker.baselines(["tutorial_1"])
    maker.finish()
    return maker


def lessons_of(maker: RunMaker, student: RunMaker, **changes: Any) -> tuple[Lessons, list[str]]:
    said: list[str] = []
    config = student.config.model_copy(update=changes)
    return learn_from([maker.folder], config, HEADS, student.manifest, said.append), said


def test_trials_on_the_same_images_are_observations(runs_dir: Path, teacher: RunMaker) -> None:
    student = RunMaker(runs_dir, teacher.manifest, name="student")
    lessons, said = lessons_of(teacher, student)
    assert said == ["learns from teacher: 12 of 13 trials, on the same images"]
    assert (len(lessons.observed), len(lessons.first), len(lessons.known)) == (12, 2, 10)
    assert {trial.state for trial in lessons.observed} <= {TrialState.COMPLETE, TrialState.PRUNED}
    values = sorted((trial.value or 0.0 for trial in lessons.observed), reverse=True)
    found = [trial.params for trial in lessons.observed if trial.value == values[0]]
    assert lessons.first[0] in found

    searcher = OptunaSearcher(
        student.config,
        create_run_folder(runs_dir, "new"),
        families=HEADS,
        num_classes=2,
        lessons=lessons,
    )
    given = [searcher.suggest(str(number)) for number in range(3)]
    searcher.close()
    specs = [space.TrialSpec.model_validate(g["spec"]) for g in given]  # type: ignore[index]
    points = [space.to_params(spec) for spec in specs]
    assert points[:2] == list(lessons.first)  # the student has models of its own to deliver
    assert points[2] not in lessons.first
    assert space.identity(specs[2]) not in lessons.known  # nor a trial for what is known


def test_on_other_images_the_best_two_are_tried_first(
    runs_dir: Path, tmp_path: Path, teacher: RunMaker
) -> None:
    other = RunMaker(runs_dir, make_images(tmp_path / "other", ["a", "b"], 30), name="other")
    lessons, said = lessons_of(teacher, other)
    assert said == ["learns from teacher: where to begin, from 2 of 13 trials, on other images"]
    assert (len(lessons.first), lessons.observed, lessons.known) == (2, (), frozenset())


def test_values_of_another_metric_are_no_observations(runs_dir: Path, teacher: RunMaker) -> None:
    student = RunMaker(runs_dir, teacher.manifest, name="student")
    lessons, said = lessons_of(teacher, student, metric="val_loss")
    assert said[0].endswith("where to begin, from 2 of 13 trials, for another objective")
    assert not lessons.observed


def test_a_space_that_does_not_overlap_teaches_nothing(
    runs_dir: Path, tmp_path: Path, teacher: RunMaker
) -> None:
    student = RunMaker(runs_dir, teacher.manifest, name="student", image_size=64)
    lessons, said = lessons_of(teacher, student)
    assert lessons == Lessons()
    assert said == ["learns from teacher: 0 of 13 trials, on the same images"]


def test_a_run_that_is_not_there_or_damaged_is_refused(runs_dir: Path, teacher: RunMaker) -> None:
    given = {"data": "sample", "runs_dir": str(runs_dir), "name": "new"}
    config = load_config(None, ["learn_from=[nothere]"], given)
    with pytest.raises(UserError, match=r"RUN must be the name of a run .*, received 'nothere'"):
        run_search(config)
    assert not (runs_dir / "new").exists()
    trial = next(iter(teacher.folder.trials()))
    trial.metrics_file.write_text("epoch,loss\n1,x\n")
    with pytest.raises(UserError, match="must hold numbers only"):
        lessons_of(teacher, teacher)
