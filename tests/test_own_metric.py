"""A metric of one's own: the file of docs/extending.md, through the command line and in Python."""

import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pawtune.models.errors import ModelError
from pawtune.search.config import own_metric
from pawtune.search.config.own_metric import measure, try_metric, use_metric
from pawtune.search.config.search_config import SearchConfig, dump_config, load_config
from pawtune.search.errors import UserError
from pawtune.search.jobs.ray_jobs import pack
from pawtune.search.objective import Objective
from pawtune.search.results.metrics import confusion_matrix, score_classes
from pawtune.search.run import open_run
from pawtune.search.trial_report import BestEpoch, TrialReport
from tests.command_line import pawtune

PAGE = Path(__file__).resolve().parent.parent / "docs" / "extending.md"
PLACE = "scores:macro_f1"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the page's file in it; no metric is in use before or after."""
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    (tmp_path / "scores.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    """As in a process that has just begun."""
    own_metric.IN_USE.clear()
    sys.modules.pop("scores", None)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.slow
def test_the_pages_metric_ranks_trials_and_is_shown_by_its_name(
    folder: Path, tiny_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = ["--data", tiny_images, "--name", "mine", "--families", "conv", "--quiet"]
    quick = ["--image-size", 32, "--trials", 2, "--epochs", 2, "--set", "scheduler.name=none"]
    done = pawtune(capsys, "run", *search, *quick, "--metric", PLACE, "--json")
    assert done.code == 0, done.err

    run = open_run(folder / "runs" / "mine")
    assert run.config().metric == PLACE
    labels = run.manifest().labels("validation")
    best = []
    for trial in run.folder.trials():
        epochs = trial.read_metrics()
        top = Objective("macro_f1").best(epochs)
        predicted = np.load(trial.best_predictions).argmax(axis=1)
        matrix = confusion_matrix(labels, predicted, len(run.manifest().class_names))
        expected = np.mean(
            [score.f1 for score in score_classes(matrix, run.manifest().class_names)]
        )
        assert top["macro_f1"] == max(row["macro_f1"] for row in epochs)
        assert top["macro_f1"] == pytest.approx(expected)
        best.append(top["macro_f1"])
    rows = done.json["leaderboard"]
    assert [row["best_macro_f1"] for row in rows] == sorted(best, reverse=True)
    assert done.json["validation"] is None
    assert sorted(trial.value for trial in run.study.trials) == sorted(best)

    forget()  # whoever looks at the run needs no function
    table = pawtune(capsys, "leaderboard", "mine")
    assert (table.code, "macro_f1" in table.out) == (0, True)
    uncorrected = "macro_f1 and validation accuracy are not corrected for picking the best of 2"
    assert uncorrected in " ".join(table.out.split())
    assert pawtune(capsys, "report", "mine").code == 0
    report = (run.folder.root / "report.html").read_text(encoding="utf-8")
    assert "macro_f1" in report.casefold()
    assert uncorrected in report
    assert pawtune(capsys, "best", "mine", "--out", "best.keras").code == 0
    assert "macro_f1" in run._repr_html_()
    events = EventAccumulator(str(next((run.folder.root / "tb").glob("0001-*"))))
    events.Reload()
    assert {"macro_f1", "trial/macro_f1_at_best"} <= set(events.Tags()["scalars"])
    for verb in (["resume", "mine", "--trials", "+1"], ["reproduce", "mine"], ["confirm", "mine"]):
        refused = pawtune(capsys, *verb, "--quiet")
        assert refused.code == 2
        assert refused.err.count("\n") == 1
        assert f"if you trust it, give --metric {PLACE}" in refused.err
    assert "scores" not in sys.modules  # what a folder holds imports nothing

    for verb in (["resume", "mine", "--trials", "+1"], ["reproduce", "mine", "--json"]):
        ended = pawtune(capsys, *verb, "--quiet", "--metric", PLACE)
        assert ended.code == 0, ended.err
    assert ended.json["identical"]
    assert "macro_f1" in ended.json["pairs"][0]["again"]
    assert len(run.rows()) == 3


def accuracy(labels: Any, probabilities: Any) -> float:
    """A metric."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def hits(labels: Any, probabilities: Any) -> float:
    """A metric whose name is its own."""
    return accuracy(labels, probabilities)


def test_a_configuration_keeps_the_place_and_reads_back(folder: Path) -> None:
    given: Any = hits
    config = SearchConfig(data="sample", metric=given)
    assert config.metric == "tests.test_own_metric:hits"
    assert config.objective == Objective("hits")
    (folder / "search.yaml").write_text(dump_config(config), encoding="utf-8")
    forget()
    assert load_config(folder / "search.yaml") == config  # a name; it imports nothing
    with pytest.raises(UserError, match="code that runs only where you name it"):
        own_metric.metric_in_use(config.metric)


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("nothere:f1", "can be imported, received 'nothere:f1': ModuleNotFoundError"),
        ("scores:f2", "received 'scores:f2': AttributeError"),
        ("math:pi", "a metric must be a function, received 'math:pi'"),
        ("collections:OrderedDict", "must be a function"),
        (partial(int), "must be a function"),
        ("tests.test_own_metric:accuracy", "must have a name of its own"),
        (lambda labels, probabilities: 1.0, "must name a function at the top of a module"),
    ],
)
def test_a_place_without_a_metric_is_refused(folder: Path, place: Any, told: str) -> None:
    with pytest.raises(ModelError, match=re.escape(told)):
        use_metric(place)
    assert not own_metric.IN_USE


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (None, "must return a finite float, received None (NoneType)"),
        (float("nan"), "must return a finite float, received nan"),
        (True, "received True"),
        (np.array([0.5, 0.5]), "(ndarray)"),
        (ValueError("no such class"), "but raised ValueError: no such class"),
    ],
)
def test_what_is_no_float_is_refused_before_any_trial(result: Any, told: str) -> None:
    def odd(labels: Any, probabilities: Any) -> Any:
        assert (labels.dtype, probabilities.dtype) == (np.int32, np.float32)
        assert (labels.shape, probabilities.shape) == ((3,), (3, 2))
        if isinstance(result, Exception):
            raise result
        return result

    own_metric.IN_USE["mine:odd"] = odd
    try:
        with pytest.raises(UserError, match=re.escape(told)) as caught:
            try_metric("mine:odd", np.array([0, 1, 1]), 2)
    finally:
        forget()
    assert str(caught.value).startswith("the metric odd must return a ")


def test_a_metric_gets_copies_and_may_give_numpys_numbers() -> None:
    def spoils(labels: Any, probabilities: Any) -> Any:
        labels[:] = probabilities[:] = 0
        return np.float32(0.5)

    labels, probabilities = np.ones(2, np.int32), np.ones((2, 2), np.float32)
    assert measure(spoils, "spoils", labels, probabilities) == 0.5
    assert labels.all()
    assert probabilities.all()


def test_a_report_carries_it_through_tune() -> None:
    report = TrialReport(1, {"loss": 0.5, "done": 0.25}, BestEpoch(1, 0.25, 0.5, 0.5))
    assert report.to_result()["done"] is False  # a metric may have any name that is free
    assert TrialReport.from_result(report.to_result()) == report


def test_an_epoch_without_it_is_refused() -> None:
    with pytest.raises(ModelError, match=r"must hold macro_f1, which it optimises, received epoch"):
        Objective("macro_f1").best([{"epoch": 1, "val_loss": 0.5}])


def test_a_job_takes_the_file_along(folder: Path, tmp_path_factory: Any) -> None:
    use_metric(PLACE)
    job = tmp_path_factory.mktemp("job")
    pack(job, None, [PLACE])
    assert (job / "scores.py").read_text() == (folder / "scores.py").read_text()
