"""The leaderboard: ranks, states in words, sorted, cut, as CSV; trials by name."""

import csv
import io
from collections import Counter
from pathlib import Path

import pytest

from pawtune.models.baselines import baseline
from pawtune.search.cli import trial_verbs
from pawtune.search.config.search_config import SearchConfig
from pawtune.search.errors import UserError
from pawtune.search.run import Run
from pawtune.search.storage.run_lock import RunLock
from tests.command_line import pawtune
from tests.run_folders import RunMaker, make_images


@pytest.fixture
def run(runs_dir: Path, tmp_path: Path) -> Run:
    """Best first: 0002, 0001 stopped early, 0003 interrupted; 0004 has no epoch, 0005 failed."""
    maker = RunMaker(runs_dir, make_images(tmp_path / "images", ["a", "b"]))
    names = iter(("good", "better", "cut", "none", "bad"))
    for options in (
        {"epochs": 2, "accuracy": 0.8},
        {"accuracy": 0.95},
        {"epochs": 2, "accuracy": 0.6, "status": "stopped", "reason": "interrupted"},
        {"epochs": 0, "status": "pending"},
        {"epochs": 0, "status": "failed", "reason": "ValueError: no"},
    ):
        spec = baseline("tutorial_1", 4).model_copy(update={"name": next(names)})
        maker.add(spec, **options)
    return Run(maker.finish())


def test_one_objective_gives_the_columns_that_it_always_gave(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Programs read them: what several objectives or a metric of one's own add, they add alone."""
    known = ["rank", "trial_id", "name", "family", "status", "best_val_accuracy", "best_val_loss"]
    known += ["train_accuracy", "best_epoch", "epochs", "seconds", "num_weights"]
    rows = pawtune(capsys, "leaderboard", run.folder.root, "--json").json
    assert [list(row) for row in rows] == [[*known, "params", "state"]] * 5
    lines = pawtune(capsys, "leaderboard", run.folder.root, "--csv").out.splitlines()
    head = next(csv.reader(lines))
    assert head[: len(known) + 1] == [*known, "state"]
    assert all(name.startswith("params.") for name in head[len(known) + 1 :])


def test_only_trials_with_an_epoch_have_a_rank(run: Run) -> None:
    rows = run.rows()
    assert [row.name for row in rows] == ["better", "good", "cut", "none", "bad"]
    assert [row.rank for row in rows] == [1, 2, 3, None, None]
    with pytest.raises(UserError, match="rank 4 must name a trial with a finished epoch"):
        run.choose(rank=4)


def test_what_no_driver_holds_is_interrupted_everywhere(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run.folder.trial("0001").write_status("running", started=1.0)
    with RunLock(run.folder):
        assert {row.state for row in run.rows()} >= {"pending", "running"}
    words = Counter(row.state for row in run.rows())
    assert words == {"completed": 1, "interrupted": 3, "failed": 1}
    shown = pawtune(capsys, "leaderboard", run.folder.root, "--json").json
    assert Counter(row["state"] for row in shown) == words
    assert pawtune(capsys, "status", run.folder.root, "--json").json["run"]["counts"] == words


def test_stopped_early_and_interrupted_are_two_words_everywhere(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [row.state for row in run.rows()][:3] == ["completed", "stopped early", "interrupted"]
    page = tmp_path / "report.md"
    assert pawtune(capsys, "report", run.folder.root, "--out", page, "--format=md").code == 0
    told = pawtune(capsys, "leaderboard", run.folder.root).out
    for text in (told, page.read_text()):
        for name, state in (("good", "stopped early"), ("cut", "interrupted")):
            line = next(line for line in text.splitlines() if f" {name} " in line)
            assert state in line
    assert "interrupted" in pawtune(capsys, "show", run.folder.root, "cut").out


def test_the_leaderboard_is_sorted_cut_and_written_as_csv(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    def names(*options: str) -> list[str]:
        told = pawtune(capsys, "leaderboard", run.folder.root, "--csv", *options)
        assert told.code == 0, told.err
        return [row["name"] for row in csv.DictReader(io.StringIO(told.out))]

    assert names() == [row.name for row in run.rows()]
    assert names("--top", "2") == ["better", "good"]
    assert names("--sort", "best_val_accuracy") == ["better", "good", "cut", "none", "bad"]
    assert names("--sort=-best_val_accuracy", "--top=1") == ["cut"]
    assert names("--sort=-name")[:2] == ["bad", "better"]
    wrong = pawtune(capsys, "leaderboard", run.folder.root, "--sort", "epoch")
    assert wrong.code == 2
    assert "received 'epoch'; did you mean 'epochs'" in wrong.err
    table = pawtune(capsys, "leaderboard", run.folder.root, "--top", "2").out
    assert "2 of 5 trials" in table
    assert "better" in table
    assert "bad" not in table


def test_a_trials_name_is_as_good_as_its_id(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    by_name = pawtune(capsys, "show", run.folder.root, "better", "--json").json
    assert by_name["trial_id"] == "0002"
    assert by_name == pawtune(capsys, "show", run.folder.root, "0002", "--json").json
    assert run.choose("better") == run.choose("0002") == run.choose()
    refused = pawtune(capsys, "show", run.folder.root, "best")
    assert refused.code == 2
    assert "'best'" in refused.err


def test_a_misspelt_setting_is_suggested_in_python_too() -> None:
    with pytest.raises(UserError, match=r"trails: no such setting; did you mean 'trials'\?"):
        SearchConfig(data="sample", trails=2)
    with pytest.raises(UserError, match=r"data: it is required.*\n?"):
        SearchConfig()


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    told = pawtune(capsys, "--version")
    assert told.code == 0
    assert told.out.startswith("pawtune 0.")


def test_help_names_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    """As the settings have them: the options themselves have none, so that a file's hold."""
    # A narrow terminal wraps them.
    told = " ".join(pawtune(capsys, "run", "--help").out.replace("│", " ").split())
    config = SearchConfig(data="sample")
    for value in (config.trials, config.epochs, *config.image_size, config.metric, config.runs_dir):
        assert f"[default: ({value})]" in told


def test_a_table_of_very_many_trials_is_cut_and_says_so(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_verbs, "TABLE_ROWS", 2)
    table = pawtune(capsys, "leaderboard", run.folder.root).out
    assert "2 of 5 trials" in table
    assert " good " in table
    assert " cut " not in table
    assert " cut " in pawtune(capsys, "leaderboard", run.folder.root, "--top=3").out
    assert len(pawtune(capsys, "leaderboard", run.folder.root, "--json").json) == 5
