"""Solved heads as trials: through a real search, the same in the delivered model, and again."""

import os
import re
from contextlib import suppress
from pathlib import Path

import keras
import numpy as np
import pytest

from pawtune.search.report.budget import budget
from pawtune.search.report.data import read_report_data
from pawtune.search.run import Run
from tests.command_line import pawtune
from tests.ray_head import tree_of
from tests.run_folders import split_trial
from tests.tiny_run import assert_answers_as_trained, search_untrained
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("ray_cluster")


def processes_of_searches() -> set[int]:
    """Those below this one that keep a search's records and shared work."""
    found = set()
    for pid in tree_of(os.getpid()):
        with suppress(OSError):
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
            if title.startswith((b"ray::Board", b"ray::RunWriter")):
                found.add(pid)
    return found


@pytest.fixture(scope="module")
def others(ray_cluster: object) -> set[int]:
    """Processes of other tests' searches, from before this module's."""
    return processes_of_searches()


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, tiny_images: Path, others: set[int]) -> Run:
    """A search of heads on a backbone with random weights: its portfolio and some proposals."""
    folder = tmp_path_factory.mktemp("solved")
    return search_untrained(folder, tiny_images, families=["transfer"], trials=7, epochs=3)


def solved(run: Run, **spec: object) -> str:
    """The trial of the portfolio with these parameters."""
    return next(
        row.trial_id
        for row in run.rows()
        if all(row.params.get(name) == value for name, value in spec.items())
    )


def test_the_portfolio_comes_first(searched: Run) -> None:
    first = [searched.folder.trial(f"{n:04d}").root for n in range(1, 6)]
    heads = [row.params for row in sorted(searched.rows(), key=lambda row: row.trial_id)][:5]
    assert [(head["head"], head.get("taps")) for head in heads] == [
        ("ridge", "average"), ("ridge", "top_moments"), ("ridge", "all_moments"),
        ("logistic", "average"), ("trained", None),
    ]  # fmt: skip
    assert all(folder.exists() for folder in first)
    assert {row.status for row in searched.rows()} <= {"completed", "stopped"}
    assert [row.epochs for row in searched.rows() if row.params["head"] != "trained"][0] == 1


def test_a_search_leaves_no_process_of_its_own(searched: Run, others: set[int]) -> None:
    """One stayed of each search, for as long as the notebook that it ran in."""
    wait_until(lambda: processes_of_searches() <= others, failure=processes_of_searches)


@pytest.mark.parametrize(("head", "taps"), [
    ("ridge", "all_moments"), ("ridge", "top_moments"), ("logistic", "average"),
])  # fmt: skip
def test_the_delivered_model_is_the_head_that_was_solved(
    searched: Run, tmp_path: Path, head: str, taps: str
) -> None:
    trial_id = solved(searched, head=head, taps=taps)
    file = tmp_path / "model.keras"
    searched.best(trial_id).save(file)
    model = keras.models.load_model(file, compile=False, safe_mode=True)
    # The search's features have the precision of its processor, the delivered model float32.
    assert_answers_as_trained(model, searched, trial_id, atol=1e-2)


def test_solved_heads_are_reproduced_refitted_and_voted(
    searched: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    root = searched.folder.root
    trial_id = solved(searched, head="ridge", taps="top_moments")
    again = pawtune(capsys, "reproduce", root, "--trial", trial_id, "--json")
    assert again.code == 0, again.err
    refit = pawtune(capsys, "refit", root, "--trial", trial_id, "--json")
    assert refit.code == 0, refit.err
    assert refit.json["train_images"] == 56
    assert pawtune(capsys, "report", root).code == 0


def test_heads_on_the_same_features_become_one_head(
    searched: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial_id = solved(searched, head="ridge", taps="top_moments")
    run = split_trial(searched, trial_id, tmp_path / "halves")
    root = run.folder.root
    soup = pawtune(capsys, "ensemble", root, "--soup", "--json").json
    assert (soup["method"], soup["wins"], soup["kept"], soup["candidates"]) == (
        "soup", True, True, 2,
    )  # fmt: skip
    ids = "+".join(member["trial_id"] for member in soup["members"])
    assert sorted(ids.split("+")) == [trial_id, "0099"]
    kept = np.load(searched.folder.trial(trial_id).best_predictions)
    model = keras.models.load_model(root / "ensemble" / "model.keras", compile=False)
    temperature = soup["temperature"]
    assert_answers_as_trained(model, searched, trial_id, atol=1e-2, temperature=temperature)
    # What decided: to rounding what the collapsed head predicts.
    decided = np.load(root / "ensemble" / "val_predictions.npy")
    np.testing.assert_allclose(decided, kept, atol=1e-4)
    assert model.count_params() == searched.best(trial_id).count_params()
    look = pawtune(capsys, "test", root, "--ensemble", "--json").json
    assert (look["model"], look["trial_id"]) == ("ensemble", ids)
    assert look["title"] == "weight average of 2 trials"
    out = tmp_path / "soup.keras"
    written = pawtune(capsys, "best", root, "--ensemble", "--out", out)
    assert "weight average of 2 trials → " in written.out
    page = out.with_suffix(".md").read_text()
    assert "the weight average of 2 trials: " in page
    assert f"| test, look 1 | {look['accuracy']:.4f} |" in page
    (line,) = [x for x in budget(read_report_data(run)).lines if x.startswith("Best validation")]
    assert re.search(r"; weight average of 2 \d\.\d{3}, [+-]\d+\.\d points \(.* s\)\.$", line)
    assert pawtune(capsys, "export", root, "--ensemble", "--format", "tflite", "--out",
                   tmp_path / "lite.tflite").code == 0  # fmt: skip
    shown = pawtune(capsys, "ensemble", root, "--soup", "--top", "2")
    assert "weight average of 2 of 2 trials whose weights may be averaged" in shown.out
    vote = pawtune(capsys, "ensemble", root, "--anyway", "--json").json
    assert vote["method"] == "vote"
    assert run.choose(kind="ensemble").title == "ensemble of 2"
    assert run.model_and_card(run.choose(kind="ensemble"))[1]["test"] is None  # not the soup's look


def test_features_are_made_once(searched: Run) -> None:
    stages = searched.summary()["stages"]
    assert [name for name in stages if name.startswith("features of MobileNetV2 at 32 px")]
    assert not [name for name in stages if "bank" in name]
