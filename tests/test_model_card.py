"""Model cards: every figure a person needs, in JSON and as Markdown."""

import json
from pathlib import Path

import pytest
import yaml

from pawtune.models.baselines import baseline
from pawtune.search.results.delivery.model_card import card_markdown, make_card
from pawtune.search.results.leaderboard import Row
from pawtune.search.results.model_choice import choose_model
from pawtune.search.run import Run
from tests.run_folders import RunMaker, make_images


@pytest.fixture
def maker(runs_dir: Path, tmp_path: Path) -> RunMaker:
    maker = RunMaker(runs_dir, make_images(tmp_path / "images", ["a|b", "<i>c"], 100))
    maker.add(baseline("tutorial_1", 4), is_baseline=True, accuracy=0.7)
    maker.add(baseline("tutorial_3", 4), is_baseline=True, accuracy=0.9)
    maker.finish()
    return maker


def card_of(maker: RunMaker, number: int) -> tuple[dict[str, object], list[Row]]:
    run = Run(maker.folder)
    rows = run.rows()
    row = rows[number]
    chosen = choose_model(maker.folder, rows, trial=row.trial_id)
    return make_card(maker.folder, rows, chosen, maker.manifest, "val_accuracy"), rows


def test_the_card_of_the_winner(maker: RunMaker) -> None:
    maker.look_at_test(trial_id="0002")
    card, rows = card_of(maker, 0)
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    validation = card["validation"]
    assert validation["accuracy"] == rows[0].best_val_accuracy
    assert validation["corrected_accuracy"] is not None
    assert (validation["candidates"], validation["images"]) == (2, 30)
    assert card["test"]["accuracy"] == 0.935
    page = card_markdown(card)
    front = yaml.safe_load(page.split("---\n")[1])
    assert (front["library_name"], front["pipeline_tag"]) == ("keras", "image-classification")
    assert "license" not in front, "a net from scratch holds nobody else's weights"
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"]["split"] == "test"
    assert result["metrics"][0]["value"] == 0.935
    assert "95% interval 0.8920 to 0.9616" in result["metrics"][0]["name"]
    assert "| test, look 1 | 0.9350 | 0.8920 to 0.9616 | 200 |" in page
    assert "corrected for picking the best of 2" in page
    assert maker.manifest.fingerprint in page
    assert "pawtune best made --trial 0002 --out best.keras" in page
    assert "tensorflow 2." in page


def test_another_trial_is_not_corrected_and_not_tested(maker: RunMaker) -> None:
    maker.look_at_test(trial_id="0002")
    card, _ = card_of(maker, 1)
    assert card["validation"]["corrected_accuracy"] is None
    assert card["test"] is None
    page = card_markdown(card)
    assert "had not been looked at" in page
    assert "best of" not in page


def test_names_cannot_break_the_page(maker: RunMaker) -> None:
    page = card_markdown(card_of(maker, 0)[0])
    assert "a\\|b" in page
    assert "\\<i\\>c" in page
    tables = [line for line in page.splitlines() if line.startswith("| split | ")]
    assert tables[1].replace("\\|", "").count("|") == 4


def test_a_later_look_says_so(maker: RunMaker) -> None:
    maker.look_at_test(trial_id="0002")
    assert "looked at once" in card_markdown(card_of(maker, 0)[0])
    maker.look_at_test(trial_id="0001", looks=2)
    assert "no longer an honest test" in card_markdown(card_of(maker, 0)[0])
